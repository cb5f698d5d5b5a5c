"""Divergences between two policies at the same states, from their parameters alone.

`D(p ‖ q)` per step, in closed form, for categorical policies (logits) and Gaussian ones with
independent dimensions (means and standard deviations). With `p` the target and `q` the behaviour,
`renyi2` is the logarithm of the step weight's second moment: `D_2 = log E_q[(p/q)²]`. Everything is
differentiable in both policies; where a divergence is infinite, its gradient is 0, not NaN.
Estimates from sampled log-ratios are in `core.diagnostics`.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def kl_categorical(logits_p: Tensor, logits_q: Tensor, segments: Segments) -> Tensor:
    """Kullback-Leibler divergence `KL(p ‖ q) = Σ_a p_a log(p_a / q_a)`, in nats.

    Args:
        logits_p: `[S, A]`, unnormalised; `-inf` is an action never taken.
        logits_q: `[S, A]`, of the other policy.

    Returns:
        `[S]` float64, differentiable in both; `inf` where `q` never takes an action of `p`. 0 where
        the policies are equal.

    Raises:
        ValueError: Wrong shape.
    """
    log_p, log_q, _, infinite = _log_probs(logits_p, logits_q, segments)
    divergence = (log_p.exp() * (log_p - log_q)).sum(1)
    return segments.fill(torch.where(infinite, torch.inf, divergence))


def renyi2_categorical(logits_p: Tensor, logits_q: Tensor, segments: Segments) -> Tensor:
    """Rényi divergence of order 2: `D_2(p ‖ q) = log Σ_a p_a² / q_a`.

    Its exponential is the `d_2` of Metelli et al. 2018 (POIS), the second moment of the step's
    weight; summed over an episode's steps (`segments.total`) and averaged, it estimates that of the
    trajectory's.

    Args:
        logits_p: `[S, A]`, unnormalised; `-inf` is an action never taken.
        logits_q: `[S, A]`, of the other policy.

    Returns:
        `[S]` float64, differentiable in both; `inf` where `q` never takes an action of `p`. Never
        below `kl_categorical`.

    Raises:
        ValueError: Wrong shape.
    """
    log_p, log_q, taken, infinite = _log_probs(logits_p, logits_q, segments)
    terms = torch.where(taken, 2 * log_p - log_q, -torch.inf)
    return segments.fill(torch.where(infinite, torch.inf, terms.logsumexp(1)))


def kl_gaussian(
    mean_p: Tensor, deviation_p: Tensor, mean_q: Tensor, deviation_q: Tensor, segments: Segments
) -> Tensor:
    """`KL(p ‖ q) = Σ_d log(σ_q/σ_p) + (σ_p² + (μ_p - μ_q)²)/(2σ_q²) - ½`, in nats.

    Args:
        mean_p: `[S, D]`, as the others.
        deviation_p: Standard deviations (neither variances nor logarithms).
        mean_q: Of the other policy.
        deviation_q: Of the other policy.

    Returns:
        `[S]` float64, differentiable in all. 0 where the policies are equal.

    Raises:
        ValueError: Wrong shape; a deviation that is not positive.
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
        mean_p: `[S, D]`, as the others.
        deviation_p: Standard deviations (neither variances nor logarithms).
        mean_q: Of the other policy.
        deviation_q: Of the other policy.

    Returns:
        `[S]` float64, differentiable in all; `inf` where `σ_p² ≥ 2σ_q²` in any dimension. Never
        below `kl_gaussian`.

    Raises:
        ValueError: Wrong shape; a deviation that is not positive.
    """
    ratio, shift = _standardised(mean_p, deviation_p, mean_q, deviation_q, segments)
    rest = 2 - ratio.square()
    infinite = rest <= 0
    # Replaced before the logarithm and the division: selecting afterwards leaves a NaN gradient.
    rest = torch.where(infinite, 1.0, rest)
    each = shift.square() / rest - ratio.log() - rest.log() / 2
    return segments.fill(torch.where(infinite.any(1), torch.inf, each.sum(1)))


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
    # Where no step exists it is 1, not 0: it is a divisor.
    deviation = torch.where(segments.inside.unsqueeze(1), deviation.double(), 1.0)
    # On an accelerator the check would stall it, and a NaN reaches the loss instead.
    if contracts.can_look_at(deviation) and not bool((deviation > 0).all()):
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
