"""The record that weight health is read from: sums that merge exactly over parts of a batch.

A record is made in the training step and never waits for the device: tensor operations alone, no
value looked at (a `Segments` does wait when it is built and first used). Micro-batches and ranks
merge theirs; `read` then gives numbers. Records of the raw weights and of the bounded ones are two
records: an effective sample size after a bound does not measure the distance of the policies.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments
from reweigh.core.sums import log_sum_by_group

BIN_WIDTH = 1 / 32
"""Width in nats of the histogram's bins: a quantile read from it is within 1.6 % of the weight."""
BIN_LIMIT = 32.0
"""The bins reach from `e^-32` to `e^32`; one more on either side holds the rest."""
_BINS = round(2 * BIN_LIMIT / BIN_WIDTH)


class WeightHealth(NamedTuple):
    """The record of the weights of `G` groups; `read` gives it as numbers.

    All are logarithms of sums of non-negative terms, counts, or the largest weights, so that two
    records merge into that of both without loss.
    """

    sample_size: Tensor
    """`[G]` int64: number of weights."""
    undefined: Tensor
    """`[G]` int64: further weights, NaN or infinite, which no other field counts."""
    log_sum: Tensor
    """`[G]`: `log Σ w`."""
    log_sum_of_squares: Tensor
    """`[G]`: `log Σ w²`."""
    log_kl_from_behaviour: Tensor
    """`[G]`: `log Σ (w - 1 - log w)`, whose mean estimates `KL(φ ‖ θ)`."""
    log_kl_from_target: Tensor
    """`[G]`: `log Σ (w log w - w + 1)`, whose mean estimates `KL(θ ‖ φ)`."""
    log_gradient: Tensor
    """`[G]`: `log Σ |f| w`, with `f` the magnitudes."""
    log_gradient_of_squares: Tensor
    """`[G]`: `log Σ (f w)²`."""
    largest: Tensor
    """`[G, m]`: the largest log-weights in falling order, `-inf` where there are no more."""
    histogram: Tensor
    """`[G, B]` int64: number of log-weights in each bin."""

    def merge(self, other: "WeightHealth") -> "WeightHealth":
        """The record of two parts together: exact, associative and commutative.

        Args:
            other: Of the other part, such as a micro-batch, with the same groups.

        Raises:
            ValueError: The parts have different numbers of groups or of kept weights.
        """
        if self.largest.shape != other.largest.shape:
            raise ValueError(
                f"the parts have groups and kept weights {list(self.largest.shape)} and "
                f"{list(other.largest.shape)}: pass every part the same groups and keep"
            )
        pairs = zip(self, other, strict=True)
        return _joined(WeightHealth(*(torch.stack(pair) for pair in pairs)))

    def pooled(self) -> "WeightHealth":
        """The record of all groups as one."""
        return _joined(WeightHealth(*(x.unsqueeze(1) for x in self)))


def _joined(parts: WeightHealth) -> WeightHealth:
    """Records along the first axis as one, `[parts, G, ...]` to `[G, ...]`."""
    largest = parts.largest.transpose(0, 1).flatten(1)
    sums = parts[2:-2]
    return WeightHealth(
        parts.sample_size.sum(0),
        parts.undefined.sum(0),
        *(x.logsumexp(0) for x in sums),
        largest=largest.topk(parts.largest.shape[-1]).values,
        histogram=parts.histogram.sum(0),
    )


@torch.no_grad()
def weight_health(
    log_weights: Tensor,
    *,
    group: Tensor | None = None,
    groups: int = 1,
    counted: Tensor | None = None,
    magnitudes: Tensor | None = None,
    keep: int = 4096,
) -> WeightHealth:
    """The record of a set of weights, by group.

    Args:
        log_weights: `[n]`, of steps or of episodes, not self-normalised. `-inf` is weight 0.
        group: `[n]` int64 in [0, groups), such as the behaviour policy; without it one group.
        groups: Number of groups, in the whole batch if this is a part of it.
        counted: `[n]` bool, the weights that exist; without it all.
        magnitudes: `[n]`, of the weighted terms, for the effective sample size of the gradient:
            norms of gradients, or advantages in their place; without it 1.
        keep: Number of largest weights in the record. `k̂` is that of all weights while the
            tail, `3 √n`, is smaller (at 4096, up to 1.86 million weights), and a shorter tail's
            beyond; quantiles among the largest are exact, others are read from the histogram.

    Raises:
        ValueError: Wrong shape; no group; `keep` below 1.
    """
    contracts.require_at_least("groups", groups, 1)
    contracts.require_at_least("keep", keep, 1)
    size = log_weights.numel()
    contracts.require_vector("log_weights", log_weights, size, "unit")
    log_weights = log_weights.double()
    if counted is None:
        counted = torch.ones_like(log_weights, dtype=torch.bool)
    contracts.require_vector("counted", counted, size, "weight")
    contracts.require_boolean("counted", counted)
    group = torch.zeros_like(counted, dtype=torch.int64) if group is None else group
    contracts.require_vector("group", group, size, "weight")
    group = torch.where(counted, group, 0)
    defined = counted & (log_weights < torch.inf)
    log_weights = torch.where(defined, log_weights, -torch.inf)
    weighed = log_weights
    if magnitudes is not None:
        contracts.require_vector("magnitudes", magnitudes, size, "weight")
        log_magnitudes = magnitudes.detach().double().abs().log()
        weighed = torch.where(log_weights == -torch.inf, -torch.inf, log_weights + log_magnitudes)
    sums = torch.stack(
        [
            log_weights,
            2 * log_weights,
            _log_excess(log_weights),
            torch.where(log_weights == -torch.inf, 0.0, log_weights + _log_excess(-log_weights)),
            weighed,
            2 * weighed,
        ]
    )
    zeros = torch.zeros(groups, dtype=torch.int64, device=log_weights.device)
    cell = group * (_BINS + 2) + _bin(log_weights)
    histogram = zeros.new_zeros(groups * (_BINS + 2)).index_add(0, cell, defined.long())
    return WeightHealth(
        zeros.index_add(0, group, defined.long()),
        zeros.index_add(0, group, (counted & ~defined).long()),
        *log_sum_by_group(torch.where(defined, sums, -torch.inf), group, groups),
        largest=_largest(log_weights, group, groups, keep),
        histogram=histogram.reshape(groups, _BINS + 2),
    )


