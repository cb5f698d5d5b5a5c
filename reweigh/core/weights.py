"""Importance weights: which ratios multiply (scope), how large they may grow, what they sum to.

Everything here takes and returns *log*-weights `[S]` float64, 0 where no step exists; `exp` belongs
to whoever composes, after every bound, so that nothing overflows on the way. With
`ρ_t = π_θ(a_t|s_t) / π_φ(a_t|s_t)`:

    scope       step, prefix, trajectory; balance_heuristic for several behaviour policies
    bound       truncate
    normalise   self_normalise
    behaviour   mixture, the log-probability to divide by when several policies sampled the data

Weights are differentiable in the log-ratios; the surrogates treat them as constants.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import prefix_sum
from reweigh.core.segments import Segments


class Bounded(NamedTuple):
    """Bounded log-weights and what the bound changed."""

    log_weights: Tensor
    """`[S]` float64."""
    touched: Tensor
    """`[S]` bool: steps whose weight the bound changed."""


def step(log_ratios: Tensor, segments: Segments) -> Tensor:
    """The ratio of the step alone: `ρ_t`.

    Corrects the action and leaves states and rewards as the behaviour visited them: the weight of
    the TRPO, PPO and IMPALA surrogates. Its variance does not grow with the horizon.
    """
    return segments.read("log_ratios", log_ratios)


def prefix(
    log_ratios: Tensor, segments: Segments, *, log_weight_start: Tensor | None = None
) -> Tensor:
    """The product of the ratios so far, this step's included: `w_t = Π_{k≤t} ρ_k`.

    Corrects the state and the action: `E_φ[w_t f(s_0..a_t)] = E_θ[f(s_0..a_t)]` (Precup et al.
    2000, section 3). `E_φ[w_t²]` grows exponentially in `t`.

    Args:
        log_ratios: `[S]`.
        segments: Where the episodes lie.
        log_weight_start: `[N]`, the log-weight that the episode's earlier steps have earned. Needed
            if any episode is a fragment. Zeros restart the weight at 1, and so take the behaviour's
            state distribution at the cut for the target's.

    Returns:
        `[S]`. With one step an episode, it is `step`.

    Raises:
        ValueError: Another shape; fragments without `log_weight_start`.
    """
    start = _start(segments, log_weight_start)
    return prefix_sum(step(log_ratios, segments), segments) + segments.spread(start)


def trajectory(
    log_ratios: Tensor, segments: Segments, *, log_weight_start: Tensor | None = None
) -> Tensor:
    """The product of all of the episode's ratios, at each of its steps: `W = Π_{k<T} ρ_k`.

    The last `prefix` weight. Corrects whole trajectories: `E_φ[W f(τ)] = E_θ[f(τ)]`.

    Args:
        log_ratios: `[S]`; each segment reaches the end of its episode.
        segments: Where the episodes lie.
        log_weight_start: `[N]`, as in `prefix`.

    Returns:
        `[S]`, constant within an episode.

    Raises:
        ValueError: As `prefix`.
    """
    start = _start(segments, log_weight_start)
    return segments.spread(segments.total(step(log_ratios, segments)) + start)


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
        segments: Where the episodes lie; whole episodes.

    Returns:
        `[S]`. With one source it is `prefix`.

    Raises:
        ValueError: Another shape; shares that do not sum to 1; fragments.
    """
    contracts.precise("log_prob_target", log_prob_target)
    _require_whole(segments, "balance_heuristic")
    target = prefix_sum(segments.read("log_prob_target", log_prob_target), segments)
    sources = [prefix_sum(source, segments) for source in _read_sources(log_prob_sources, segments)]
    return segments.fill(target - _log_mix(torch.stack(sources), proportions))


def mixture(log_prob_sources: Tensor, proportions: Tensor, segments: Segments) -> Tensor:
    """Log-probability of a step under a mixture: `log Σ_j α_j π_j(a_t|s_t)`.

    The behaviour to divide by when steps, not trajectories, are what is mixed. The resulting ratio
    is at most `1 / α_j` times the ratio to source `j`, for every `j`.

    Args:
        log_prob_sources: `[J, S]`, of every logged action under every source.
        proportions: `[J]`, shares of the steps.
        segments: Where the episodes lie.

    Returns:
        `[S]`, the `log_prob_behaviour` of `log_ratios`. With one source it is that source.

    Raises:
        ValueError: Another shape; shares that do not sum to 1.
    """
    sources = _read_sources(log_prob_sources, segments)
    return segments.fill(_log_mix(torch.stack(sources), proportions))


