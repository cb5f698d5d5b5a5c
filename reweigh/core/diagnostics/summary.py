"""A batch in a few numbers, read at once: what the training loop decides by."""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh.core.diagnostics.ess import effective_sample_size
from reweigh.core.segments import Segments


class WeightSummary(NamedTuple):
    """Weights in five numbers."""

    effective_sample_size: float
    """Kish's, between 0 and `sample_size`."""
    sample_size: int
    """How many weights."""
    mean: float
    """Of the plain weights: 1 in expectation, since a weight is a ratio of two densities."""
    standard_error: float
    """Of the mean: a mean many of these away from 1 says the log-probabilities are wrong."""
    maximum: float
    """The largest weight."""


@torch.no_grad()
def weight_summary(log_weights: Tensor) -> WeightSummary:
    """Summarises a set of weights, at once; `weight_health` says more, and waits to be read.

    Args:
        log_weights: `[n]`, of existing steps or of episodes, not self-normalised.

    Raises:
        ValueError: No weights.
    """
    if log_weights.numel() == 0:
        raise ValueError("there are no weights to summarise: log_weights is empty")
    weights = log_weights.double().exp()
    sample_size = weights.numel()
    return WeightSummary(
        effective_sample_size=float(effective_sample_size(log_weights)),
        sample_size=sample_size,
        mean=float(weights.mean()),
        standard_error=float(weights.std(correction=0).nan_to_num(nan=torch.inf))
        / sample_size**0.5,
        maximum=float(weights.max()),
    )


@torch.no_grad()
def approximate_kl(log_ratios: Tensor, segments: Segments) -> Tensor:
    """Estimates `KL(π_φ ‖ π_θ)`, behaviour to target, in nats: mean of `ρ_t - 1 - log ρ_t`.

    Averaged over all existing steps. Unbiased for the behaviour's states, never negative, and of
    lower variance than the mean of `-log ρ_t` (Schulman 2020, "Approximating KL divergence", k3).

    Args:
        log_ratios: `[S]`.
        segments: Where the episodes lie.

    Returns:
        Scalar float64, 0 for equal policies and for no steps.

    Raises:
        ValueError: Another shape.
    """
    log_ratios = segments.as_float64("log_ratios", log_ratios)
    return (log_ratios.expm1() - log_ratios).sum() / segments.inside.sum().clamp(min=1)
