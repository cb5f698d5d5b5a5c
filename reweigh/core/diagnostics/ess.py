"""Effective sample sizes: of weights, of the gradient they weigh, and at each time."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments
from reweigh.core.weights import LogSums, log_sums


@torch.no_grad()
def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Kish's effective sample size `(Σ w)² / Σ w²` of a set of weights (Kish 1965).

    How many equally weighted samples have the variance that these have; about `n / E[w²]`.

    Args:
        log_weights: `[n]`, of existing steps or of episodes; a shift changes nothing.

    Returns:
        Scalar float64 in [0, n]: `n` for equal weights, 0 for none or all zero.
    """
    log_weights = log_weights.double()
    if log_weights.numel() == 0:
        return log_weights.new_zeros(())
    highest = log_weights.max()
    weights = (log_weights - torch.where(highest == -torch.inf, 0.0, highest)).exp()
    size = weights.sum().square() / weights.square().sum()
    return torch.where(highest == -torch.inf, 0.0, size)


def gradient_effective_sample_size(log_weights: Tensor, magnitudes: Tensor) -> Tensor:
    """Effective sample size of a weighted mean of `f`: `(Σ |f| w)² / Σ (f w)²`.

    Owen 2013, section 9.3: weights may be even where what they weigh is not, and uneven where it is
    0. With `f` the norm of an episode's gradient it is that of the policy gradient.

    Args:
        log_weights: `[n]`, of existing steps or of episodes; a shift changes nothing.
        magnitudes: `[n]`, `|f|` or `f`: gradient norms, or advantages in their place.

    Returns:
        Scalar float64 in [0, n]. With equal magnitudes it is `effective_sample_size`.

    Raises:
        ValueError: Another shape.
    """
    contracts.vector("magnitudes", magnitudes, log_weights.numel(), "weight")
    return effective_sample_size(log_weights.double() + magnitudes.double().abs().log())


@torch.no_grad()
def ess_by_time(log_weights: Tensor, segments: Segments) -> Tensor:
    """Effective sample size at each time, over all N episodes; ended ones keep their last weight.

    Args:
        log_weights: `[S]`.
        segments: Where the episodes lie; whole episodes.

    Returns:
        `[T]` float64, each in [0, N].

    Raises:
        ValueError: Another shape; fragments.
    """
    log_weights = segments.as_float64("log_weights", log_weights)
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
    log_size = 2 * sums.log_sum - sums_of_squares.log_sum
    return torch.where(sums.log_sum == -torch.inf, 0.0, log_size.exp())