def truncate(log_weights: Tensor, segments: Segments, *, maximum: float) -> Bounded:
    """Truncated importance sampling: `min(maximum, w)` (Ionides 2008).

    Biased; the weight's second moment is at most `maximum` times its mean. Truncating log-ratios
    before `prefix` bounds every factor instead of the product.

    Args:
        log_weights: `[S]`, or log-ratios.
        segments: Where the episodes lie.
        maximum: Largest weight, above 0; infinity changes nothing.

    Returns:
        The log-weights and the steps that were truncated.

    Raises:
        ValueError: `maximum` is not positive; another shape.
    """
    contracts.positive("maximum", maximum)
    log_weights = segments.read("log_weights", log_weights)
    # Before exp, which overflows float64 at 709.8: the gradient of min(c, inf) would be NaN.
    limit = math.log(maximum)
    return Bounded(log_weights.clamp(max=limit), segments.inside & (log_weights > limit))


def self_normalise(log_weights: Tensor, segments: Segments) -> Tensor:
    """Divides by the batch's mean weight at the same time: `N w_it / Σ_j w_jt`.

    The sum runs over *all* N episodes of the batch. One that has ended keeps its last weight (an
    empty one has weight 1); leaving it out is inconsistent. Each time's weights then average 1:
    bounded by N and biased by `O(1/N)`. With one episode every weight is 1, so a micro-batch must
    not normalise itself. Trajectory log-weights give `N W_i / Σ_j W_j`.

    Args:
        log_weights: `[S]`.
        segments: Where the episodes lie; whole episodes.

    Returns:
        `[S]`. If no episode is empty, a constant added to all log-weights changes nothing.

    Raises:
        ValueError: Another shape; fragments, whose earlier weights are not there to sum.
    """
    _require_whole(segments, "self_normalise")
    log_weights = segments.read("log_weights", log_weights)
    log_mean = log_sum_by_time(log_weights, segments) - math.log(len(segments))
    # If every weight of a time is 0, they stay 0 instead of 0/0.
    log_mean = torch.where(log_mean == -torch.inf, 0.0, log_mean)
    return segments.fill(log_weights - log_mean[segments.time])


def log_sum_by_time(log_weights: Tensor, segments: Segments) -> Tensor:
    """`log Σ_i w_it` over all N episodes for each time; ended episodes keep their last weight.

    Args:
        log_weights: `[S]`.
        segments: Where the episodes lie; whole episodes.

    Returns:
        `[T]` float64, `T` the most steps of any episode (at least 1).

    Raises:
        ValueError: Another shape; fragments.
    """
    _require_whole(segments, "log_sum_by_time")
    log_weights = segments.read("log_weights", log_weights)
    times = max(int(segments.lengths.max()), 1)
    here = segments.inside
    alive = _log_sum_by_group(log_weights[here], segments.time[here], times)
    ended = _log_sum_by_group(segments.last(log_weights), segments.lengths, times + 1)
    return torch.logaddexp(alive, ended.logcumsumexp(0)[:times])


def _log_sum_by_group(x: Tensor, group: Tensor, count: int) -> Tensor:
    """Log-sum-exp of `x` within each of `count` groups; -inf for an empty group."""
    highest = x.new_full((count,), -torch.inf).scatter_reduce(0, group, x.detach(), "amax")
    highest = torch.where(highest == -torch.inf, 0.0, highest)
    shifted = (x - highest[group]).exp()
    return x.new_zeros(count).index_add(0, group, shifted).log() + highest


def _log_mix(log_probs: Tensor, proportions: Tensor) -> Tensor:
    contracts.proportions("proportions", proportions, len(log_probs))
    return (log_probs + proportions.double().log().unsqueeze(1)).logsumexp(0)


def _read_sources(log_prob_sources: Tensor, segments: Segments) -> list[Tensor]:
    contracts.precise("log_prob_sources", log_prob_sources)
    return [
        segments.read(f"log_prob_sources[{j}]", source)
        for j, source in enumerate(log_prob_sources.detach())
    ]


def _start(segments: Segments, log_weight_start: Tensor | None) -> Tensor:
    if log_weight_start is not None:
        return segments.read_episodes("log_weight_start", log_weight_start)
    if segments.has_fragments:
        raise ValueError(
            "log_weight_start is needed: some episodes start after time 0, and their weight begins "
            "with what the earlier steps earned. Pass it, [N], or zeros to restart at 1, which "
            "takes the behaviour's state distribution at the cut for the target's"
        )
    return torch.zeros(len(segments), dtype=torch.float64, device=segments.mask.device)


def _require_whole(segments: Segments, name: str) -> None:
    if segments.has_fragments:
        raise ValueError(
            f"{name} needs whole episodes, but some start after time 0: their earlier steps are "
            "part of what it sums. Join the fragments of an episode first"
        )
