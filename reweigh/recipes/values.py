"""Estimators of the target's value `J_γ(θ) = E_θ[Σ_t γ^t r_t]`, whose derivatives are gradients.

`W` is the product of all ratios of an episode, `w_t` that of the ratios up to `t`, `G` the logged
return, all over the horizon of the logged episodes. Differentiating an unbiased estimate gives an
unbiased policy gradient, since `∇w_t = w_t Σ_{k≤t} score_k`.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.core.terms import Terms, Weighted
from reweigh.core.weights import pareto_smooth, truncate, weigh
from reweigh.recipes.composing import with_gradient_of
from reweigh.recipes.expectation import (
    BEHAVIOUR,
    BIASED,
    CONSISTENT,
    GRADIENT,
    TARGET,
    UNBIASED,
    Gradient,
    Identity,
)
from reweigh.recipes.recipe import value


@value(BIASED, estimated=BEHAVIOUR)
def behaviour(sample: Sample) -> Terms:
    """The behaviour's own value: `(1/N) Σ_i G_i`, no weights.

    Unbiased for the value of the policy that sampled the episodes, with which any other is
    compared. Its gradient is 0.

    Returns:
        Terms whose mean is the mean logged return.
    """
    return Terms(sample.returns, maximum_weight=1.0)


@value(UNBIASED)
def importance_sampling(sample: Sample) -> Terms:
    """Trajectory importance sampling: `(1/N) Σ_i W_i G_i`.

    Precup et al. 2000, section 2. Unbiased if the behaviour can take every action that the target
    can. Second moment: exponential in the horizon.

    Returns:
        Terms. At `φ = θ` they are those of `behaviour`.
    """
    return Terms(weigh(sample.log_trajectory, sample.returns), diagnosed=sample.log_trajectory)


@value(UNBIASED)
def per_decision(sample: Sample) -> Terms:
    """Per-decision importance sampling: `(1/N) Σ_i Σ_t γ^t w_it r_it`.

    Precup et al. 2000, section 3; its gradient, `(1/N) Σ_i Σ_t (Σ_{t'≥t} γ^t' w_t' r_t') score_t`,
    is off-policy GPOMDP. Unbiased, whatever the behaviour, as long as it can take every action that
    the target can: no reward carries the ratios of later actions. Second moment: exponential in the
    horizon. The default where horizons are short or policies close.

    Returns:
        Terms. With rewards at the end alone they are those of `importance_sampling`.
    """
    weighted = weigh(sample.log_prefix, sample.discounted_rewards)
    return Terms(sample.segments.total(weighted), diagnosed=_last(sample))


@value(CONSISTENT)
def weighted_importance_sampling(sample: Sample) -> Terms:
    """Self-normalised trajectory importance sampling: `Σ_i W_i G_i / Σ_i W_i`.

    Precup et al. 2000, section 2 (weighted importance sampling). Consistent, with a bias of
    `O(1/N)`; a mean of logged returns, never outside their range.

    Returns:
        Terms. A constant added to all log-ratios of the episodes' first steps changes nothing.
    """
    weighted = Weighted(sample.returns, sample.log_trajectory, _one_step(sample))
    return Terms(torch.zeros_like(sample.returns), weighted, sample.log_trajectory)


@value(CONSISTENT)
def weighted_per_decision(sample: Sample) -> Terms:
    """Self-normalised per-decision importance sampling: `Σ_t γ^t Σ_i w_it r_it / Σ_i w_it`.

    Precup et al. 2000, section 3, normalised at each time over all episodes: one that has ended
    keeps its last weight, with reward 0. Consistent, with a bias of `O(1/N)`; normalised over the
    episodes still alive it would not be. Its gradient weighs each reward against the mean reward
    at its time, a baseline of time alone.

    Returns:
        Terms. With rewards at the end alone of episodes of one length, those of
        `weighted_importance_sampling`.
    """
    weighted = Weighted(sample.discounted_rewards, sample.log_prefix, sample.segments)
    return Terms(torch.zeros_like(sample.returns), weighted, _last(sample))


@value(
    BIASED,
    estimated=None,
    on_policy=UNBIASED,
    identity=Identity(
        "with an infinite maximum, importance_sampling",
        {"maximum": torch.inf, "lowest_return": -torch.inf},
        lambda sample: importance_sampling(sample),
    ),
)
def truncated_importance_sampling(
    sample: Sample, *, maximum: float = 10.0, lowest_return: float = 0.0
) -> Terms:
    """Truncated trajectory importance sampling: `(1/N) Σ_i [g + min(W_i, c) (G_i - g)]`.

    Ionides 2008, with the returns counted from `g` (Thomas et al. 2015, section 4). If no policy
    returns less than `g`, its expectation is at most the value, so that a lower confidence bound
    holds whatever was truncated. Its terms lie between `g` and `g + c (highest return - g)`.

    Args:
        maximum: `c`, above 0.
        lowest_return: `g`; `-inf` if none is known: returns are then counted from 0.

    Returns:
        Terms. With an infinite `maximum` they are those of `importance_sampling` if `g = 0`.

    Raises:
        ValueError: `maximum` is not positive; an episode returned less than `g`, so that what is
            cut off might be a loss.
    """
    too_low = (sample.returns < lowest_return).any()
    if contracts.can_look_at(sample.returns) and bool(too_low):
        raise ValueError(
            f"an episode returned {float(sample.returns.min()):g}, less than lowest_return, "
            f"{lowest_return:g}: give the lowest return possible (--return-range LOW HIGH)"
        )
    base = 0.0 if lowest_return == -torch.inf else lowest_return
    whole = sample.log_trajectory
    bounded = truncate(whole, _one_step(sample), maximum=maximum).log_weights
    above = weigh(with_gradient_of(whole, bounded), sample.returns - base)
    return Terms(base + above, diagnosed=whole, maximum_weight=maximum)


@value(
    BIASED,
    estimated=None,
    on_policy=CONSISTENT,
    identity=Identity(
        "weighted_importance_sampling",
        {},
        lambda sample: weighted_importance_sampling(sample),
        on_policy=True,
    ),
    by_parts=False,
)
def pareto_smoothed(sample: Sample) -> Terms:
    """Self-normalised importance sampling with Pareto-smoothed weights: `Σ_i W̃_i G_i / Σ_i W̃_i`.

    Vehtari et al. 2024: the largest weights become the quantiles of the tail fitted to them. Less
    variance than `weighted_importance_sampling`, and a bias that is small where `k̂` is.

    Returns:
        Terms. At `φ = θ` they are those of `weighted_importance_sampling`.
    """
    smoothed = pareto_smooth(sample.log_trajectory.detach()).log_weights
    log_weights = with_gradient_of(sample.log_trajectory, smoothed)
    weighted = Weighted(sample.returns, log_weights, _one_step(sample))
    return Terms(torch.zeros_like(sample.returns), weighted, sample.log_trajectory)


@value(UNBIASED._replace(any_critic=True))
def doubly_robust(sample: Sample, values: Tensor, action_values: Tensor) -> Terms:
    """Doubly robust: `(1/N) Σ_i [V̂_i0 + Σ_t γ^t w_it (r_t + γ V̂_{t+1} - Q̂_t)_i]`.

    Jiang and Li 2016, equation 10, and with `V̂ = Σ_a π_θ Q̂` differentiated the gradient of Huang
    and Jiang 2020. Unbiased for every critic that does not depend on these episodes, if
    `V̂_t = E_{a~θ}[Q̂_t(s_t, a)]`; a critic of values alone is `Q̂_t = V̂_t`. Second moment:
    exponential in the horizon, times the critic's error; a wrong critic can make it worse than
    none. Use it with a good critic on short horizons.

    Args:
        values: `[S]`, `V̂_t(s_t)`; differentiated if it requires a gradient.
        action_values: `[S]`, `Q̂_t(s_t, a_t)`; a constant.

    Returns:
        Terms. With a critic of 0 they are those of `per_decision`.
    """
    values, residuals = _residuals(sample, values, action_values)
    corrections = sample.segments.total(weigh(sample.log_prefix, residuals))
    return Terms(_first(values, sample) + corrections, diagnosed=_last(sample))


@value(
    CONSISTENT._replace(any_critic=True, of_one_episode=Gradient(BEHAVIOUR, TARGET)),
    on_policy=CONSISTENT._replace(any_critic=True, of_one_episode=GRADIENT),
)
def weighted_doubly_robust(sample: Sample, values: Tensor, action_values: Tensor) -> Terms:
    """Weighted doubly robust: `doubly_robust` with weights self-normalised at each time.

    `(1/N) Σ_i V̂_i0 + Σ_t γ^t Σ_i w_it (r_t + γ V̂_{t+1} - Q̂_t)_i / Σ_i w_it`, Thomas and Brunskill
    2016, equation 4: an episode that has ended keeps its last weight. Consistent whatever the
    critic, with a bias of `O(1/N)` that a good critic makes small, and of less variance than
    `doubly_robust`. From a single episode the weights are 1: its gradient then is Off-PAC's.

    Args:
        values: As in `doubly_robust`.
        action_values: As in `doubly_robust`.

    Returns:
        Terms. With a critic of 0 they are those of `weighted_per_decision`.
    """
    values, residuals = _residuals(sample, values, action_values)
    weighted = Weighted(residuals, sample.log_prefix, sample.segments)
    return Terms(_first(values, sample), weighted, _last(sample))


@value(UNBIASED)
def balance_heuristic(sample: Sample, log_prob_sources: Tensor, proportions: Tensor) -> Terms:
    """Balance heuristic: `(1/N) Σ_i Σ_t γ^t b_it r_it`, `b_t = Π π_θ / Σ_j α_j Π π_j`, up to `t`.

    Veach and Guibas 1995, for episodes of which a share `α_j` was sampled by policy `j` from start
    to end: `per_decision` against the mixture. Unbiased as long as some source can take every
    action that the target can. A weight is at most that of `per_decision` against any one source,
    over its share: the default for several behaviours whose log-probabilities can be computed.

    Args:
        sample: The episodes; the behaviour's log-probabilities are not read.
        log_prob_sources: `[J, S]`, of every logged action under every source.
        proportions: `[J]`, shares of the episodes.

    Returns:
        Terms. With one source they are those of `per_decision`.
    """
    return per_decision.terms(sample.against(log_prob_sources, proportions))


def _residuals(sample: Sample, values: Tensor, action_values: Tensor) -> tuple[Tensor, Tensor]:
    """`V̂_t`, and what the critic leaves to weigh, `γ^t (r_t + γ V̂_{t+1} - Q̂_t)`: both `[S]`."""
    values = sample.steps("values", values)
    action_values = sample.steps("action_values", action_values).detach()
    # An episode ends with its horizon, after which there is no value.
    following = sample.segments.next(values, values.new_zeros(len(sample)))
    left = sample.require_rewards() + sample.discount * following - action_values
    return values, sample.discount_from_start * left


def _first(x: Tensor, sample: Sample) -> Tensor:
    """At the first step of each episode: `[S]` to `[N]`; 0 for an episode without steps."""
    return sample.segments.total(torch.where(sample.segments.is_first, x, 0.0))


def _last(sample: Sample) -> Tensor:
    """The weights by which an estimate is doubted: each episode's last, `[N]`."""
    return sample.segments.last(sample.log_prefix)


def _one_step(sample: Sample) -> Segments:
    """A step for each episode: what holds one number an episode, as estimators over time see it."""
    one = torch.ones(len(sample), dtype=torch.int64, device=sample.segments.mask.device)
    return Segments.packed(one)
