"""Estimators for a sampler that is not the trainer: older, or computing other numbers.

Three policies take part: the target `π_θ`; the proximal `π_old`, which the update begins from, a
constant; and the behaviour `μ`, which sampled. The loss is a mean over tokens: where a batch comes
in parts, pass every part the whole batch's `divisor`.
"""

import math
from dataclasses import replace

from torch import Tensor

from reweigh.core import surrogates, weights
from reweigh.core.sample import Sample
from reweigh.recipes.expectation import BIASED, Identity
from reweigh.recipes.groups import trained_tokens
from reweigh.recipes.recipe import gradient
from reweigh.recipes.trust_region import ppo


def _weighted_ppo(
    sample: Sample,
    log_prob_proximal: Tensor,
    advantages: Tensor,
    log_weights: Tensor,
    clip: float,
) -> Tensor:
    """PPO's surrogate of `π_θ/π_old`, each step times a weight, a constant."""
    proximal = sample.log_prob("log_prob_proximal", log_prob_proximal)
    return surrogates.clipped_ratio(
        sample.log_prob_target - proximal,
        sample.steps("advantages", advantages),
        sample.segments,
        clip=clip,
        log_weights=log_weights,
    )


def _mismatch(sample: Sample, log_prob_proximal: Tensor) -> Tensor:
    """`log(π_old/μ)`, `[S]`."""
    proximal = sample.log_prob("log_prob_proximal", log_prob_proximal)
    return proximal - sample.require_behaviour()


def _without_mismatch(sample: Sample, log_prob_proximal: Tensor, advantages: Tensor) -> Tensor:
    proximal = replace(sample, log_prob_behaviour=log_prob_proximal)
    return ppo(proximal, advantages, divisor=trained_tokens(sample))


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity(
        "with π_old = μ, ppo as a mean over tokens", {}, _without_mismatch, on_policy=True
    ),
    divisor=trained_tokens,
)
def tis(
    sample: Sample,
    log_prob_proximal: Tensor,
    advantages: Tensor,
    *,
    clip: float = 0.2,
    maximum: float = 2.0,
) -> Tensor:
    """Truncated importance sampling: `min(c, π_old/μ)` times PPO's surrogate of `π_θ/π_old`.

    Yao et al. 2025 ("Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"): the
    sampler computes other probabilities than the trainer, and the weight undoes that once; what the
    update changes, the clip bounds. Biased by both, and by one ratio standing for the tokens before
    it. Weights never exceed `c (1 + ε)` where the advantage is positive. Use it where sampler and
    trainer nominally are one policy.

    Args:
        log_prob_proximal: `[S]`, under the policy that the update begins from.
        advantages: `[S]`; a constant.
        clip: ε, above 0.
        maximum: `c`, above 0.

    Returns:
        `[S]`. With `π_old = μ` and `c ≥ 1` it is `ppo`, but for the divisor.
    """
    mismatch = _mismatch(sample, log_prob_proximal)
    bounded = weights.truncate(mismatch, sample.segments, maximum=maximum).log_weights
    return _weighted_ppo(sample, log_prob_proximal, advantages, bounded, clip)


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity(
        "tis with an infinite maximum",
        {},
        lambda sample, log_prob_proximal, advantages: tis(
            sample, log_prob_proximal, advantages, maximum=math.inf
        ),
    ),
    divisor=trained_tokens,
)
def decoupled_ppo(
    sample: Sample, log_prob_proximal: Tensor, advantages: Tensor, *, clip: float = 0.2
) -> Tensor:
    """Decoupled PPO: `π_old/μ` times PPO's surrogate of `π_θ/π_old`.

    Hilton et al. 2022, equation 2; Fu et al. 2025 (AReaL). The trust region is around a recent
    policy, whatever older one sampled. Until it clips, the two ratios make `π_θ/μ`, and it is
    `trpo` but for the divisor; biased beyond. Second moment: that of one ratio, which does not grow
    with `T` but has no bound; `tis` has one. Use it where rollouts are a few versions old.

    Args:
        log_prob_proximal: `[S]`.
        advantages: `[S]`; a constant.
        clip: ε, above 0.

    Returns:
        `[S]`. It is `tis` with an infinite maximum.
    """
    mismatch = _mismatch(sample, log_prob_proximal)
    return _weighted_ppo(sample, log_prob_proximal, advantages, mismatch, clip)


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity(
        "with a band that holds every weight, decoupled_ppo",
        {"minimum": 0.0, "maximum": math.inf},
        lambda sample, log_prob_proximal, advantages: decoupled_ppo(
            sample, log_prob_proximal, advantages
        ),
    ),
    divisor=trained_tokens,
)
def icepop(
    sample: Sample,
    log_prob_proximal: Tensor,
    advantages: Tensor,
    *,
    clip: float = 0.2,
    minimum: float = 0.5,
    maximum: float = 5.0,
) -> Tensor:
    """Masked importance sampling: `π_old/μ`, or 0 outside `[c, c']`, times PPO's surrogate.

    Ling Team 2025 (IcePop), on tokens: where sampler and trainer disagree beyond a band, the token
    is left out instead of being truncated, as `tis` does. Rejected tokens still count in the
    divisor; pass `count_steps(segments, kept_steps)` to make up for them. Biased by the band, the
    clip, and one ratio standing for the tokens before it. Weights never exceed `c' (1 + ε)` where
    the advantage is positive. For a mask of whole answers, compose `weights.mask_outside` with
    `weights.trajectory` or `weights.geometric_mean`.

    Args:
        log_prob_proximal: `[S]`.
        advantages: `[S]`; a constant.
        clip: ε, above 0.
        minimum: `c`, at least 0.
        maximum: `c'`, above 0.

    Returns:
        `[S]`. With a band that holds every weight it is `decoupled_ppo`.
    """
    mismatch = _mismatch(sample, log_prob_proximal)
    masked = weights.mask_outside(mismatch, sample.segments, minimum=minimum, maximum=maximum)
    return _weighted_ppo(sample, log_prob_proximal, advantages, masked.log_weights, clip)
