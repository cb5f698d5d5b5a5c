"""Estimators that compare the answers to one prompt: an episode is an answer, a step a token.

`score_i` is one number for a whole answer of `T_i` tokens, and `A_i` what it is worth beside the
other answers of its group. A penalty from a reference (`surrogates.kl_k3` times a coefficient) is
subtracted from an objective before `loss`.

Where a batch comes in parts, keep groups whole and pass every part the whole batch's `divisor`; the
docstring says what is divided by otherwise.
"""

import torch
from torch import Tensor

from reweigh.core import advantages as adv
from reweigh.core import surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import count_steps, loss, per_episode_mean
from reweigh.core.segments import Segments


def grpo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    scores: Tensor,
    group: Tensor,
    segments: Segments,
    *,
    groups: int,
    clip: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """GRPO: `-(1/N) Σ_i (1/T_i) Σ_t min(ρ_t A_i, clip(ρ_t, 1-ε, 1+ε) A_i)`.

    Shao et al. 2024, equation 3, with `A_i = (score_i - mean_g) / std_g`. Biased even
    at `φ = θ`: by the group's deviation and by `1/T_i`; away from it by the clip and by one ratio
    standing for the tokens before it. Second moment: does not grow with `T`. Use it to compare with
    what is published; `dr_grpo` does without the first two.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        scores: `[N]`, one for each answer.
        group: `[N]` int64 in [0, groups): the prompt of each answer.
        segments: Where the answers lie.
        groups: How many prompts there are.
        clip: ε, above 0.
        divisor: Instead of `N`.

    Returns:
        Scalar. With answers of one length `T` it is `dapo` with a symmetric clip.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    advantages = segments.spread(
        adv.group_relative(segments.episodes_as_float64("scores", scores), group, groups=groups)
    )
    objective = surrogates.clipped_ratio(ratios, advantages, segments, clip=clip)
    return loss(per_episode_mean(objective, segments), segments, divisor=divisor)


def dr_grpo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    scores: Tensor,
    group: Tensor,
    segments: Segments,
    *,
    groups: int,
    clip: float,
    horizon: int,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Dr. GRPO: `-(1/(N H)) Σ_i Σ_t min(ρ_t A_i, clip(ρ_t, 1-ε, 1+ε) A_i)`.

    Liu et al. 2025, section 3.2, with `A_i = score_i - mean_g`: no deviation and no length in a
    divisor. At `φ = θ` its
    expectation is `(n-1)/(n H)` times the gradient of the mean score, for groups of `n`; elsewhere
    biased by the clip and by one ratio standing for the tokens before it. Second moment: does not
    grow with `T`. Use it where answers differ in length and prompts in difficulty.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        scores: `[N]`, one for each answer.
        group: `[N]` int64 in [0, groups): the prompt of each answer.
        segments: Where the answers lie.
        groups: How many prompts there are.
        clip: ε, above 0.
        horizon: `H`, the longest answer that was allowed; a constant, not the batch's longest.
        divisor: Instead of `N`.

    Returns:
        Scalar. At `φ = θ`, times `H n/(n-1)`, its gradient is that of `rloo`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    advantages = segments.spread(
        adv.group_centred(segments.episodes_as_float64("scores", scores), group, groups=groups)
    )
    objective = surrogates.clipped_ratio(ratios, advantages, segments, clip=clip)
    divisor = len(segments) if divisor is None else divisor
    return loss(objective, segments, divisor=divisor * horizon)


def dapo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    scores: Tensor,
    group: Tensor,
    segments: Segments,
    *,
    groups: int,
    clip: float,
    clip_high: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """DAPO: `-(1/Σ_i T_i) Σ_i Σ_t min(ρ_t A_i, clip(ρ_t, 1-ε, 1+ε') A_i)`.

    Yu et al. 2025, equation 8: GRPO with a higher ceiling, `ε' > ε`, which leaves unlikely tokens
    room to grow, and a mean over tokens instead of one over answers. Biased as `grpo`, with a ratio
    of sums in place of `1/T_i` (consistent for the gradient over the mean length, but for the
    deviation and the clip). Second moment: does not grow with `T`. Use it where GRPO no longer
    explores. Dropping groups whose scores all agree, as the paper does, is the sampler's matter:
    their advantages are 0.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        scores: `[N]`, one for each answer.
        group: `[N]` int64 in [0, groups): the prompt of each answer.
        segments: Where the answers lie.
        groups: How many prompts there are.
        clip: ε, above 0.
        clip_high: ε', above 0.
        divisor: Instead of the number of tokens.

    Returns:
        Scalar. With answers of one length and `ε' = ε` it is `grpo`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    advantages = segments.spread(
        adv.group_relative(segments.episodes_as_float64("scores", scores), group, groups=groups)
    )
    objective = surrogates.clipped_ratio(
        ratios, advantages, segments, clip=clip, clip_high=clip_high
    )
    return loss(objective, segments, divisor=count_steps(segments) if divisor is None else divisor)


