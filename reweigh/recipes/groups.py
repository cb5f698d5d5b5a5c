"""Estimators that compare the answers to one prompt: an episode is an answer, a step a token.

`A_i` is what answer `i` of `T_i` tokens is worth beside the others of its group. Every recipe takes
advantages (`[N]`, or `[S]`, whoever computed them), or the answers' returns and groups as
`Grouped`, and then compares them as its paper does. A penalty from a reference (`surrogates.kl_k3`
times a coefficient) is subtracted from an objective before `loss`.

Where a batch comes in parts, compute the advantages over the whole batch and pass every part the
whole batch's `divisor`. Where answers lie in several rows or on several ranks
(`Sample.with_totals`), they are counted and compared as whole answers: `[N]` then is a number for
each of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh.core import surrogates, weights
from reweigh.core.advantages import group_centred, group_relative, leave_one_out
from reweigh.core.reduce import count_steps
from reweigh.core.sample import Sample
from reweigh.recipes.composing import weighted_score
from reweigh.recipes.expectation import BIASED, UNBIASED, Identity
from reweigh.recipes.recipe import gradient
from reweigh.recipes.trust_region import ppo


class Grouped(NamedTuple):
    """Answers' returns, and which of them answer one prompt."""

    returns: Tensor
    """`[N]`: the return (reward, score) of each answer."""
    group: Tensor
    """`[N]` int64 in [0, groups): the prompt of each answer."""
    groups: int
    """How many prompts there are."""


def trained_tokens(sample: Sample) -> Tensor:
    """The divisor of a mean over tokens: steps that are trained on, of whole answers, a scalar."""
    if sample.totals is not None:
        return sample.totals.trained_steps.sum()
    return count_steps(sample.segments, sample.trained)


def _answers(
    sample: Sample,
    advantages: Tensor | Grouped,
    compared: Callable[..., Tensor] = group_relative,
) -> Tensor:
    """Advantages of the steps, `[S]`: as given, or of returns that are compared in their groups."""
    if isinstance(advantages, Grouped):
        advantages = compared(advantages.returns, advantages.group, groups=advantages.groups)
    if isinstance(advantages, Tensor) and advantages.shape == (sample.episodes,):
        each = advantages if sample.episode is None else advantages[sample.episode]
        return sample.segments.spread(each.detach().double())
    return sample.steps("advantages", advantages).detach()


def _over_answer(sample: Sample, x: Tensor) -> Tensor:
    """`x_t / T_i`: what sums to the mean over the answer's trained tokens, `[S]`."""
    return x / sample.segments.spread(sample.trained_steps).clamp(min=1)


def _by_length(sample: Sample, advantages: Tensor | Grouped) -> Tensor:
    return ppo(sample, _over_answer(sample, _answers(sample, advantages)))


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity("ppo with the advantages A_i / T_i", {"clip": 0.2}, _by_length),
)
def grpo(sample: Sample, advantages: Tensor | Grouped, *, clip: float = 0.2) -> Tensor:
    """GRPO: `(1/N) Σ_i (1/T_i) Σ_t min(ρ_t A_i, clip(ρ_t, 1-ε, 1+ε) A_i)`.

    Shao et al. 2024, equation 3, with `A_i = (R_i - mean_g) / std_g`. Biased even at `φ = θ`: by
    the group's deviation and by `1/T_i`; away from it by the clip and by one ratio standing for the
    tokens before it. Second moment: does not grow with `T`. Use it to compare with what is
    published; `dr_grpo` does without the first two.

    Args:
        advantages: `[N]`, `[S]`, or `Grouped` returns.
        clip: ε, above 0.

    Returns:
        `[S]`. With answers of one length `T` it is `dapo` with a symmetric clip.
    """
    a = _answers(sample, advantages)
    objective = surrogates.clipped_ratio(sample.log_ratios, a, sample.segments, clip=clip)
    return _over_answer(sample, objective)


