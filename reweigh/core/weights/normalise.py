"""Self-normalisation: weights over their sum over the episodes of a batch.

A batch that comes in parts (micro-batches, the ranks of a data-parallel group) must be normalised
as a whole: one episode normalised by itself has weight 1, whatever its weight was. Each part gives
its `LogSums`, these are merged exactly, and every part is normalised by the merged ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments
from reweigh.core.sums import log_sum_by_group, safe_log


class LogSums(NamedTuple):
    """The sums that weights are divided by, of a batch or of a part of it."""

    log_sum: Tensor
    """`[G, T]` float64: `log Σ_i w_it` over each group's episodes, at each time; ended episodes
    keep their last weight, so that the last column also stands for all times from `T` on."""
    episodes: Tensor
    """`[G]` float64: number of episodes in each group."""

    def merge(self, other: "LogSums") -> "LogSums":
        """The sums of two parts together: exact, associative and commutative.

        Args:
            other: Of the other part, with the same groups; its `T` may differ.

        Raises:
            ValueError: The parts have different numbers of groups.
        """
        if len(self.episodes) != len(other.episodes):
            raise ValueError(
                f"the parts have {len(self.episodes)} and {len(other.episodes)} groups: number the "
                "groups over the whole batch, and pass every part the same number of them"
            )
        times = max(self.log_sum.shape[1], other.log_sum.shape[1])
        log_sum = torch.logaddexp(_prolonged(self.log_sum, times), _prolonged(other.log_sum, times))
        return LogSums(log_sum, self.episodes + other.episodes)


def log_sums(log_weights: Tensor, segments: Segments) -> LogSums:
    """The sums over all episodes at each time: one group.

    Args:
        log_weights: `[S]`.
        segments: Whole episodes.

    Returns:
        `LogSums` with `G = 1` and `T` the most steps of any episode (at least 1).

    Raises:
        ValueError: Wrong shape; fragments.
    """
    return _log_sums(log_weights, torch.zeros_like(segments.start), segments, 1)


def log_sums_of_groups(
    log_weights: Tensor, group: Tensor, segments: Segments, *, groups: int
) -> LogSums:
    """The sums over the episodes of each group (a prompt, a behaviour policy) at each time.

    Args:
        log_weights: `[S]`.
        group: `[N]` int64 in [0, groups).
        segments: Whole episodes.
        groups: Number of groups, in the whole batch if this is a part of it.

    Returns:
        `LogSums` with `G = groups`.

    Raises:
        ValueError: Wrong shape; fragments, whose earlier weights are missing.
    """
    contracts.require_vector("group", group, len(segments), "episode")
    contracts.require_groups("group", group, groups)
    return _log_sums(log_weights, group, segments, groups)


def _log_sums(log_weights: Tensor, group: Tensor, segments: Segments, groups: int) -> LogSums:
    segments.require_whole("self-normalisation")
    log_weights = segments.as_float64("log_weights", log_weights)
    times = segments.most_steps
    alive = log_sum_by_group(
        log_weights.masked_fill(~segments.inside, -torch.inf),
        segments.fill(group[segments.episode] * times + segments.time),
        groups * times,
    )
    # The last weight of an episode of L steps counts at every time from L on: a cumulative sum.
    ended = log_sum_by_group(
        segments.last(log_weights), group * (times + 1) + segments.lengths, groups * (times + 1)
    )
    since = _log_cumulative_sum(ended.reshape(groups, times + 1))[:, :times]
    count = log_weights.new_zeros(groups).index_add(
        0, group, torch.ones_like(group, dtype=torch.float64)
    )
    return LogSums(_log_add(alive.reshape(groups, times), since), count)


def self_normalise(
    log_weights: Tensor, segments: Segments, *, sums: LogSums | None = None
) -> Tensor:
    """Weights over the batch's mean weight at the same time: `N w_it / Σ_j w_jt`.

    The sum runs over *all* N episodes of the batch. One that has ended keeps its last weight (an
    empty one has weight 1); leaving it out is inconsistent. Each time's weights then average 1:
    bounded by N and biased by `O(1/N)`. With one episode every weight is 1, so a micro-batch passes
    the merged sums of the whole batch. A rejected episode counts in N with weight 0, and the others
    make up for it: divide the loss by N too, not by the survivors. Trajectory log-weights give the
    normalisation per trajectory, `N W_i / Σ_j W_j`.

    Args:
        log_weights: `[S]`.
        segments: Whole episodes.
        sums: Those of the whole batch, if this is a part of it.

    Returns:
        `[S]`. If no episode is empty, a constant added to all log-weights changes nothing.

    Raises:
        ValueError: Wrong shape; fragments, whose earlier weights are missing.
    """
    everyone = torch.zeros_like(segments.start)
    return self_normalise_groups(log_weights, everyone, segments, groups=1, sums=sums)


def self_normalise_groups(
    log_weights: Tensor,
    group: Tensor,
    segments: Segments,
    *,
    groups: int,
    sums: LogSums | None = None,
) -> Tensor:
    """Weights over their group's mean weight at the same time: `N_g w_it / Σ_{j∈g} w_jt`.

    For episodes that only compare within their group, such as the answers to one prompt: the bias
    is `O(1/N_g)`, and a group of one has weight 1.

    Args:
        log_weights: `[S]`.
        group: `[N]` int64 in [0, groups).
        segments: Whole episodes.
        groups: Number of groups.
        sums: Those of the whole batch, if this is a part of it.

    Returns:
        `[S]`. With one group it is `self_normalise`.

    Raises:
        ValueError: Wrong shape; fragments; sums of fewer times or groups than this part has.
    """
    if sums is None:
        sums = log_sums_of_groups(log_weights, group, segments, groups=groups)
    contracts.require_vector("group", group, len(segments), "episode")
    contracts.require_groups("group", group, groups)
    if sums.log_sum.shape[1] < segments.most_steps or len(sums.episodes) != groups:
        raise ValueError(
            f"sums are of {list(sums.log_sum.shape)} groups and times, this part has "
            f"{[groups, segments.most_steps]}: merge the sums of every part, this one included"
        )
    log_mean = sums.log_sum - sums.episodes.clamp(min=1).log().unsqueeze(1)
    # If every weight of a time is 0, they stay 0 instead of 0/0.
    log_mean = torch.where(log_mean == -torch.inf, 0.0, log_mean)
    log_weights = segments.as_float64("log_weights", log_weights)
    return segments.fill(log_weights - log_mean[group[segments.episode], segments.time])


def log_sum_by_time(log_weights: Tensor, segments: Segments) -> Tensor:
    """`log Σ_i w_it` over all N episodes at each time; ended episodes keep their last weight.

    Args:
        log_weights: `[S]`.
        segments: Whole episodes.

    Returns:
        `[T]` float64, `T` the most steps of any episode (at least 1).

    Raises:
        ValueError: Wrong shape; fragments.
    """
    return log_sums(log_weights, segments).log_sum[0]


def _prolonged(log_sum: Tensor, times: int) -> Tensor:
    return torch.cat([log_sum, log_sum[:, -1:].expand(-1, times - log_sum.shape[1])], dim=1)


def _log_cumulative_sum(x: Tensor) -> Tensor:
    """`logcumsumexp` along the second dimension, with gradient 0, not NaN, where all are `-inf`."""
    stride = 1
    while stride < x.shape[1]:
        x = torch.cat([x[:, :stride], _log_add(x[:, stride:], x[:, :-stride])], dim=1)
        stride *= 2
    return x


def _log_add(x: Tensor, y: Tensor) -> Tensor:
    """`logaddexp`, with gradient 0, not NaN, where both are `-inf`."""
    largest = torch.maximum(x, y).detach()
    largest = torch.where(largest == -torch.inf, 0.0, largest)
    return safe_log((x - largest).exp() + (y - largest).exp()) + largest
