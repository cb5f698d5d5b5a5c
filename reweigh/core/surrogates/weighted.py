"""The score function, weighted: where the stop-gradient lives."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def weighted_log_prob(
    log_prob: Tensor, weights: Tensor, advantages: Tensor, segments: Segments
) -> Tensor:
    """`sg(w_t A_t) log π_θ(a_t|s_t)`: its gradient is `w_t A_t ∇log π_θ(a_t|s_t)`.

    Args:
        log_prob: `[S]` float32 or float64, under the policy being trained: what is differentiated.
        weights: `[S]`, plain weights (not their logarithms).
        advantages: `[S]`, any return or advantage.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64. Where `w_t A_t` is exactly 0, value and gradient are exactly 0, even if
        `log_prob` is `-inf`.

    Raises:
        ValueError: Another shape; a half-precision log-probability.
    """
    contracts.precise("log_prob", log_prob)
    log_prob = segments.read("log_prob", log_prob)
    coefficient = segments.read("weights", weights) * segments.read("advantages", advantages)
    coefficient = coefficient.detach()
    return coefficient * torch.where(coefficient == 0, 0.0, log_prob)
