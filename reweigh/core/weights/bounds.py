"""Bounds on weights, in log space, each of which reports the steps that it changed.

A bound before a scope (on log-ratios) limits every factor; after it, the product.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments

_LARGEST = math.log(torch.finfo(torch.float64).max)


class Bounded(NamedTuple):
    """Bounded log-weights and the steps that the bound changed."""

    log_weights: Tensor
    """`[S]` float64."""
    touched: Tensor
    """`[S]` bool: steps whose weight the bound changed."""
    fraction: Tensor
    """Scalar float64: their share of the existing steps."""


def clip(log_weights: Tensor, segments: Segments, *, minimum: float, maximum: float) -> Bounded:
    """Clipped weights: `min(max(w, minimum), maximum)`.

    Biased. With a minimum above 0 an action that the target never takes keeps a weight.

    Args:
        log_weights: `[S]`, or log-ratios.
        minimum: Smallest weight, at least 0; 0 does not clip.
        maximum: Largest weight, at least the minimum and above 0; infinity does not clip.

    Returns:
        The log-weights and the steps that were clipped; no gradient goes through those.

    Raises:
        ValueError: `minimum` > `maximum`, or `maximum` not positive; wrong shape.
    """
    low, high = _log_band(minimum, maximum)
    log_weights = segments.as_float64("log_weights", log_weights)
    # Before exp, which overflows float64 at 709.8: the gradient of min(c, inf) would be NaN.
    outside = (log_weights < low) | (log_weights > high)
    return _bounded(log_weights.clamp(low, high), outside, segments)


def truncate(log_weights: Tensor, segments: Segments, *, maximum: float) -> Bounded:
    """Truncated importance sampling: `min(maximum, w)` (Ionides 2008).

    Biased; the weight's second moment is at most `maximum` times its mean. Truncating log-ratios
    before `prefix` bounds every factor instead of the product, which only a maximum of 1 bounds.

    Args:
        log_weights: `[S]`, or log-ratios.
        maximum: Largest weight, above 0; infinity does not clip.

    Returns:
        The log-weights and the steps that were truncated. It is `clip` with a minimum of 0.

    Raises:
        ValueError: `maximum` is not positive; wrong shape.
    """
    return clip(log_weights, segments, minimum=0.0, maximum=maximum)


def leaky_truncate(
    log_weights: Tensor, segments: Segments, *, maximum: float, leak: float
) -> Bounded:
    """Truncated weights plus a share of the excess: `(1 - leak) min(maximum, w) + leak w`.

    Zahavy et al. 2020 (leaky V-trace), section 4.1, with `leak = 1 - α`. Keeps a signal from
    weights beyond the maximum, and as much of their variance.

    Args:
        log_weights: `[S]`, or log-ratios.
        maximum: Where the leak begins, above 0.
        leak: In [0, 1].

    Returns:
        The log-weights and the steps whose weight became smaller. With `leak = 0` it is `truncate`.

    Raises:
        ValueError: `maximum` is not positive; a leak outside [0, 1]; wrong shape.
    """
    contracts.require_between("leak", leak, 0, 1)
    truncated, over, _ = truncate(log_weights, segments, maximum=maximum)
    if leak == 0 or math.isinf(maximum):
        return _bounded(truncated, over, segments)
    log_weights = segments.as_float64("log_weights", log_weights)
    within = math.log1p(-leak) + math.log(maximum) if leak < 1 else -math.inf
    leaked = torch.logaddexp(log_weights + math.log(leak), log_weights.new_tensor(within))
    return _bounded(torch.where(over, leaked, truncated), over & (leak < 1), segments)


def mask_outside(
    log_weights: Tensor, segments: Segments, *, minimum: float, maximum: float
) -> Bounded:
    """Weights of 0 outside a band: `w · 1[minimum ≤ w ≤ maximum]`.

    Masked importance sampling, as IcePop does it per step and others per sequence (on `trajectory`
    or `geometric_mean` weights). Biased; unlike truncation, a weight too large to be believed
    contributes 0.

    Args:
        log_weights: `[S]`, or log-ratios.
        minimum: Smallest weight that is kept, at least 0.
        maximum: Largest weight that is kept; may be infinite.

    Returns:
        The log-weights, `-inf` where masked, and the steps that were. Inside the band it is `clip`.

    Raises:
        ValueError: `minimum` > `maximum`, or `maximum` not positive; wrong shape.
    """
    low, high = _log_band(minimum, maximum)
    log_weights = segments.as_float64("log_weights", log_weights)
    return reject(log_weights, (log_weights >= low) & (log_weights <= high), segments)


def power_mean(
    log_weights: Tensor, segments: Segments, *, share: float | Tensor, exponent: float = -1.0
) -> Bounded:
    """Power mean of the weight and 1: `((1 - λ) w^s + λ)^(1/s)`.

    Metelli et al. 2021, "Subgaussian and Differentiable Importance Sampling", section 4; at
    `s = -1` the harmonic mean `w / ((1 - λ) + λ w)`. Bounded by `λ^(1/s)` and differentiable
    everywhere; biased by `O(λ)`.

    Args:
        log_weights: `[S]`, usually of trajectories.
        share: λ in [0, 1], the weight of the 1; a number, or `[S]` (one for each behaviour, spread
            over its steps). A constant.
        exponent: `s`, below 0: other means do not bound.

    Returns:
        The log-weights and the steps whose weight changed. With `λ = 0` none does.

    Raises:
        ValueError: A share outside [0, 1]; an exponent that is not negative; wrong shape.
    """
    if not exponent < 0:
        raise ValueError(f"exponent must be negative, or the mean is not bounded, got {exponent}")
    log_weights = segments.as_float64("log_weights", log_weights)
    if isinstance(share, Tensor):
        share = segments.as_float64("share", share).detach()
    else:
        contracts.require_between("share", share, 0, 1)
        share = torch.full_like(log_weights, share)
    # w is taken out of the mean, so that a weight of 0 meets no infinite power of itself.
    only_one = share >= 1
    mean = torch.logaddexp(
        torch.log1p(-share.masked_fill(only_one, 0.0)), share.log() - exponent * log_weights
    )
    bounded = torch.where(only_one, 0.0, log_weights + mean / exponent)
    return _bounded(bounded, bounded != log_weights, segments)


def excess(log_weights: Tensor, segments: Segments, *, maximum: float) -> Bounded:
    """The excess that truncation cuts off, as a share of the weight: `[1 - maximum / w]_+`.

    Wang et al. 2017 (ACER), equation 7: `E_φ[min(c, ρ) f] + E_θ[[1 - c/ρ]_+ f] = E_θ[f]`, so a
    second term with this weight, over actions drawn from the *target*, takes the bias of truncation
    back.

    Args:
        log_weights: `[S]` or `[S, A]`, the log-ratio of every action.
        maximum: That of the truncation, above 0.

    Returns:
        Log-weights of the same shape, `-inf` where truncation changes no weight, and the places
        where it does. Times `w`, plus `truncate`, it is `w`.

    Raises:
        ValueError: `maximum` is not positive; wrong shape.
    """
    contracts.require_positive("maximum", maximum)
    rows = log_weights.dim() == 2
    log_weights = (segments.rows_as_float64 if rows else segments.as_float64)(
        "log_weights", log_weights
    )
    inside = segments.inside.unsqueeze(1).expand_as(log_weights) if rows else segments.inside
    over = inside & (log_weights > math.log(maximum))
    below = torch.where(over, math.log(maximum) - log_weights, -1.0)
    cut = torch.where(over, (-below.expm1()).log(), -torch.inf)
    share = over.double().sum() / inside.sum().clamp(min=1)
    return Bounded(torch.where(inside, cut, 0.0), over, share)


def weigh(log_weights: Tensor, x: Tensor) -> Tensor:
    """`w x`, which is 0 where `x` is 0, however large the weight.

    Args:
        log_weights: Any shape, float64.
        x: The same shape; rewards or advantages.

    Returns:
        The same shape. Where the weight does not overflow it is `log_weights.exp() * x`.
    """
    overflows = log_weights > _LARGEST
    return torch.where(overflows & (x == 0), 0.0, log_weights).exp() * x


def reject(log_weights: Tensor, kept_steps: Tensor, segments: Segments) -> Bounded:
    """Weights of 0 where a step is not kept, and so value and gradient exactly 0.

    For rules of one's own: `kept_steps` may come from lengths, rewards, or a divergence and the
    sign of the advantage. Whether rejected steps still count is the divisor's matter
    (`core.reduce`).

    Args:
        log_weights: `[S]`.
        kept_steps: `[S]` bool; for whole episodes, `kept_episodes[segments.episode]`.

    Returns:
        The log-weights, `-inf` where rejected, and the steps that were.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    contracts.require_vector("kept_steps", kept_steps, segments.size, "position")
    contracts.require_boolean("kept_steps", kept_steps)
    log_weights = segments.as_float64("log_weights", log_weights)
    rejected = segments.inside & ~kept_steps
    return _bounded(log_weights.masked_fill(rejected, -torch.inf), rejected, segments)


