"""Ratios, clipped: no reward for leaving the trust region."""

import math

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def clipped_ratio(
    log_ratios: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float = math.inf,
    log_centre: Tensor | None = None,
    log_weights: Tensor | None = None,
) -> Tensor:
    """`min(ρ_t A_t, clip(ρ_t, c_t - ε, c_t + ε') A_t)`: no reward for leaving the trust region.

    Schulman et al. 2017 (PPO), equation 7, with `c = 1` and `ε' = ε`; Yu et al. 2025 (DAPO),
    section 3.1, with `ε' > ε`; Queeney et al. 2021 (GePPO), with `c` the ratio to the behaviour
    that the policy had when the improvement began. Where `A_t < 0` only the dual clip bounds the
    ratio from above: `max(·, dual_clip · A_t)` there (Ye et al. 2020).

    The ratio is the caller's: of the step, the geometric mean over a sequence (GSPO), or, with the
    weights `proximal / behaviour`, that to a proximal policy (decoupled PPO: Hilton et al. 2022; Fu
    et al. 2025). A weight of 0 rejects the step.

    Args:
        log_ratios: `[S]` float32 or float64, differentiated.
        advantages: `[S]`.
        clip: ε, above 0; from 1 on there is no floor.
        clip_high: ε', above 0; without it, ε. Infinity is no ceiling.
        dual_clip: Largest ratio where `A_t < 0`, above 1. Infinite by default: a ratio that
            overflows there gives `-inf`.
        log_centre: `[S]`, `log c_t`; without it 0.
        log_weights: `[S]`, of a constant weight that multiplies the objective; without it 0. Its
            sum with the log-ratio may be small where each of them overflows.

    Returns:
        `[S]` float64. At `ρ = c` its gradient is that of `weighted_log_prob` with weight ρ. Where
        it is clipped, or `A_t` is exactly 0, the gradient is exactly 0 even if the ratio overflows.

    Raises:
        ValueError: Wrong shape; half-precision log-ratios; an ε that is not positive; a dual clip
            of 1 or less.
    """
    clip_high = clip if clip_high is None else clip_high
    contracts.require_positive("clip", clip)
    contracts.require_positive("clip_high", clip_high)
    if not dual_clip > 1:
        raise ValueError(f"dual_clip must be above 1, the ratio at the start, got {dual_clip}")
    contracts.require_full_precision("log_ratios", log_ratios)
    log_ratios = segments.as_float64("log_ratios", log_ratios)
    advantages = segments.as_float64("advantages", advantages).detach()
    centre = torch.zeros_like(log_ratios) if log_centre is None else log_centre
    centre = segments.as_float64("log_centre", centre).detach().exp()
    # The minimum leaves one side of the clip: a ceiling where A ≥ 0, a floor where A < 0. It is put
    # on the log-ratio, so that a ratio that overflows does not turn a zero gradient into NaN.
    ceiling, floor = (centre + clip_high).log(), (centre - clip).clamp(min=0.0).log()
    raised = torch.where(log_ratios < floor, floor, log_ratios)
    bounded = torch.where(
        advantages < 0,
        torch.where(raised > math.log(dual_clip), math.log(dual_clip), raised),
        torch.where(log_ratios > ceiling, ceiling, log_ratios),
    )
    if log_weights is not None:
        bounded = bounded + segments.as_float64("log_weights", log_weights).detach()
    bounded = torch.where(advantages == 0, 0.0, bounded)
    return segments.fill(bounded.exp() * advantages)