def rloo(
    log_prob_target: Tensor,
    scores: Tensor,
    group: Tensor,
    segments: Segments,
    *,
    groups: int,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """RLOO: `ĝ = (1/N) Σ_i (score_i - mean_{j∈g, j≠i} score_j) Σ_t ∇log π_θ(a_t|s_t)`.

    Kool et al. 2019; Ahmadian et al. 2024. Unbiased for the gradient of the mean score on fresh
    answers, `φ = θ`; groups of one give nothing. No weight, so no second moment to grow. On stale
    answers multiply by `weights.trajectory`, which keeps it unbiased whatever the behaviour, or
    take `topr`.

    Args:
        log_prob_target: `[S]`, differentiated.
        scores: `[N]`, one for each answer.
        group: `[N]` int64 in [0, groups): the prompt of each answer.
        segments: Where the answers lie.
        groups: How many prompts there are.
        divisor: Instead of `N`.

    Returns:
        Scalar. A constant added to the scores of a group changes nothing.
    """
    advantages = segments.spread(
        adv.leave_one_out(segments.episodes_as_float64("scores", scores), group, groups=groups)
    )
    objective = surrogates.weighted_log_prob(
        log_prob_target, torch.ones_like(advantages), advantages, segments
    )
    return loss(objective, segments, divisor=divisor)


def gspo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    scores: Tensor,
    group: Tensor,
    segments: Segments,
    *,
    groups: int,
    clip: float,
    clip_high: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """GSPO: `-(1/N) Σ_i min(s_i A_i, clip(s_i, 1-ε, 1+ε') A_i)`, `s_i = (Π_t ρ_t)^(1/T_i)`.

    Zheng et al. 2025, equation 5. The geometric mean moves little (the paper's clips are 3e-4 and
    4e-4) and does not grow with `T`, and it is no importance weight: nothing is unbiased away from
    `φ = θ`, where its gradient is that of `grpo`. Use it where single tokens' ratios are noise, as
    with mixtures of experts.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        scores: `[N]`, one for each answer.
        group: `[N]` int64 in [0, groups): the prompt of each answer.
        segments: Where the answers lie.
        groups: How many prompts there are.
        clip: ε, above 0.
        clip_high: ε', above 0.
        divisor: Instead of `N`.

    Returns:
        Scalar. With answers of one token it is `grpo`, if `ε' = ε`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    sequence = weights.geometric_mean(ratios, segments)
    advantages = segments.spread(
        adv.group_relative(segments.episodes_as_float64("scores", scores), group, groups=groups)
    )
    objective = surrogates.clipped_ratio(
        sequence, advantages, segments, clip=clip, clip_high=clip_high
    )
    return loss(per_episode_mean(objective, segments), segments, divisor=divisor)


def cispo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    scores: Tensor,
    group: Tensor,
    segments: Segments,
    *,
    groups: int,
    maximum: float,
    minimum: float = 0.0,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """CISPO: `-(1/Σ_i T_i) Σ_i Σ_t sg(min(max(ρ_t, c), c')) A_i log π_θ(a_t|s_t)`.

    MiniMax 2025 (M1), equation 4: the clip bounds a weight instead of ending a gradient, so every
    token keeps its score. Biased by the clip, by the group's deviation and by one ratio standing
    for the tokens before it. Weights never exceed `c'`. Use it where PPO's clip silences the rare
    tokens that matter.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        scores: `[N]`, one for each answer.
        group: `[N]` int64 in [0, groups): the prompt of each answer.
        segments: Where the answers lie.
        groups: How many prompts there are.
        maximum: `c'`, above 0 (not its distance from 1).
        minimum: `c`, at least 0.
        divisor: Instead of the number of tokens.

    Returns:
        Scalar. At `φ = θ` its gradient is that of `dapo`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    step = weights.clip(ratios, segments, minimum=minimum, maximum=maximum).log_weights.exp()
    advantages = segments.spread(
        adv.group_relative(segments.episodes_as_float64("scores", scores), group, groups=groups)
    )
    objective = surrogates.weighted_log_prob(log_prob_target, step, advantages, segments)
    return loss(objective, segments, divisor=count_steps(segments) if divisor is None else divisor)
