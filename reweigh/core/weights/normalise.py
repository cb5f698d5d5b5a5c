"""What weights sum to: self-normalisation over the episodes of a batch."""

import math

import torch
from torch import Tensor

from reweigh.core.segments import Segments


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
    segments.require_whole("self_normalise")
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
    segments.require_whole("log_sum_by_time")
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
