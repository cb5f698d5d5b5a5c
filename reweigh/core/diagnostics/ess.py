"""Effective sample sizes, and how far apart two policies are on the sampled actions."""

import torch
from torch import Tensor

from reweigh.core.segments import Segments
from reweigh.core.sums import kish_sample_size
from reweigh.core.weights import LogSums, log_sums


@torch.no_grad()
def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Kish's effective sample size `(Σ w)² / Σ w²` of a set of weights (Kish 1965).

    The number of equally weighted samples with the same variance; about `n / E[w²]`.

    Args:
        log_weights: `[n]`, of existing steps or of episodes; a shift changes nothing.

    Returns:
        Scalar float64 in [0, n]: `n` for equal weights, 0 if all are 0 or no weight exists.
    """
    log_weights = log_weights.double()
    if log_weights.numel() == 0:
        return log_weights.new_zeros(())
    # Relative to the largest: a difference of large logarithms would round.
    largest = log_weights.max()
    relative = log_weights - torch.where(largest == -torch.inf, 0.0, largest)
    return kish_sample_size(relative.logsumexp(0), (2 * relative).logsumexp(0))


@torch.no_grad()
def ess_by_time(log_weights: Tensor, segments: Segments) -> Tensor:
    """Effective sample size at each time, over all N episodes; ended ones keep their last weight.

    Args:
        log_weights: `[S]`.
        segments: Whole episodes.

    Returns:
        `[T]` float64, each in [0, N].

    Raises:
        ValueError: Wrong shape; fragments.
    """
    sums, of_squares = log_sums(log_weights, segments), log_sums(2 * log_weights, segments)
    return ess_of_sums(sums, of_squares)[0]


@torch.no_grad()
def ess_of_sums(sums: LogSums, sums_of_squares: LogSums) -> Tensor:
    """Effective sample size at each time from sums that may have been merged over parts.

    Args:
        sums: Of the log-weights (`weights.log_sums`, `weights.log_sums_of_groups`).
        sums_of_squares: Of twice the log-weights, of the same episodes.

    Returns:
        `[G, T]` float64: of each group's episodes. Of one part and one group it is `ess_by_time`.
    """
    return kish_sample_size(sums.log_sum, sums_of_squares.log_sum)


@torch.no_grad()
def approximate_kl(log_ratios: Tensor, segments: Segments) -> Tensor:
    """Estimate of `KL(π_φ ‖ π_θ)`, behaviour to target, in nats: mean of `ρ_t - 1 - log ρ_t`.

    Averaged over all existing steps. Unbiased for the behaviour's states, never negative, and of
    lower variance than the mean of `-log ρ_t` (Schulman 2020, "Approximating KL divergence", k3).

    Args:
        log_ratios: `[S]`.

    Returns:
        Scalar float64, 0 for equal policies and if no step exists.

    Raises:
        ValueError: Wrong shape.
    """
    log_ratios = segments.as_float64("log_ratios", log_ratios)
    return (log_ratios.expm1() - log_ratios).sum() / segments.inside.sum().clamp(min=1)
