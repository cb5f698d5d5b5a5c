"""Several behaviour policies: the density that a weight divides by, and each policy's share.

Per-source weights divide by the policy that sampled the step (`select_behaviour`). Mixtures divide
by the density of all policies together, and need every source's log-probability of every action:
the closest source bounds them, whereas a distant source makes per-source weights large.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.ratios import checked_log_prob, refuse
from reweigh.core.scan import prefix_sum
from reweigh.core.segments import Segments


class Sources(NamedTuple):
    """Behaviour policies and the share that each of them sampled."""

    log_probs: Tensor
    """`[J, S]`: of every logged action under every source."""
    proportions: Tensor
    """`[J]`: shares of the data, 1 in all."""


class PowerMean(NamedTuple):
    """Bound and share of each behaviour policy in the power-mean estimator."""

    share: Tensor
    """`[J]` float64: λ_j, of `weights.power_mean`."""
    proportion: Tensor
    """`[J]` float64: α_j, how much the policy's data counts, 1 in all."""


def select_behaviour(
    log_prob_sources: Tensor, source_of_step: Tensor, segments: Segments
) -> Tensor:
    """Each step's log-probability under the policy that sampled it.

    The `log_prob_behaviour` of `log_ratios` where policies are kept instead of log-probabilities.
    `source_of_step` may change within an episode: ratios and their products stay exact when the
    policy was replaced while the episode went on (a partial rollout).

    Args:
        log_prob_sources: `[J, S]`, of every logged action under every source.
        source_of_step: `[S]` int64 in [0, J).

    Returns:
        `[S]` float64.

    Raises:
        ValueError: Wrong shape.
    """
    contracts.require_vector("source_of_step", source_of_step, segments.size, "position")
    sources = _sources_as_float64(log_prob_sources, segments)
    source_of_step = segments.fill(source_of_step)
    contracts.require_groups("source_of_step", source_of_step, len(sources))
    return sources.gather(0, source_of_step.unsqueeze(0)).squeeze(0)


def schedule_sources(log_prob_versions: Tensor, schedules: Tensor, segments: Segments) -> Tensor:
    """Log-probabilities under behaviours that are themselves sequences of policies.

    Where the sampling policy is replaced while episodes go on, what sampled an episode is a
    *schedule*, the version in force at each time. The balance heuristic over schedules (not over
    versions, none of which sampled the whole episode) is then exact. The schedule must not depend
    on what the episode did.

    Args:
        log_prob_versions: `[V, S]`, of every logged action under every version.
        schedules: `[J, T]` int64 in [0, V): the version at each time, for at least the longest
            episode.

    Returns:
        `[J, S]`, the `log_prob_sources` of `balance_heuristic`. A constant schedule is its version.

    Raises:
        ValueError: Wrong shape; schedules shorter than an episode.
    """
    contracts.require_rows("schedules", schedules, len(schedules))
    if schedules.shape[1] < segments.most_steps:
        raise ValueError(
            f"schedules cover {schedules.shape[1]} steps, but an episode has "
            f"{segments.most_steps}: prolong them with the last version in force"
        )
    versions = _sources_as_float64(log_prob_versions, segments)
    return versions.gather(0, schedules[:, segments.time])


def balance_heuristic(
    log_prob_target: Tensor, log_prob_sources: Tensor, proportions: Tensor, segments: Segments
) -> Tensor:
    """Prefix weight against the mixture of whole policies: `b_t = Π π_θ / Σ_j α_j Π π_j`.

    Each product runs over `k ≤ t`. Veach and Guibas 1995 (balance heuristic), for trajectories of
    which a share `α_j` was sampled by source `j` from start to end. `b_t ≤ w_t^(j) / α_j` for every
    source, so one close source keeps the weight small.

    Args:
        log_prob_target: `[S]`.
        log_prob_sources: `[J, S]`, of every logged action under every source.
        proportions: `[J]`, shares of the episodes.
        segments: Whole episodes.

    Returns:
        `[S]`. With one source it is `prefix`.

    Raises:
        ValueError: Wrong shape; shares that do not sum to 1; fragments; on the CPU, a NaN, or an
            action that no source takes.
    """
    segments.require_whole("balance_heuristic")
    target = prefix_sum(checked_log_prob("log_prob_target", log_prob_target, segments), segments)
    sources = [
        prefix_sum(source, segments) for source in _sources_as_float64(log_prob_sources, segments)
    ]
    mixed = segments.fill(_log_mix(torch.stack(sources), proportions))
    refuse("the log-probability under every source", mixed, mixed == -torch.inf, segments)
    return segments.fill(target - mixed)


def balance_heuristic_trajectory(
    log_prob_target: Tensor, log_prob_sources: Tensor, proportions: Tensor, segments: Segments
) -> Tensor:
    """Trajectory weight against the mixture of whole policies: the last `b_t`, at each step.

    Arguments and errors are those of `balance_heuristic`.

    Returns:
        `[S]`, constant within an episode. With one source it is `trajectory`.
    """
    balanced = balance_heuristic(log_prob_target, log_prob_sources, proportions, segments)
    return segments.spread(segments.last(balanced))


