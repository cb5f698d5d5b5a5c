"""Published estimators, each a composition of the stages in `reweigh.core`.

Every recipe returns a scalar loss whose negative gradient is the estimate `ĝ` of its formula:
`N` episodes sampled by `π_φ`, `ρ_t = π_θ(a_t|s_t) / π_φ(a_t|s_t)`, `w_t = Π_{k≤t} ρ_k`,
`W = w_{T-1}`, `G_t = Σ_{t'≥t} γ^(t'-t) r_t'`, `score_t = ∇_θ log π_θ(a_t|s_t)`. What is said of its
expectation is exact and is checked by enumerating every trajectory of three small problems
(`reweigh verify`). "Second moment" is that of the weight, as the horizon `T` grows.

To change a part (truncate the weights, drop `γ^t`, add a baseline), write the recipe's few lines
anew with other parts. All of them raise a `ValueError` for a wrong shape, a half-precision
log-probability or a knob out of range, and those with prefix or trajectory weights for fragments,
which need `log_weight_start` (see `core.weights.prefix`).
"""

import torch
from torch import Tensor

from reweigh.core import advantages as adv
from reweigh.core import returns, surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments


def reinforce(
    log_prob_target: Tensor, rewards: Tensor, segments: Segments, *, discount: float
) -> Tensor:
    """REINFORCE, without any correction: `ĝ = (1/N) Σ_i Σ_t γ^t G_t score_t`.

    Williams 1992. Unbiased for `∇J_γ(θ)` only while `φ = θ`. On older data its expectation is no
    gradient, and even a baseline that depends on the state alone changes it. No weight, so no
    second moment to grow. Use it on fresh data, and as what the others must reduce to.

    Args:
        log_prob_target: `[S]`, differentiated.
        rewards: `[S]`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].

    Returns:
        Scalar. With `φ = θ`, `per_decision`, `step` and `trajectory` equal it on every batch.
    """
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    return loss(
        surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments), segments
    )


def seed(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
) -> Tensor:
    """Prefix weights on the logged reward-to-go: `ĝ = (1/N) Σ_i Σ_t w_t G_t score_t`.

    Visits states as the target would and continues as the behaviour did: its expectation is
    `Σ_t E_{s~d_t^θ, a~π_θ}[Q_t^φ score]`, undiscounted over time. That is the gradient of no
    function; at `φ = θ` it is the usual deep-RL policy gradient without `γ^t`. Second moment: grows
    exponentially in `T`. To first order in `φ - θ` it removes half of the bias that `step` has;
    `per_decision` removes the other half at the same price.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].

    Returns:
        Scalar. With `γ = 1` and one step an episode it equals `step`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    prefix = weights.prefix(ratios, segments).exp()
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    return loss(
        surrogates.weighted_log_prob(log_prob_target, prefix, continuation, segments), segments
    )


def per_decision(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
) -> Tensor:
    """Per-decision importance sampling: `ĝ = (1/N) Σ_i Σ_t (Σ_{t'≥t} γ^t' w_t' r_t') score_t`.

    Precup et al. 2000 for the weights; the policy gradient is off-policy GPOMDP. Unbiased for
    `∇J_γ(θ)`, whatever the behaviour, as long as it can take every action the target can. Second
    moment: grows exponentially in `T`. The default where horizons are short or policies close.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].

    Returns:
        Scalar. Its gradient is that of `-(1/N) Σ_i Σ_t γ^t w_t r_t` with `w` differentiated.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    prefix = weights.prefix(ratios, segments)
    continuation = returns.per_decision(rewards, prefix, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    return loss(
        surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments), segments
    )


def step(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
) -> Tensor:
    """One ratio a step on the logged reward-to-go: `ĝ = (1/N) Σ_i Σ_t γ^t ρ_t G_t score_t`.

    Unbiased for the gradient of the surrogate of TRPO (Schulman et al. 2015), which keeps the
    behaviour's states and values, not for `∇J_γ(θ)`. Second moment: does not grow with `T`. Use it
    for small steps away from the behaviour.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].

    Returns:
        Scalar. With `φ = θ` it equals `reinforce`.
    """
    ratio = weights.step(log_ratios(log_prob_target, log_prob_behaviour, segments), segments).exp()
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    return loss(
        surrogates.weighted_log_prob(log_prob_target, from_start * ratio, continuation, segments),
        segments,
    )


def trajectory(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
) -> Tensor:
    """Whole-trajectory weights: `ĝ = (1/N) Σ_i W Σ_t γ^t G_t score_t`.

    Unbiased for `∇J_γ(θ)`. Second moment: grows exponentially in `T`, and usually beyond that of
    `per_decision`, to which it is equal if the only reward is at the end. The reference that every
    other correction is a reduction of.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].

    Returns:
        Scalar. With one step an episode it equals `step`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    whole = weights.trajectory(ratios, segments).exp()
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    return loss(
        surrogates.weighted_log_prob(log_prob_target, from_start * whole, continuation, segments),
        segments,
    )


def vtrace(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
) -> Tensor:
    """IMPALA's policy gradient: `ĝ = (1/N) Σ_i Σ_t min(1, ρ_t) (r_t + γ v_{t+1} - V_t) score_t`.

    Espeholt et al. 2018, section 4.2, with `v` the V-trace target and all thresholds at 1; without
    `γ^t`, as in the paper. Biased: it keeps the behaviour's states, and `v` is the value of a
    policy between the two. Weights never exceed 1. Use it for long horizons with a learned critic.
    The critic regresses on `core.advantages.vtrace(...).targets`.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`; a constant here.
        bootstrap: `[N]`, the value after each episode's last step: 0 where it terminated.
        segments: Where the episodes lie.
        discount: γ in [0, 1].

    Returns:
        Scalar. With `φ = θ` the advantage is that of `gae` with λ = 1.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    trace = adv.vtrace(rewards, values, bootstrap, ratios, segments, discount=discount)
    unit = torch.ones_like(trace.advantages)
    return loss(
        surrogates.weighted_log_prob(log_prob_target, unit, trace.advantages, segments), segments
    )


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
