"""Estimators whose expectation is known exactly: REINFORCE and its importance-weighted forms."""

from torch import Tensor

from reweigh.core import returns, surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments


def reinforce(
    log_prob_target: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
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
        divisor: Instead of `N`.

    Returns:
        Scalar. With `φ = θ`, `per_decision`, `step` and `trajectory` equal it on every batch.
    """
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    objective = surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments)
    return loss(objective, segments, divisor=divisor)


def seed(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Prefix weights on the logged reward-to-go: `ĝ = (1/N) Σ_i Σ_t w_t G_t score_t`.

    Visits states as the target would and continues as the behaviour did: its expectation is
    `Σ_t E_{s~d_t^θ, a~π_θ}[Q_t^φ score]`, undiscounted over time. That is the gradient of no
    function; at `φ = θ` it is the usual deep-RL policy gradient without `γ^t`. Second moment: grows
    exponentially in `T`. To first order in `φ - θ` it removes half of the bias that `step` has;
    `per_decision` removes the other half at the same price. Use it for fidelity to the formula, or
    where the behaviour's continuation is meant.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].
        divisor: Instead of `N`.

    Returns:
        Scalar. With one step an episode it equals `step`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    prefix = weights.prefix(ratios, segments).exp()
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    objective = surrogates.weighted_log_prob(log_prob_target, prefix, continuation, segments)
    return loss(objective, segments, divisor=divisor)


def per_decision(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
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
        divisor: Instead of `N`.

    Returns:
        Scalar. Its gradient is that of `-(1/N) Σ_i Σ_t γ^t w_t r_t` with `w` differentiated.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    prefix = weights.prefix(ratios, segments)
    continuation = returns.weighted_reward_to_go(rewards, prefix, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    objective = surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments)
    return loss(objective, segments, divisor=divisor)


def step(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
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
        divisor: Instead of `N`.

    Returns:
        Scalar. With `φ = θ` it equals `reinforce`.
    """
    ratio = weights.step(log_ratios(log_prob_target, log_prob_behaviour, segments), segments).exp()
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    discounted = returns.discount_from_start(segments, discount=discount) * continuation
    objective = surrogates.weighted_log_prob(log_prob_target, ratio, discounted, segments)
    return loss(objective, segments, divisor=divisor)


def trajectory(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Whole-trajectory weights: `ĝ = (1/N) Σ_i W Σ_t γ^t G_t score_t`.

    Precup et al. 2000, section 2, for the weights; each reward goes to the steps before it.
    Unbiased for `∇J_γ(θ)`. Second moment: grows exponentially in `T`, and usually beyond that of
    `per_decision`, to which it is equal if the only reward is at the end. The reference that every
    other correction is a reduction of.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].
        divisor: Instead of `N`.

    Returns:
        Scalar. With one step an episode it equals `step`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    whole = weights.trajectory(ratios, segments).exp()
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    discounted = returns.discount_from_start(segments, discount=discount) * continuation
    objective = surrogates.weighted_log_prob(log_prob_target, whole, discounted, segments)
    return loss(objective, segments, divisor=divisor)


def state_marginal(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    log_state_ratios: Tensor,
    action_values: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Ratio of the states, times that of the step: `ĝ = (1/N) Σ_i Σ_t γ^t m_t ρ_t Q_t score_t`.

    Liu et al. 2019 (OPPOSD) with the states' ratio by time. With the true `m_t = d_t^θ/d_t^φ` and
    `Q^θ` it is unbiased for `∇J_γ(θ)`; with estimates (`core.marginal` has both from the same log),
    consistent as they are. Second moment: that of `m ρ`, which does not grow with `T`, where that
    of every product of ratios does. Use it for long horizons, where states can be counted or
    described by features.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        log_state_ratios: `[S]`, `log m_t(s_t)`; a constant.
        action_values: `[S]`, `Q(s_t, a_t)`, or above a baseline of the state; a constant.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        divisor: Instead of `N`.

    Returns:
        Scalar. With `m = 1` and the logged reward-to-go it is `step`.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    marginal = weights.state_marginal(ratios, log_state_ratios, segments).exp()
    values = segments.as_float64("action_values", action_values)
    discounted = returns.discount_from_start(segments, discount=discount) * values
    objective = surrogates.weighted_log_prob(log_prob_target, marginal, discounted, segments)
    return loss(objective, segments, divisor=divisor)
