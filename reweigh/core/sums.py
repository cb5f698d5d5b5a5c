"""Sums of weights from their logarithms: by group, without one, and for sample sizes.

Exponentials are taken relative to the largest weight of their group. A product of ratios exceeds
float64 within a few hundred steps; its share of the sum, which is what estimators need, does not.
"""

import torch
from torch import Tensor

from reweigh.core.segments import Segments


def relative_to_largest(x: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """`exp(x_i - m_g)` and the maximum `m_g` of each group: no term overflows.

    Args:
        x: `[..., n]` float64; `-inf` (weight 0) is legal.
        group: `[n]` int64 in [0, groups).
        groups: Number of groups.

    Returns:
        `[..., n]`, at most 1, and `[..., groups]`, a constant; 0 for a group without weight.
    """
    group = group.expand_as(x)
    largest = x.new_full((*x.shape[:-1], groups), -torch.inf)
    largest = largest.scatter_reduce(-1, group, x.detach(), "amax")
    # x - m would be inf - inf.
    largest = torch.where(largest.isinf(), 0.0, largest)
    return (x - largest.gather(-1, group)).exp(), largest


def log_sum_by_group(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """Log-sum-exp of each group: `log Σ_{i∈g} exp(x_i)`.

    Args:
        x: `[..., n]` float64; `-inf` is legal.
        group: `[n]` int64 in [0, groups).
        groups: Number of groups.

    Returns:
        `[..., groups]`, differentiable; `-inf`, with gradient 0, for a group without weight.
    """
    shifted, largest = relative_to_largest(x, group, groups)
    sums = torch.zeros_like(largest).scatter_add(-1, group.expand_as(x), shifted)
    return safe_log(sums) + largest


def relative_weights(log_weights: Tensor, group: Tensor, groups: int, segments: Segments) -> Tensor:
    """Weights `[S]` over the largest of their group, 0 where no step exists.

    Raises:
        ValueError: Wrong shape.
    """
    log_weights = segments.as_float64("log_weights", log_weights)
    log_weights = log_weights.masked_fill(~segments.inside, -torch.inf)
    return relative_to_largest(log_weights, group, groups)[0]


def safe_log(x: Tensor) -> Tensor:
    """`log x`, whose gradient at 0 is 0 and not infinite, so that no chain rule meets `inf * 0`."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).log(), -torch.inf)


def sum_of_others(x: Tensor) -> Tensor:
    """The sum of all rows but each: `Σ_{j≠i} x_j`, `[N, ...]` to `[N, ...]`.

    Those before and those after are added. Subtracting a row from the total would cancel where
    that row is nearly all of it.
    """
    before, after = torch.zeros_like(x), torch.zeros_like(x)
    before[1:] = x[:-1].cumsum(0)
    after[:-1] = x.flip(0)[:-1].cumsum(0).flip(0)
    return before + after


def kish_sample_size(log_sum: Tensor, log_sum_of_squares: Tensor) -> Tensor:
    """Kish's effective sample size `(Σ w)² / Σ w²` (Kish 1965), from the logarithms of the sums.

    Args:
        log_sum: `log Σ w`, any shape.
        log_sum_of_squares: `log Σ w²`, the same shape.

    Returns:
        The same shape: n for n equal weights, 0 if all weights are 0.
    """
    size = (2 * log_sum - log_sum_of_squares).exp()
    return torch.where(log_sum == -torch.inf, 0.0, size)
