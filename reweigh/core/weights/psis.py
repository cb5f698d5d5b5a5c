"""Pareto-smoothed importance sampling: the largest weights replaced by a fitted tail's quantiles.

The shape `k̂` of that tail says how far an importance-weighted mean can be trusted. The largest
weights are a fifth of them, or `3 √n` of more than 225; `r_eff = 1`, episodes being independent.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_LEAST_TAIL = 5
LEAST_COUNT = 5 * _LEAST_TAIL
"""Fewer weights have no tail to fit."""
# A tail this narrow, in nats, is one value and rounding.
_ROUNDING = 1e-12
# Exceedances below this would put the grid of the fit out of range.
_LEAST_EXCEEDANCE = 1e-300


class Smoothed(NamedTuple):
    """Smoothed log-weights, the tails they come from, and what smoothing changed."""

    log_weights: Tensor
    """The shape of what was smoothed, float64."""
    k_hat: Tensor
    """Shape of each fitted tail, float64: compare it with `k_hat_threshold`. `inf` where no tail
    could be fitted, `-inf` where the tail is a single value."""
    touched: Tensor
    """Bool, the shape of the log-weights: which of them smoothing changed."""
    fraction: Tensor
    """Scalar float64: the share of weights that smoothing changed."""


def tail_length(count: int) -> int:
    """The number of largest weights in the tail: a fifth, or `3 √n` above 225."""
    return count // 5 if count <= 225 else math.isqrt(9 * count)


def k_hat_threshold(count: int) -> float:
    """Largest `k̂` at which a mean of so many weights is reliable: `min(1 - 1/log10 n, 0.7)`.

    Vehtari et al. 2024. It is 0.5 at 100 weights and 0.7 from 2155 on.

    Args:
        count: Number of weights; with 0 or 1, no `k̂` is low enough.
    """
    return min(1 - 1 / math.log10(count), 0.7) if count > 1 else -math.inf


@torch.no_grad()
def pareto_smooth(log_weights: Tensor) -> Smoothed:
    """Replaces the largest weights by the order statistics expected of their fitted Pareto tail.

    Vehtari et al. 2024, section 2. The exceedances of the `M` largest weights over the next one are
    fitted by a generalised Pareto distribution (`pareto_k`), and the `j`-th smallest of them
    becomes its quantile at `(j - ½)/M`, at most the largest raw weight. Biased, with an error that
    is small where `k̂` is below its threshold; unlike a truncation it has no knob. Weights of a tail
    without a fit stay as they are.

    Args:
        log_weights: `[..., n]`: each row by itself. `-inf` (weight 0) is legal.

    Returns:
        Log-weights `[..., n]`, `k̂` `[...]`. A constant added to a row's log-weights is added to its
        smoothed ones; their order stays.
    """
    log_weights = log_weights.double()
    count = log_weights.shape[-1]
    length = tail_length(count)
    if length < _LEAST_TAIL:
        k_hat = log_weights.new_full(log_weights.shape[:-1], torch.inf)
        return _smoothed(log_weights, log_weights, k_hat)
    ordered, places = log_weights.sort(dim=-1, stable=True)
    tail, cutoff = ordered[..., -length:], ordered[..., -length - 1]
    k_hat, scale, highest = _fit(tail, cutoff)
    k = k_hat.unsqueeze(-1)
    rank = torch.arange(length, dtype=torch.float64, device=log_weights.device)
    surprise = -torch.log1p(-(rank + 0.5) / length)
    # The quantile's limit at k = 0, where it is 0/0, is the exponential distribution's.
    grown = torch.where(k == 0, surprise, (k * surprise).expm1() / k)
    quantile = (cutoff - highest).exp().unsqueeze(-1) + scale.unsqueeze(-1) * grown
    fitted = quantile.log().clamp(max=0.0) + highest.unsqueeze(-1)
    fitted = torch.where(k.isfinite(), fitted, tail)
    smooth = log_weights.scatter(-1, places[..., -length:], fitted)
    return _smoothed(log_weights, smooth, k_hat)


@torch.no_grad()
def pareto_k(log_weights: Tensor) -> Tensor:
    """The tail shape `k̂` of a set of weights: their moments above `1/k̂` do not exist.

    A generalised Pareto distribution fitted to the exceedances of the largest weights by the method
    of Zhang and Stephens 2009, drawn towards ½ by a prior worth ten of them,
    `(M k + 5)/(M + 10)` (Vehtari et al. 2024, appendix C).

    Args:
        log_weights: `[..., n]`: each row by itself. `-inf` (weight 0) is legal.

    Returns:
        `[...]` float64; `inf` for fewer than 25 weights, or if a quarter of the tail equals the
        cutoff (so that few weights are above 0); `-inf` if the tail is one value, as where the
        policies are equal. A constant added to the log-weights changes nothing.
    """
    count = log_weights.shape[-1]
    largest = log_weights.double().topk(min(tail_length(count) + 1, count), dim=-1).values
    return pareto_k_of_largest(largest, count=count)


@torch.no_grad()
def pareto_k_of_largest(largest: Tensor, *, count: int) -> Tensor:
    """`pareto_k` of `count` weights of which only the largest are at hand.

    Args:
        largest: `[..., m]` float64, the largest log-weights, in falling order. If they are no more
            than the tail that `count` asks for, the last is the cutoff and the others the tail.
        count: Number of all weights.

    Returns:
        `[...]` float64. With `m` above `tail_length(count)` it is `pareto_k` of them all.
    """
    length = min(tail_length(count), largest.shape[-1] - 1)
    if length < _LEAST_TAIL:
        return largest.new_full(largest.shape[:-1], torch.inf)
    k_hat, _, _ = _fit(largest[..., :length].flip(-1), largest[..., length])
    return k_hat


def _fit(tail: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, scale and largest log-weight of tails `[..., M]` in rising order.

    The scale is that of weights divided by the largest one.
    """
    highest = torch.where(tail[..., -1] == -torch.inf, 0.0, tail[..., -1])
    shifted = (tail - highest.unsqueeze(-1)).exp()
    exceedance = shifted - (cutoff - highest).exp().unsqueeze(-1)
    length = tail.shape[-1]
    quartile = exceedance[..., int(length / 4 + 0.5) - 1]
    possible = quartile > _LEAST_EXCEEDANCE
    # False where all weights are 0: the difference of their logarithms is NaN.
    single = tail[..., -1] - tail[..., 0] <= _ROUNDING
    # A tail that cannot be fitted goes through the same arithmetic as one that can.
    safe = torch.where((possible & ~single).unsqueeze(-1), exceedance, 1.0)
    theta = _theta(safe)
    raw = torch.log1p(-theta.unsqueeze(-1) * safe).mean(-1)
    scale = torch.where(theta == 0, safe.mean(-1), -raw / theta)
    k_hat = (length * raw + 5) / (length + 10)
    k_hat = torch.where(possible, k_hat, torch.inf)
    return torch.where(single, -torch.inf, k_hat), scale, highest


