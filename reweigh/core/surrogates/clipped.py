"""Ratios, clipped: no reward for leaving the trust region."""

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
    log_centre: Tensor | None = None,
) -> Tensor:
    """`min(ρ_t A_t, clip(ρ_t, c_t - ε, c_t + ε) A_t)`: no reward for leaving the trust region.

    Schulman et al. 2017 (PPO), equation 7, with `c = 1`; Queeney et al. 2021 (GePPO), with `c` the
    ratio to the behaviour that the policy had when the improvement began.

    Args:
        log_ratios: `[S]`, what is differentiated.
        advantages: `[S]`.
        segments: Where the episodes lie.
        clip: ε, above 0.
        log_centre: `[S]`, `log c_t`; without it 0.

    Returns:
        `[S]` float64. At `ρ = c` its gradient is that of `weighted_log_prob` with weight ρ.

    Raises:
        ValueError: Another shape; ε that is not positive.
    """
    contracts.positive("clip", clip)
    log_ratios = segments.read("log_ratios", log_ratios)
    advantages = segments.read("advantages", advantages.detach())
    centre = torch.zeros_like(log_ratios) if log_centre is None else log_centre.detach()
    centre = segments.read("log_centre", centre).exp()
    # The minimum leaves one side of the clip: a ceiling where A ≥ 0, a floor where A < 0. It is put
    # on the log-ratio, so that a ratio that overflows does not turn a zero gradient into NaN.
    ceiling, floor = (centre + clip).log(), (centre - clip).clamp(min=0.0).log()
    low, high = log_ratios < floor, log_ratios > ceiling
    bounded = torch.where(
        advantages < 0,
        torch.where(low, floor, log_ratios),
        torch.where(high, ceiling, log_ratios),
    )
    return segments.fill(bounded.exp() * advantages)
