"""Estimators with a learned critic."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import advantages as adv
from reweigh.core import returns, surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments


def impala(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """IMPALA: `ĝ = (1/N) Σ_i Σ_t min(1, ρ_t) (r_t + γ v_{t+1} - V_t) score_t`.

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
        divisor: Instead of `N`.

    Returns:
        Scalar. With `φ = θ` the advantage is that of `gae` with λ = 1.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    bounded = weights.truncate(ratios, segments, maximum=1.0).log_weights
    trace = adv.vtrace(rewards, values, bootstrap, bounded, bounded, segments, discount=discount)
    unit = torch.ones_like(trace.advantages)
    objective = surrogates.weighted_log_prob(log_prob_target, unit, trace.advantages, segments)
    return loss(objective, segments, divisor=divisor)


def retrace(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    values: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Retrace actor-critic: `ĝ = (1/N) Σ_i Σ_t ρ_t (Q^ret_t - V(s_t)) score_t`.

    Degris et al. 2012 (Off-PAC) for the gradient, Munos et al. 2016, section 3, for `Q^ret`;
    without `γ^t`, as there. If the critic is `Q^θ`, its expectation is
    `Σ_t E_{s~d_t^φ, a~π_θ}[Q^θ score]`: states of the behaviour, continuation of the target. Second
    moment: that of one ratio; the traces never exceed 1. Use it with a learned `Q`, whose
    regression target is `advantages.retrace(...)` too, where single ratios stay moderate; `acer`
    bounds them.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        values: `[S]`, `V(s_t) = E_{a~θ}[Q(s_t, a)]`; a constant here.
        action_values: `[S]`, `Q(s_t, a_t)`; a constant.
        bootstrap: `[N]`, the value after each episode's last step: 0 where it terminated.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].
        divisor: Instead of `N`.

    Returns:
        Scalar. With `Q = V` and `φ = θ` the advantage is that of `gae` with the same λ.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    step = weights.step(ratios, segments).exp()
    estimate = adv.retrace(
        rewards,
        values,
        action_values,
        bootstrap,
        ratios,
        segments,
        discount=discount,
        trace_lambda=trace_lambda,
    )
    above = estimate - segments.as_float64("values", values)
    objective = surrogates.weighted_log_prob(log_prob_target, step, above, segments)
    return loss(objective, segments, divisor=divisor)


def acer(
    log_probs_target: Tensor,
    log_probs_behaviour: Tensor,
    actions: Tensor,
    rewards: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
    maximum: float = 10.0,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """ACER: truncated `ρ_t (Q^ret_t - V) score_t`, and over all actions what truncation cut off.

    Wang et al. 2017, equation 9, discrete actions: `ĝ = (1/N) Σ_i Σ_t min(c, ρ_t) (Q^ret_t - V_t)
    score_t + Σ_a [1 - c/ρ_t(a)]_+ (Q(s_t, a) - V_t) ∇π_θ(a|s_t)`. With an exact critic its
    expectation is that of `retrace`, whatever `c`; otherwise the critic's error enters where
    weights exceed `c`. No weight of the sum does. Use it for old data with a learned `Q`. The trust
    region of the paper (its section 3.3) acts on the gradient and is the optimiser's.

    Args:
        log_probs_target: `[S, A]`, of every action; differentiated.
        log_probs_behaviour: `[S, A]`.
        actions: `[S]` int64, taken.
        rewards: `[S]`.
        action_values: `[S, A]`, `Q(s_t, a)`; a constant.
        bootstrap: `[N]`, the value after each episode's last step: 0 where it terminated.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        maximum: `c`, above 0.
        divisor: Instead of `N`.

    Returns:
        Scalar. With an infinite maximum it is `retrace` with `V = Σ_a π_θ(a) Q(a)` and λ = 1.
    """
    target = _taken("log_probs_target", log_probs_target, actions, segments)
    behaviour = _taken("log_probs_behaviour", log_probs_behaviour, actions, segments)
    ratios = log_ratios(target, behaviour, segments)
    q = _taken("action_values", action_values, actions, segments).detach()
    v = _value(log_probs_target, action_values, segments)
    estimate = adv.retrace(rewards, v, q, bootstrap, ratios, segments, discount=discount)
    kept = weights.truncate(ratios, segments, maximum=maximum).log_weights.exp()
    sampled = surrogates.weighted_log_prob(target, kept, estimate - v, segments)
    every = log_probs_target.detach() - log_probs_behaviour
    cut = weights.excess(every, segments, maximum=maximum).log_weights
    above = weights.weigh(cut, action_values.detach() - v.unsqueeze(1))
    corrected = surrogates.expected_value(log_probs_target, torch.ones_like(v), above, segments)
    return loss(sampled + corrected, segments, divisor=divisor)


def doubly_robust(
    log_probs_target: Tensor,
    log_prob_behaviour: Tensor,
    actions: Tensor,
    rewards: Tensor,
    action_values: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Doubly robust: `ĝ = (1/N) Σ_i Σ_t γ^t (w_t residual_t score_t + w_{t-1} Σ_a Q̂ ∇π_θ(a|s_t))`.

    Jiang and Li 2016 for the value, Huang and Jiang 2020 for the gradient, with the critic held
    constant; discrete actions. The critic's gradient over all actions, and per-decision weights on
    what it left unexplained. Unbiased for `∇J_γ(θ)`, for every critic that does not depend on the
    data. Second moment: exponential in `T`, times the critic's error; a wrong critic can make it
    worse than none. Use it with a good critic on short horizons.

    Args:
        log_probs_target: `[S, A]`, of every action; differentiated.
        log_prob_behaviour: `[S]`, of the actions taken.
        actions: `[S]` int64, taken.
        rewards: `[S]`.
        action_values: `[S, A]`, `Q̂(s_t, a)`; a constant.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].
        divisor: Instead of `N`.

    Returns:
        Scalar. With a critic of 0 it is `per_decision`.
    """
    target = _taken("log_probs_target", log_probs_target, actions, segments)
    ratios = log_ratios(target, log_prob_behaviour, segments).detach()
    q = _taken("action_values", action_values, actions, segments).detach()
    v = _value(log_probs_target, action_values, segments)
    after = segments.next(v, torch.zeros(len(segments), dtype=v.dtype, device=v.device))
    left = segments.as_float64("rewards", rewards) + discount * after - q
    # w_t times the residual of `returns.doubly_robust_values`, either of which may overflow alone.
    prefix = weights.prefix(ratios, segments)
    continuation = returns.weighted_reward_to_go(left, prefix, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    before = from_start * weights.exclusive_prefix(ratios, segments).exp()
    sampled = surrogates.weighted_log_prob(target, from_start, continuation, segments)
    every = surrogates.expected_value(log_probs_target, before, action_values, segments)
    return loss(sampled + every, segments, divisor=divisor)


def _taken(name: str, x: Tensor, actions: Tensor, segments: Segments) -> Tensor:
    """Of numbers `[S, A]`, those of the actions taken, `[S]`."""
    contracts.require_vector("actions", actions, segments.size, "position")
    contracts.require_rows(name, x, segments.size)
    return x.gather(1, segments.fill(actions).unsqueeze(1)).squeeze(1)


def _value(log_probs: Tensor, action_values: Tensor, segments: Segments) -> Tensor:
    """`Σ_a π(a|s_t) Q(s_t, a)`, `[S]`: a constant."""
    unit = torch.ones_like(segments.mask, dtype=torch.float64)
    return surrogates.expected_value(log_probs, unit, action_values, segments).detach()