def step_health(
    log_weights: Tensor,
    segments: Segments,
    *,
    group: Tensor | None = None,
    groups: int = 1,
    magnitudes: Tensor | None = None,
) -> WeightHealth:
    """The record of the weights of all existing steps: a long episode counts for its every step.

    Args:
        log_weights: `[S]`.
        group: `[S]` int64, such as the policy that took each step.
        groups: Number of groups.
        magnitudes: `[S]`, as in `weight_health`.

    Raises:
        ValueError: Wrong shape.
    """
    contracts.require_vector("log_weights", log_weights, segments.size, "position")
    return weight_health(
        log_weights,
        group=group,
        groups=groups,
        counted=segments.inside,
        magnitudes=magnitudes,
    )


def episode_health(
    log_weights: Tensor,
    segments: Segments,
    *,
    group: Tensor | None = None,
    groups: int = 1,
    magnitudes: Tensor | None = None,
) -> WeightHealth:
    """The record of each episode's last weight: every episode counts once, whatever its length.

    Args:
        log_weights: `[S]`, prefix or trajectory log-weights. An empty episode has weight 1.
        group: `[N]` int64, such as the policy that sampled each episode.
        groups: Number of groups.
        magnitudes: `[N]`, as in `weight_health`.

    Returns:
        A record of `groups` groups. With one step an episode it is `step_health`.

    Raises:
        ValueError: Wrong shape.
    """
    contracts.require_vector("log_weights", log_weights, segments.size, "position")
    last = segments.last(log_weights.detach().double())
    return weight_health(last, group=group, groups=groups, magnitudes=magnitudes)


def _log_excess(x: Tensor) -> Tensor:
    """`log(e^x - 1 - x)`, without overflow."""
    large = x > 1
    low, high = torch.where(large, 0.0, x), torch.where(large, x, 1.0)
    # Rounding makes it negative near 0, where it is x²/2.
    near = (low.expm1() - low).clamp(min=0.0).log()
    return torch.where(large, high + torch.log1p(-(1 + high) * (-high).exp()), near)


def _bin(log_weights: Tensor) -> Tensor:
    """The histogram's bin of each log-weight; the first and the last hold what lies outside."""
    return ((log_weights + BIN_LIMIT) / BIN_WIDTH).floor().clamp(-1, _BINS).long() + 1


def _largest(log_weights: Tensor, group: Tensor, groups: int, keep: int) -> Tensor:
    """The largest log-weights of each group `[G, keep]`, in falling order."""
    if groups == 1:  # forty times as quick as sorting them all
        largest = log_weights.topk(min(keep, log_weights.numel())).values
        return torch.nn.functional.pad(largest, (0, keep - largest.numel()), value=-torch.inf)[None]
    # By weight, then stably by group: within a group the order by weight remains.
    ordered, places = log_weights.sort(descending=True)
    group, within = group[places].sort(stable=True)
    ordered = ordered[within]
    size = torch.zeros_like(group).new_zeros(groups).index_add(0, group, torch.ones_like(group))
    begins = size.cumsum(0) - size
    rank = torch.arange(group.numel(), device=group.device) - begins[group]
    # All weights beyond the kept ones go to one more column, cut off afterwards.
    cell = group * (keep + 1) + rank.clamp(max=keep)
    table = ordered.new_full((groups * (keep + 1),), -torch.inf)
    return table.index_copy(0, cell, ordered).reshape(groups, keep + 1)[:, :keep]
