"""Estimators that weigh states: by how often the target visits them, not by how it got there.

With `m_t(s) = d_t^θ(s) / d_t^φ(s)` the ratio of how often target and behaviour are in a state at a
time, `V = E_φ[Σ_t γ^t m_t(s_t) ρ_t r_t]`. A product over time is left out, and with it a variance
that grows exponentially in the horizon; what comes in is that `m` is fitted. The error is therefore
that of fitting again (`resampling.refit`). All need the state: where what is observed is less than
that, they are biased.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import marginal
from reweigh.core.marginal import Linear, StateRatios, Tabular
from reweigh.core.marginal.visits import Visits
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.core.sums import relative_weights
from reweigh.core.terms import Terms
from reweigh.evaluation.features import Scale, flat, lifted, waves
from reweigh.evaluation.logged import MOST_STEPS, Logged, numbered_states
from reweigh.evaluation.resampling import refit

FixedPoint = Callable[[Visits, Tensor, Segments], StateRatios]
"""`marginal.finite_horizon`, or `marginal.finite_horizon_by_time` where dynamics change."""

_LARGEST_TABLE = 25_000_000
_MOST_GAPS = 5
_MOST_NUMBERS = 100


def tabular_marginal(
    log: Logged, *, fixed_point: FixedPoint = marginal.finite_horizon, groups: int = 20
) -> Terms:
    """State-marginal importance sampling with a table of states.

        Σ_t γ^t M_t Σ_i m_it ρ_it r_it / Σ_i m_it ρ_it,   M_t = (1/N) Σ_i m_it

    Xie et al. 2019, with `m` from counts. `ρ` is self-normalised at each time within what `m` says
    is still alive: `M_t` is known from the table, and without that the sum would carry its noise.
    Consistent if states that the target reaches at a time are logged at that time.

    Args:
        log: The episodes; observations are single integers.
        fixed_point: How `m` follows from transitions.
        groups: Of the jackknife, `resampling.refit`.

    Returns:
        Terms. With equal policies and `finite_horizon_by_time` their mean is the mean return.

    Raises:
        ValueError: Observations that are not single integers, or too many of them; the behaviour's
            log-probabilities are missing.
    """

    def log_state_ratios(part: Logged) -> Tensor:
        numbers, segments = numbered_states(part), part.segments
        count = len(numbers.observations)
        if count * max(count, segments.most_steps) > _LARGEST_TABLE:
            raise ValueError(
                f"a table of {count} states and {segments.most_steps} times exceeds "
                f"{_LARGEST_TABLE} numbers: use linear_marginal, or put states together"
            )
        visits = Tabular(numbers.states[0], numbers.final_states[0], part.ended, count)
        return fixed_point(visits, part.sample.log_ratios, segments).log_state_ratios

    terms = refit(lambda part: _over_time(log_state_ratios(part), part.sample), log, groups=groups)
    return replace(terms, diagnosed=_diagnosed(log_state_ratios(log), log.sample))


def linear_marginal(
    log: Logged,
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    count: int = 30,
    ridge: float = 1e-5,
    fixed_point: FixedPoint = marginal.finite_horizon,
    groups: int = 20,
    most_steps: int = MOST_STEPS,
    seed: int = 0,
) -> Terms:
    """State-marginal importance sampling with ratios that are linear in features of the state.

    As `tabular_marginal`, with `m_t(s) = f(s)·a_t` (`marginal.Linear`; in the span of features:
    Uehara et al. 2020, section 4). Features are those of `linear_critic`, their scale that of the
    whole sample. Consistent if ratios and `E_θ[f(s')|s]` are linear in them; what is not is a bias.

    Args:
        log: The episodes.
        features: In place of the random ones: of flat observations, `[B, n]` to `[B, d]`; a
            constant belongs into their span.
        count: Number of random features. There is a matrix of their squared number for each time.
        ridge: Of `marginal.Linear`.
        fixed_point: How `m` follows from transitions.
        groups: Of the jackknife, `resampling.refit`.
        most_steps: Steps to look at, of episodes spread over the log, if there are more.
        seed: Draws the features; the global random state is neither used nor changed.

    Returns:
        Terms. With one-hot features and no ridge they are those of `tabular_marginal`.

    Raises:
        ValueError: As `tabular_marginal`, observations apart; a count below 1; a negative ridge.
    """
    contracts.require_at_least("count", count, 1)
    scale = Scale.of(log.batch.observations)
    lift = waves(scale, count=count, seed=seed) if features is None else features

    def log_state_ratios(part: Logged) -> Tensor:
        batch, ended, final = part.batch, part.ended, part.batch.final_observations.clone()
        final[ended] = batch.observations[:1]  # the observation after an end is not read
        visits = Linear(lifted(lift, batch.observations), lifted(lift, final), ended, ridge)
        return fixed_point(visits, part.sample.log_ratios, part.segments).log_state_ratios

    def value(part: Logged) -> Tensor:
        part = _dense(part, most_steps)
        return _over_time(log_state_ratios(part), part.sample)

    terms, selected = refit(value, log, groups=groups), _dense(log, most_steps)
    return replace(terms, diagnosed=_diagnosed(log_state_ratios(selected), selected.sample))


def kernel_marginal(
    log: Logged,
    *,
    landmarks: int = 100,
    groups: int = 20,
    most_steps: int = 20_000,
    seed: int = 0,
) -> Terms:
    """State-marginal importance sampling with ratios from a kernel: `Σ m ρ γ^t r / Σ m ρ 1[end]`.

    Kernel minimax weights (Uehara et al. 2020, section 4; `marginal.kernel_discounted`), of states
    with the time beside them. Every end, by termination or truncation, is followed by a new
    episode: a chain without end, whose long-run state ratio is `m` (γ = 1). By renewal it gives
    `V / E_θ[T]` a step in `γ^t r`, and it ends an episode in `1 / E_θ[T]` of its steps, with `T`
    the target's length of an episode. `V` is the ratio of the two. What span `m`, its bandwidth and
    its ridge are those of the whole sample.

    Args:
        log: At least 3 episodes.
        landmarks: States that span the ratio, if there are more.
        groups: Of the jackknife, `resampling.refit`.
        most_steps: Steps to look at, of episodes spread over the log, if there are more.
        seed: Draws the landmarks; the global random state is neither used nor changed.

    Returns:
        Terms. With equal policies and an `m` of 1 their mean is the mean return.

    Raises:
        ValueError: Too few episodes; the behaviour's log-probabilities are missing; the target
            ends no episode that is logged.
    """
    contracts.require_at_least("landmarks", landmarks, 1)
    selected = log.thinned(most_steps)
    describe = _with_time(selected)
    spanning = describe(selected).unique(dim=0)
    generator = torch.Generator().manual_seed(seed)
    spanning = spanning[torch.randperm(len(spanning), generator=generator)[:landmarks]]

    def ratios(part: Logged, **chosen) -> marginal.KernelRatios:
        states = describe(part)
        return marginal.kernel_discounted(
            states,
            states.new_zeros(len(part), states.shape[1]),
            torch.ones(len(part), dtype=torch.bool),
            part.sample.log_ratios,
            part.segments,
            discount=1.0,
            generator=generator,
            landmarks=spanning,
            **chosen,
        )

    best = ratios(selected)

    def value(part: Logged) -> Tensor:
        part = part.thinned(most_steps)
        m = ratios(part, bandwidth=best.bandwidth, ridges=(float(best.ridge),))
        return value_by_renewal(m.log_state_ratios, part.sample)

    terms = refit(value, log, groups=groups)
    return replace(terms, diagnosed=_diagnosed(best.log_state_ratios, selected.sample))


def value_by_renewal(log_state_ratios: Tensor, sample: Sample) -> Tensor:
    """`Σ m ρ γ^t r / Σ m ρ 1[end]`, a scalar: the value a step over the ends a step."""
    segments = sample.segments
    log_weights = log_state_ratios + sample.log_ratios
    weights = relative_weights(log_weights, torch.zeros_like(segments.time), 1, segments)
    return (weights * sample.discounted_rewards).sum() / weights[segments.is_last].sum()


def _over_time(log_m: Tensor, sample: Sample) -> Tensor:
    """`Σ_t γ^t M_t Σ_i m ρ r / Σ_i m ρ`, the ratios of actions self-normalised at each time."""
    segments, time = sample.segments, sample.segments.time
    weights = relative_weights(log_m + sample.log_ratios, time, segments.most_steps, segments)
    alive = segments.fill(log_m.exp()) / len(segments)

    def at_each_time(x: Tensor) -> Tensor:
        return x.new_zeros(segments.most_steps).index_add(0, time, x)

    total = at_each_time(weights)
    scale = torch.where(total > 0, at_each_time(alive) / torch.where(total > 0, total, 1.0), 0.0)
    return (scale[time] * weights * sample.discounted_rewards).sum()


def _diagnosed(log_m: Tensor, sample: Sample) -> Tensor:
    """`log m ρ` of all steps, less that of the mean `m`, so that they are 1 in expectation."""
    segments = sample.segments
    log_weights = log_m + sample.log_ratios - segments.mean(log_m.exp()).log()
    return log_weights[segments.existing]


def _dense(log: Logged, most_steps: int) -> Logged:
    """`Logged.thinned`, so that a table of episodes and times, gaps included, stays small too."""
    log = log.thinned(most_steps)
    room = _MOST_GAPS * most_steps
    table = len(log) * log.segments.most_steps
    return log if table <= room else log.thinned(log.segments.size * room // table)


def _with_time(log: Logged) -> Callable[[Logged], Tensor]:
    """States as standardised rows, one-hot if they are few numbers, with the time, `[S, n + 1]`."""
    numbers = numbered_states(log).observations if log.has_numbered_states else None
    one_hot = numbers is not None and len(numbers) <= _MOST_NUMBERS

    def row(part: Logged) -> Tensor:
        states = part.batch.observations
        if one_hot:
            states = states.unsqueeze(1) == numbers
        return torch.cat([flat(states), part.segments.time.double().unsqueeze(1)], 1)

    scale = Scale.of(row(log))
    return lambda part: scale(row(part))
