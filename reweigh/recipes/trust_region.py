"""Estimators that keep the policy near one that is known."""

from torch import Tensor

from reweigh.core import surrogates
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments


def ppo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    clip: float,
) -> Tensor:
    """PPO's clipped surrogate: `-(1/N) Σ_i Σ_t min(ρ_t A_t, clip(ρ_t, 1-ε, 1+ε) A_t)`.

    Schulman et al. 2017, equation 7, summed over steps. Biased once a ratio leaves the interval;
    before that, with logged advantages, it is `step` without `γ^t`. Weights never exceed `1 + ε`
    where the advantage is positive. Use it for several updates on nearly fresh data.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        advantages: `[S]`; a constant.
        segments: Where the episodes lie.
        clip: ε, above 0.

    Returns:
        Scalar. At `φ = θ` its gradient is that of the plain policy gradient with these advantages.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    return loss(surrogates.clipped_ratio(ratios, advantages, segments, clip=clip), segments)