@gradient(
    BIASED,
    on_policy=UNBIASED._replace(factor=lambda size: (size - 1) / size),
)
def dr_grpo(
    sample: Sample, advantages: Tensor | Grouped, *, clip: float = 0.2, horizon: int = 1
) -> Tensor:
    """Dr. GRPO: `(1/(N H)) Σ_i Σ_t min(ρ_t A_i, clip(ρ_t, 1-ε, 1+ε) A_i)`.

    Liu et al. 2025, section 3.2, with `A_i = R_i - mean_g`: no deviation and no length in a
    divisor. At `φ = θ` its expectation is `(n-1)/(n H)` times the gradient of the mean return, for
    groups of `n`; elsewhere biased by the clip and by one ratio standing for the tokens before it.
    Second moment: does not grow with `T`. Use it where answers differ in length and prompts in
    difficulty.

    Args:
        advantages: `[N]`, `[S]`, or `Grouped` returns.
        clip: ε, above 0.
        horizon: `H`, the longest answer that was allowed; a constant, not the batch's longest.

    Returns:
        `[S]`. At `φ = θ`, times `H n/(n-1)`, its gradient is that of `rloo`.
    """
    a = _answers(sample, advantages, group_centred)
    return surrogates.clipped_ratio(sample.log_ratios, a, sample.segments, clip=clip) / horizon


def _over_tokens(sample: Sample, advantages: Tensor | Grouped) -> Tensor:
    return ppo(sample, _answers(sample, advantages), divisor=trained_tokens(sample), clip_high=0.28)


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity("ppo with the answers' advantages, a mean over tokens", {}, _over_tokens),
    divisor=trained_tokens,
)
def dapo(
    sample: Sample, advantages: Tensor | Grouped, *, clip: float = 0.2, clip_high: float = 0.28
) -> Tensor:
    """DAPO: `(1/Σ_i T_i) Σ_i Σ_t min(ρ_t A_i, clip(ρ_t, 1-ε, 1+ε') A_i)`.

    Yu et al. 2025, equation 8: GRPO with a higher ceiling, `ε' > ε`, which leaves unlikely tokens
    room to grow, and a mean over tokens instead of one over answers. Biased as `grpo`, with a ratio
    of sums in place of `1/T_i` (consistent for the gradient over the mean length, but for the
    deviation and the clip). Second moment: does not grow with `T`. Use it where GRPO no longer
    explores. The paper drops groups whose returns all agree when it samples; their advantages are 0
    here.

    Args:
        advantages: `[N]`, `[S]`, or `Grouped` returns.
        clip: ε, above 0.
        clip_high: ε', above 0.

    Returns:
        `[S]`. With answers of one length and `ε' = ε` it is `grpo`.
    """
    return surrogates.clipped_ratio(
        sample.log_ratios,
        _answers(sample, advantages),
        sample.segments,
        clip=clip,
        clip_high=clip_high,
    )