def mixture(log_prob_sources: Tensor, proportions: Tensor, segments: Segments) -> Tensor:
    """Log-probability of a step under a mixture: `log Σ_j α_j π_j(a_t|s_t)`.

    The behaviour to divide by where steps, not trajectories, are mixed. The resulting ratio is at
    most `1 / α_j` times the ratio to source `j`, for every `j`.

    Args:
        log_prob_sources: `[J, S]`, of every logged action under every source.
        proportions: `[J]`, shares of the steps.

    Returns:
        `[S]`, the `log_prob_behaviour` of `log_ratios`. With one source it is that source.

    Raises:
        ValueError: Wrong shape; shares that do not sum to 1.
    """
    return segments.fill(_log_mix(_sources_as_float64(log_prob_sources, segments), proportions))


def defensive(
    log_prob_target: Tensor, log_prob_sources: Tensor, proportions: Tensor, *, share: float
) -> Sources:
    """The sources and, as one more of them, the target itself: a defensive mixture.

    Hesterberg 1995. With a share of the data sampled by the target, mixture weights never exceed
    `1 / share`. It is exact only if that share *was* sampled by the target; adding the target to
    data that it did not sample bounds the weights by a bias.

    Args:
        log_prob_target: `[S]`; a constant here.
        log_prob_sources: `[J, S]`, of every logged action under every other source.
        proportions: `[J]`, of the other sources' data, 1 in all.
        share: Of the target's own data, in [0, 1].

    Returns:
        `J + 1` sources for `balance_heuristic` or `mixture`, the target last. With `share = 0` the
        weights are those without it.

    Raises:
        ValueError: A share outside [0, 1]; shares that do not sum to 1.
    """
    contracts.require_between("share", share, 0, 1)
    contracts.require_proportions("proportions", proportions, len(log_prob_sources))
    target = log_prob_target.detach().to(log_prob_sources.dtype).unsqueeze(0)
    others = proportions.double() * (1 - share)
    return Sources(
        torch.cat([log_prob_sources, target]), torch.cat([others, others.new_tensor([share])])
    )


def power_mean_parameters(
    second_moments: Tensor, episodes: Sequence[int], *, delta: float = 0.2
) -> PowerMean:
    """`λ_j = min(1, √(4 ln(1/δ) / (3 N D_j)))` and `α_j ∝ D_j^(-1/2)`, for each behaviour `j`.

    Montenegro et al. 2025 (RT-PG): stale policies, whose weights have a large second moment `D_j`,
    are bounded harder relative to their noise and count less. The estimator is the sum over
    episodes of `(α_j / n_j) v`, with `v` the `power_mean` of the trajectory's weight to its own
    source; times `N` it is a weight like any other.

    Args:
        second_moments: `[J]`, `D_j = E_{φ_j}[W²]` at least 1, estimated or exact.
        episodes: `J` numbers of episodes, each at least 1.
        delta: δ in (0, 1).

    Returns:
        The shares and proportions. Equal behaviours get equal ones.

    Raises:
        ValueError: A second moment below 1; another number of episodes; δ outside (0, 1).
    """
    contracts.require_vector("second_moments", second_moments, len(episodes), "behaviour policy")
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, got {delta}")
    if min(episodes) < 1:
        raise ValueError(
            f"every source needs an episode, got {list(episodes)}: leave the others out"
        )
    moments = second_moments.double()
    if not bool((moments >= 1).all()):
        raise ValueError(f"second moments of weights are at least 1, got {moments.tolist()}")
    share = (4 * math.log(1 / delta) / (3 * sum(episodes) * moments)).sqrt().clamp(max=1.0)
    return PowerMean(share, moments.rsqrt() / moments.rsqrt().sum())


def proportions_by_age(policies: int, *, mean_age: float) -> Tensor:
    """Shares of the last policies' data in the loss: the most even proportions of a mean age.

    `min Σ_i α_i²` subject to `Σ_i α_i = 1` and `Σ_i i α_i ≤ mean_age`, with `i = 1` the newest:
    `α_i = max(0, ν - μ i)` (Queeney et al. 2021, GePPO, section 5, whose program this solves in
    closed form where only the sample size counts). The trust region's radius is divided by the mean
    age.

    Args:
        policies: Number of policies, at least 1.
        mean_age: At least 1; `(policies + 1) / 2` and more give equal proportions.

    Returns:
        `[policies]` float64, 1 in all, falling with age. A mean age of 2 gives .4, .3, .2, .1.

    Raises:
        ValueError: `policies` below 1; a mean age below 1.
    """
    contracts.require_at_least("policies", policies, 1)
    if not mean_age >= 1:
        raise ValueError(f"mean_age must be at least 1, the newest policy's, got {mean_age}")
    # A line through the mean age is positive at its oldest policy while that is below 3 m - 1.
    used = min(policies, max(1, math.ceil(3 * mean_age - 1) - 1))
    age = torch.arange(1, policies + 1, dtype=torch.float64)
    middle = (used + 1) / 2
    slope = min(0.0, mean_age - middle) * 12 / (used * (used**2 - 1)) if used > 1 else 0.0
    return torch.where(age <= used, 1 / used + slope * (age - middle), 0.0)


def _log_mix(log_probs: Tensor, proportions: Tensor) -> Tensor:
    contracts.require_proportions("proportions", proportions, len(log_probs))
    return (log_probs + proportions.double().log().unsqueeze(1)).logsumexp(0)


def _sources_as_float64(log_prob_sources: Tensor, segments: Segments) -> Tensor:
    return torch.stack(
        [
            checked_log_prob(f"log_prob_sources[{j}]", source, segments)
            for j, source in enumerate(log_prob_sources.detach())
        ]
    )
