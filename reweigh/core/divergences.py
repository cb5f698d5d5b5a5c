"""Divergences between two policies at the same states, from their parameters alone.

`D(p ‖ q)` per step, in closed form, for categorical policies (logits) and Gaussian ones with
independent dimensions (means and standard deviations). With `p` the target and `q` the behaviour,
`renyi2` is the logarithm of the step weight's second moment: `D_2 = log E_q[(p/q)²]`. Everything is
differentiable in both policies; where a divergence is infinite, its gradient is 0, not NaN.
Estimates from sampled log-ratios are in `core.diagnostics`.
"""

import math

import torch
from torch import Tensor

from reweigh.core.segments import Segments

_LOG_MAXIMUM = math.log(torch.finfo(torch.float64).max)


def kl_categorical(logits_p: Tensor, logits_q: Tensor, segments: Segments) -> Tensor:
    """Kullback-Leibler divergence `KL(p ‖ q) = Σ_a p_a log(p_a / q_a)`, in nats.

    Args:
        logits_p: `[S, A]`, unnormalised; `-inf` is an action never taken.
        logits_q: `[S, A]`, likewise.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64, differentiable in both; `inf` where `q` never takes an action of `p`. 0 where
        the policies are equal.

    Raises:
        ValueError: Another shape.
    """
    log_p, log_q, _, infinite = _log_probs(logits_p, logits_q, segments)
    return segments.fill(_or_infinity((log_p.exp() * (log_p - log_q)).sum(1), infinite))


def renyi2_categorical(logits_p: Tensor, logits_q: Tensor, segments: Segments) -> Tensor:
    """Rényi divergence of order 2: `D_2(p ‖ q) = log Σ_a p_a² / q_a`.

    Its exponential is the `d_2` of Metelli et al. 2018 (POIS), the second moment of the step's
    weight; summed over an episode's steps (`segments.total`) and averaged, it estimates that of the
    trajectory's.

    Args:
        logits_p: `[S, A]`, unnormalised; `-inf` is an action never taken.
        logits_q: `[S, A]`, likewise.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64, differentiable in both; `inf` where `q` never takes an action of `p`. Never
        below `kl_categorical`.

    Raises:
        ValueError: Another shape.
    """
    log_p, log_q, taken, infinite = _log_probs(logits_p, logits_q, segments)
    terms = torch.where(taken, 2 * log_p - log_q, -torch.inf)
    return segments.fill(_or_infinity(terms.logsumexp(1), infinite))


def chi_square_categorical(logits_p: Tensor, logits_q: Tensor, segments: Segments) -> Tensor:
    """Chi-square `χ²(p ‖ q) = Σ_a (p_a - q_a)² / q_a`: the variance of the step's weight.

    Args:
        logits_p: `[S, A]`, unnormalised; `-inf` is an action never taken.
        logits_q: `[S, A]`, likewise.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64: `exp(D_2) - 1`, as differentiable as `renyi2_categorical`.

    Raises:
        ValueError: Another shape.
    """
    return _chi_square(renyi2_categorical(logits_p, logits_q, segments))


def kl_gaussian(
    mean_p: Tensor, deviation_p: Tensor, mean_q: Tensor, deviation_q: Tensor, segments: Segments
) -> Tensor:
    """`KL(p ‖ q) = Σ_d log(σ_q/σ_p) + (σ_p² + (μ_p - μ_q)²)/(2σ_q²) - ½`, in nats.

    Args:
        mean_p: `[S, D]`.
        deviation_p: `[S, D]`, standard deviations (neither variances nor logarithms).
        mean_q: `[S, D]`.
        deviation_q: `[S, D]`.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64, differentiable in all. 0 where the policies are equal.

    Raises:
        ValueError: Another shape; a deviation that is not positive.
    """
    ratio, shift = _standardised(mean_p, deviation_p, mean_q, deviation_q, segments)
    return segments.fill(((ratio.square() + shift.square() - 1) / 2 - ratio.log()).sum(1))