@gradient(BIASED, on_policy=UNBIASED)
def rloo(sample: Sample, advantages: Tensor | Grouped) -> Tensor:
    """RLOO: `ĝ = (1/N) Σ_i (R_i - mean_{j∈g, j≠i} R_j) Σ_t score_t`.

    Kool et al. 2019; Ahmadian et al. 2024. Unbiased for the gradient of the mean return on fresh
    answers, `φ = θ`; groups of one give 0. No weight, so no second moment to grow. On stale answers
    multiply the advantages by the weights of whole answers, `sample.log_trajectory.exp()`, or take
    `topr`.

    Args:
        sample: The answers; the behaviour's log-probabilities are not read.
        advantages: `[N]`, `[S]`, or `Grouped` returns.

    Returns:
        `[S]`. A constant added to the returns of a group changes nothing.
    """
    return weighted_score(
        sample, 1.0, _answers(sample, advantages, leave_one_out), discounted=False
    )


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity(
        "grpo", {}, lambda sample, advantages: grpo(sample, advantages), on_policy=True
    ),
)
def gspo(
    sample: Sample, advantages: Tensor | Grouped, *, clip: float = 3e-4, clip_high: float = 4e-4
) -> Tensor:
    """GSPO: `(1/N) Σ_i min(s_i A_i, clip(s_i, 1-ε, 1+ε') A_i)`, `s_i = (Π_t ρ_t)^(1/T_i)`.

    Zheng et al. 2025, equation 5, with the paper's clips. The geometric mean moves little and does
    not grow with `T`, and it is no importance weight: nothing is unbiased away from `φ = θ`, where
    its gradient is that of `grpo`. Use it where single tokens' ratios are noise, as with mixtures
    of experts.

    Args:
        advantages: `[N]`, `[S]`, or `Grouped` returns.
        clip: ε, above 0.
        clip_high: ε', above 0.

    Returns:
        `[S]`. With answers of one token it is `grpo`, if `ε' = ε`.
    """
    sequence = sample.segments.spread(sample.log_geometric_mean)
    objective = surrogates.clipped_ratio(
        sequence, _answers(sample, advantages), sample.segments, clip=clip, clip_high=clip_high
    )
    return _over_answer(sample, objective)


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity(
        "dapo", {}, lambda sample, advantages: dapo(sample, advantages), on_policy=True
    ),
    divisor=trained_tokens,
)
def cispo(
    sample: Sample,
    advantages: Tensor | Grouped,
    *,
    maximum: float = 1.28,
    minimum: float = 0.0,
) -> Tensor:
    """CISPO: `(1/Σ_i T_i) Σ_i Σ_t sg(min(max(ρ_t, c), c')) A_i log π_θ(a_t|s_t)`.

    MiniMax 2025 (M1), equation 4: the clip bounds a weight instead of ending a gradient, so every
    token keeps its score. Biased by the clip, by the group's deviation and by one ratio standing
    for the tokens before it. Weights never exceed `c'`. Use it where PPO's clip silences the rare
    tokens that matter.

    Args:
        advantages: `[N]`, `[S]`, or `Grouped` returns.
        maximum: `c'`, above 0 (not its distance from 1).
        minimum: `c`, at least 0.

    Returns:
        `[S]`. At `φ = θ` its gradient is that of `dapo`.
    """
    bounded = weights.clip(sample.log_ratios, sample.segments, minimum=minimum, maximum=maximum)
    return weighted_score(
        sample, bounded.log_weights.exp(), _answers(sample, advantages), discounted=False
    )


@gradient(BIASED, on_policy=UNBIASED)
def topr(sample: Sample, advantages: Tensor | Grouped) -> Tensor:
    """TOPR: `ĝ = (1/N) Σ_i α_i A_i Σ_t score_t`, `α_i = 1` if `A_i ≥ 0`, else `min(1, W_i)`.

    Le Roux et al. 2025 (Tapered Off-Policy REINFORCE): answers with an advantage of 0 or more are
    imitated as they are; the others are pushed down only as far as the target still gives them, by
    the trajectory's truncated product. Biased, and stable for any behaviour: no weight exceeds 1,
    and the objective of the negative ones is bounded. Use it for answers that are old, or not one's
    own.

    Args:
        sample: The answers; whole answers.
        advantages: `[N]` or `[S]`, signed: returns after whatever baseline; `Grouped` returns are
            compared with the others of their group, `leave_one_out`.

    Returns:
        `[S]`. At `φ = θ` it is REINFORCE with these advantages.
    """
    segments = sample.segments
    whole = segments.spread(sample.log_trajectory)
    tapered = weights.truncate(whole, segments, maximum=1.0).log_weights.exp()
    a = _answers(sample, advantages, leave_one_out)
    return weighted_score(sample, torch.where(a < 0, tapered, 1.0), a, discounted=False)
