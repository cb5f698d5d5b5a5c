"""Estimators for a sampler that is not the trainer: older, or computing other numbers.

Three policies take part: the target `π_θ`, the proximal `π_old`, which the update begins from, and
the behaviour `μ`, which sampled. Where a batch comes in parts, pass every part the whole batch's
`divisor`.
"""

import math

import torch
from torch import Tensor

from reweigh.core import surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import count_steps, loss
from reweigh.core.segments import Segments


def tis(
    log_prob_target: Tensor,
    log_prob_proximal: Tensor,
    log_prob_behaviour: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    clip: float,
    maximum: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Truncated importance sampling: `min(c, π_old/μ)` times PPO's surrogate of `π_θ/π_old`.

    Yao et al. 2025 ("Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"): the
    sampler computes other probabilities than the trainer, and the weight undoes that once; what the
    update changes, the clip bounds. Biased by both, and by one ratio standing for the tokens before
    it. Weights never exceed `c (1 + ε)` where the advantage is positive. Use it where sampler and
    trainer nominally are one policy.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_proximal: `[S]`, under the policy that the update begins from; a constant.
        log_prob_behaviour: `[S]`, as the sampler recorded it.
        advantages: `[S]`; a constant.
        segments: Where the answers lie.
        clip: ε, above 0.
        maximum: `c`, above 0.
        divisor: Instead of the number of tokens.

    Returns:
        Scalar. With `π_old = μ` and `c ≥ 1` it is `ppo`, but for the divisor.
    """
    mismatch = log_ratios(log_prob_proximal.detach(), log_prob_behaviour, segments)
    bounded = weights.truncate(mismatch, segments, maximum=maximum).log_weights
    ratios = log_ratios(log_prob_target, log_prob_proximal, segments)
    objective = surrogates.clipped_ratio(
        ratios, advantages, segments, clip=clip, log_weights=bounded
    )
    return loss(objective, segments, divisor=count_steps(segments) if divisor is None else divisor)


def decoupled_ppo(
    log_prob_target: Tensor,
    log_prob_proximal: Tensor,
    log_prob_behaviour: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    clip: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Decoupled PPO: `π_old/μ` times PPO's surrogate of `π_θ/π_old`.

    Hilton et al. 2022, equation 2; Fu et al. 2025 (AReaL). The trust region is around a recent
    policy, whatever older one sampled. Until it clips, the two ratios make `π_θ/μ`, and it is
    `trpo` but for the divisor; biased beyond. Second moment: that of one ratio, which does not grow
    with `T` but has no bound; `tis` has one. Use it where rollouts are a few versions old.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_proximal: `[S]`; a constant.
        log_prob_behaviour: `[S]`.
        advantages: `[S]`; a constant.
        segments: Where the answers lie.
        clip: ε, above 0.
        divisor: Instead of the number of tokens.

    Returns:
        Scalar. It is `tis` with an infinite maximum.
    """
    return tis(
        log_prob_target,
        log_prob_proximal,
        log_prob_behaviour,
        advantages,
        segments,
        clip=clip,
        maximum=math.inf,
        divisor=divisor,
    )


def icepop(
    log_prob_target: Tensor,
    log_prob_proximal: Tensor,
    log_prob_behaviour: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    clip: float,
    minimum: float,
    maximum: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Masked importance sampling: `π_old/μ`, or 0 outside `[c, c']`, times PPO's surrogate.

    Ling Team 2025 (IcePop), on tokens: where sampler and trainer disagree beyond a band, the token
    is left out instead of being truncated, as `tis` does. Rejected tokens still count in the
    divisor; pass `count_steps(segments, kept)` to make up for them. Biased by the band, the clip,
    and one ratio standing for the tokens before it. Weights never exceed `c' (1 + ε)` where the
    advantage is positive. For a mask of whole answers, compose `weights.mask_outside` with
    `weights.trajectory` or `weights.geometric_mean`.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_proximal: `[S]`, under the policy that the update begins from; a constant.
        log_prob_behaviour: `[S]`, as the sampler recorded it.
        advantages: `[S]`; a constant.
        segments: Where the answers lie.
        clip: ε, above 0.
        minimum: `c`, at least 0.
        maximum: `c'`, above 0.
        divisor: Instead of the number of tokens.

    Returns:
        Scalar. With a band that holds every weight it is `decoupled_ppo`.
    """
    mismatch = log_ratios(log_prob_proximal.detach(), log_prob_behaviour, segments)
    masked = weights.mask_outside(mismatch, segments, minimum=minimum, maximum=maximum).log_weights
    ratios = log_ratios(log_prob_target, log_prob_proximal, segments)
    objective = surrogates.clipped_ratio(
        ratios, advantages, segments, clip=clip, log_weights=masked
    )
    return loss(objective, segments, divisor=count_steps(segments) if divisor is None else divisor)


def topr(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    scores: Tensor,
    segments: Segments,
    *,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """TOPR: `ĝ = (1/N) Σ_i α_i score_i Σ_t ∇log π_θ(a_t|s_t)`, `α_i = 1` or `min(1, W_i)`.

    Le Roux et al. 2025 (Tapered Off-Policy REINFORCE): answers with a score of 0 or more are
    imitated as they are; those with a negative score are pushed down only as far as the target
    still gives them, by the trajectory's truncated product. Biased, and stable for any behaviour:
    no weight exceeds 1, and the objective of the negative ones is bounded. Use it for answers that
    are old, or not one's own.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        scores: `[N]`, signed: after whatever baseline.
        segments: Where the answers lie; whole answers.
        divisor: Instead of `N`.

    Returns:
        Scalar. With `φ = θ` it is REINFORCE with the scores.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    whole = weights.trajectory(ratios, segments)
    tapered = weights.truncate(whole, segments, maximum=1.0).log_weights.exp()
    advantages = segments.spread(segments.episodes_as_float64("scores", scores))
    alpha = torch.where(advantages < 0, tapered, 1.0)
    objective = surrogates.weighted_log_prob(log_prob_target, alpha, advantages, segments)
    return loss(objective, segments, divisor=divisor)