def veto(
    log_weights: Tensor,
    log_ratios: Tensor,
    segments: Segments,
    *,
    minimum: float,
    maximum: float = math.inf,
) -> Bounded:
    """Weights of 0 throughout every episode in which any step's ratio leaves a band.

    A single step of an incredible ratio (a token that the trainer gives `1e-4` times the sampler's
    probability) says that the episode's log-probabilities are wrong.

    Args:
        log_weights: `[S]`, kept or rejected.
        log_ratios: `[S]`, which decide.
        segments: Or turns.
        minimum: Smallest ratio that is believed, at least 0.
        maximum: Largest ratio that is believed.

    Returns:
        The log-weights, `-inf` throughout rejected episodes, and the steps of these episodes.

    Raises:
        ValueError: `minimum` > `maximum`, or `maximum` not positive; wrong shape.
    """
    low, high = _log_band(minimum, maximum)
    log_ratios = segments.as_float64("log_ratios", log_ratios)
    # Negated below, so that a NaN is rejected too.
    believed = (log_ratios >= low) & (log_ratios <= high)
    vetoed = segments.total((~believed).double()) > 0
    return reject(log_weights, ~vetoed[segments.episode], segments)


def _bounded(log_weights: Tensor, touched: Tensor, segments: Segments) -> Bounded:
    touched = segments.inside & touched
    return Bounded(segments.fill(log_weights), touched, segments.mean(touched))


def _log_band(minimum: float, maximum: float) -> tuple[float, float]:
    contracts.require_positive("maximum", maximum)
    contracts.require_between("minimum", minimum, 0, maximum)
    return (math.log(minimum) if minimum > 0 else -math.inf), math.log(maximum)