def renyi2_gaussian(
    mean_p: Tensor, deviation_p: Tensor, mean_q: Tensor, deviation_q: Tensor, segments: Segments
) -> Tensor:
    """`D_2(p ‖ q) = Σ_d (μ_p - μ_q)²/s + log(σ_q²/(σ_p √s))`, with `s = 2σ_q² - σ_p²`.

    Gil et al. 2013, table 2 with order 2; Metelli et al. 2018 (POIS), appendix. The weight has a
    second moment only while `s > 0` in each dimension: a target of twice the behaviour's variance
    has none.

    Args:
        mean_p: `[S, D]`.
        deviation_p: `[S, D]`, standard deviations (neither variances nor logarithms).
        mean_q: `[S, D]`.
        deviation_q: `[S, D]`.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64, differentiable in all; `inf` where `σ_p² ≥ 2σ_q²` in any dimension. Never
        below `kl_gaussian`.

    Raises:
        ValueError: Another shape; a deviation that is not positive.
    """
    ratio, shift = _standardised(mean_p, deviation_p, mean_q, deviation_q, segments)
    rest = 2 - ratio.square()
    infinite = rest <= 0
    # Replaced before the logarithm and the division: selecting afterwards leaves a NaN gradient.
    rest = torch.where(infinite, 1.0, rest)
    each = shift.square() / rest - ratio.log() - rest.log() / 2
    return segments.fill(_or_infinity(each.sum(1), infinite.any(1)))


def chi_square_gaussian(
    mean_p: Tensor, deviation_p: Tensor, mean_q: Tensor, deviation_q: Tensor, segments: Segments
) -> Tensor:
    """Chi-square divergence `χ²(p ‖ q) = E_q[(p/q - 1)²]`: the variance of the step's weight.

    Args:
        mean_p: `[S, D]`.
        deviation_p: `[S, D]`, standard deviations (neither variances nor logarithms).
        mean_q: `[S, D]`.
        deviation_q: `[S, D]`.
        segments: Where the episodes lie.

    Returns:
        `[S]` float64: `exp(D_2) - 1`, as differentiable as `renyi2_gaussian`.

    Raises:
        ValueError: Another shape; a deviation that is not positive.
    """
    return _chi_square(renyi2_gaussian(mean_p, deviation_p, mean_q, deviation_q, segments))


def _log_probs(
    logits_p: Tensor, logits_q: Tensor, segments: Segments
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, the actions `p` takes `[S, A]`, and where `q` lacks one of them `[S]`.

    Log-probabilities are 0 at an action that either never takes, so that no difference of
    infinities arises: its term is 0, or the step is infinite.
    """
    logits_p = segments.rows_as_float64("logits_p", logits_p)
    logits_q = segments.rows_as_float64("logits_q", logits_q)
    _same_shape("logits_p", logits_p, "logits_q", logits_q)
    log_p, log_q = logits_p.log_softmax(1), logits_q.log_softmax(1)
    taken, known = log_p > -torch.inf, log_q > -torch.inf
    log_p, log_q = (torch.where(taken & known, x, 0.0) for x in (log_p, log_q))
    return log_p, log_q, taken, (taken & ~known).any(1)


def _standardised(
    mean_p: Tensor, deviation_p: Tensor, mean_q: Tensor, deviation_q: Tensor, segments: Segments
) -> tuple[Tensor, Tensor]:
    """`p` in units of `q`, `[S, D]` each: its deviation, and its mean less that of `q`."""
    mean_p = segments.rows_as_float64("mean_p", mean_p)
    mean_q = segments.rows_as_float64("mean_q", mean_q)
    _same_shape("mean_p", mean_p, "mean_q", mean_q)
    deviation_p = _deviation("deviation_p", deviation_p, mean_p, segments)
    deviation_q = _deviation("deviation_q", deviation_q, mean_p, segments)
    return deviation_p / deviation_q, (mean_p - mean_q) / deviation_q


def _deviation(name: str, deviation: Tensor, mean: Tensor, segments: Segments) -> Tensor:
    _same_shape("mean_p", mean, name, deviation)
    # Not 0 where no step exists: it is divided by.
    deviation = torch.where(segments.inside.unsqueeze(1), deviation.double(), 1.0)
    # On an accelerator the check would stall it, and a NaN reaches the loss instead.
    if deviation.device.type == "cpu" and not bool((deviation > 0).all()):
        raise ValueError(
            f"{name} must be positive, got {float(deviation.min())}: pass standard deviations, the "
            "exponential of what a network gives as their logarithm"
        )
    return deviation


def _same_shape(first_name: str, first: Tensor, name: str, x: Tensor) -> None:
    if first.shape != x.shape:
        raise ValueError(
            f"{first_name} and {name} must have one shape, got {list(first.shape)} and "
            f"{list(x.shape)}: expand the smaller one"
        )


def _or_infinity(finite: Tensor, infinite: Tensor) -> Tensor:
    return torch.where(infinite, torch.inf, finite)


def _chi_square(renyi2: Tensor) -> Tensor:
    # Where exp overflows, inf, with gradient 0: inf would meet the zeros of a softmax behind it.
    beyond = renyi2 > _LOG_MAXIMUM
    return _or_infinity(torch.where(beyond, 0.0, renyi2).expm1(), beyond)