def _theta(exceedance: Tensor) -> Tensor:
    """Posterior mean `[...]` of `θ = -k/σ`; Zhang and Stephens 2009 have the other sign of `k`."""
    length = exceedance.shape[-1]
    points = 30 + math.isqrt(length)
    j = torch.arange(1, points + 1, dtype=torch.float64, device=exceedance.device)
    quartile = exceedance[..., int(length / 4 + 0.5) - 1].unsqueeze(-1)
    highest = exceedance[..., -1].unsqueeze(-1)
    grid = 1 / highest + (1 - (points / (j - 0.5)).sqrt()) / (3 * quartile)
    # One point of the grid at a time: all at once would hold √M times the memory.
    shape = torch.stack(
        [torch.log1p(-theta.unsqueeze(-1) * exceedance).mean(-1) for theta in grid.unbind(-1)], -1
    )
    # At θ = 0, the exponential distribution, θ/k is 0/0, with the limit -1/mean.
    rate = torch.where(grid == 0, 1 / exceedance.mean(-1, keepdim=True), -grid / shape)
    likelihood = length * (rate.log() - shape - 1)
    return (likelihood.softmax(-1) * grid).sum(-1)


def _smoothed(before: Tensor, after: Tensor, k_hat: Tensor) -> Smoothed:
    touched = after != before
    fraction = touched.double().sum() / max(touched.numel(), 1)
    return Smoothed(after, k_hat, touched, fraction)
