"""Estimators with a learned critic.

`bootstrap` `[N]` is the value after each episode's last step: 0 where the episode terminated.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import advantages, surrogates, weights
from reweigh.core.sample import Sample
from reweigh.recipes.composing import weighted_score
from reweigh.recipes.expectation import BEHAVIOUR, BIASED, TARGET, Expectation, Gradient
from reweigh.recipes.recipe import gradient

OFF_PAC = Expectation(Gradient(BEHAVIOUR, TARGET, discounted=False))
USUAL = Expectation(Gradient(TARGET, TARGET, discounted=False))
"""The policy gradient without `γ^t`, as is usual in deep RL."""


@gradient(BIASED, on_policy=USUAL._replace(any_critic=True))
def impala(sample: Sample, values: Tensor, bootstrap: Tensor) -> Tensor:
    """IMPALA: `ĝ = (1/N) Σ_i Σ_t min(1, ρ_t) (r_t + γ v_{t+1} - V_t) score_t`.

    Espeholt et al. 2018, section 4.2, with `v` the V-trace target and all thresholds at 1; without
    `γ^t`, as in the paper. Biased: it keeps the behaviour's states, and `v` is the value of a
    policy between the two. Weights never exceed 1. Use it for long horizons with a learned critic.
    The critic regresses on `core.advantages.vtrace(...).targets`.

    Args:
        values: `[S]`, `V(s_t)`; a constant here.
        bootstrap: `[N]`.

    Returns:
        `[S]`. At `φ = θ` the advantage is that of `gae` with λ = 1.
    """
    bounded = weights.truncate(sample.log_ratios, sample.segments, maximum=1.0).log_weights
    trace = advantages.vtrace(
        sample.require_rewards(),
        sample.steps("values", values),
        bootstrap,
        bounded,
        bounded,
        sample.segments,
        discount=sample.discount,
    )
    return weighted_score(sample, 1.0, trace.advantages, discounted=False)


@gradient(OFF_PAC, on_policy=USUAL._replace(any_critic=True))
def retrace(
    sample: Sample,
    values: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    *,
    trace_lambda: float = 1.0,
) -> Tensor:
    """Retrace actor-critic: `ĝ = (1/N) Σ_i Σ_t ρ_t (Q^ret_t - V(s_t)) score_t`.

    Degris et al. 2012 (Off-PAC) for the gradient, Munos et al. 2016, section 3, for `Q^ret`;
    without `γ^t`, as there. If the critic is `Q^θ`, its expectation is
    `Σ_t E_{s~d_t^φ, a~π_θ}[Q^θ score]`: states of the behaviour, continuation of the target. Second
    moment: that of one ratio; the traces never exceed 1. Use it with a learned `Q`, whose
    regression target is `advantages.retrace(...)` too, where single ratios stay moderate; `acer`
    bounds them.

    Args:
        values: `[S]`, `V(s_t) = E_{a~θ}[Q(s_t, a)]`; a constant here.
        action_values: `[S]`, `Q(s_t, a_t)`; a constant.
        bootstrap: `[N]`.
        trace_lambda: λ in [0, 1].

    Returns:
        `[S]`. With `Q = V` and `φ = θ` the advantage is that of `gae` with the same λ.
    """
    values = sample.steps("values", values)
    estimate = advantages.retrace(
        sample.require_rewards(),
        values,
        sample.steps("action_values", action_values),
        bootstrap,
        sample.log_ratios,
        sample.segments,
        discount=sample.discount,
        trace_lambda=trace_lambda,
    )
    return weighted_score(sample, sample.log_ratios.exp(), estimate - values, discounted=False)


@gradient(OFF_PAC, on_policy=USUAL._replace(any_critic=True))
def acer(
    sample: Sample,
    log_probs_target: Tensor,
    log_probs_behaviour: Tensor,
    actions: Tensor,
    all_action_values: Tensor,
    bootstrap: Tensor,
    *,
    maximum: float = 10.0,
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
        all_action_values: `[S, A]`, `Q(s_t, a)`; a constant.
        bootstrap: `[N]`.
        maximum: `c`, above 0.

    Returns:
        `[S]`. With an infinite maximum it is `retrace` with `V = Σ_a π_θ(a) Q(a)` and λ = 1.
    """
    segments = sample.segments
    q = taken("all_action_values", all_action_values, actions, sample).detach()
    v = expected_value(sample, log_probs_target, all_action_values).detach()
    estimate = advantages.retrace(
        sample.require_rewards(),
        v,
        q,
        bootstrap,
        sample.log_ratios,
        segments,
        discount=sample.discount,
    )
    kept = weights.truncate(sample.log_ratios, segments, maximum=maximum).log_weights.exp()
    sampled = weighted_score(sample, kept, estimate - v, discounted=False)
    every = log_probs_target.detach() - log_probs_behaviour
    cut = weights.excess(every, segments, maximum=maximum).log_weights
    above = weights.weigh(cut, all_action_values.detach() - v.unsqueeze(1))
    return sampled + expected_value(sample, log_probs_target, above)


def expected_value(sample: Sample, log_probs: Tensor, all_action_values: Tensor) -> Tensor:
    """`V̂_t = Σ_a π_θ(a|s_t) Q̂(s_t, a)`, `[S]`, differentiated in the policy.

    The `values` of `doubly_robust` for a critic of discrete actions.

    Args:
        log_probs: `[S, A]`, of every action under the target.
        all_action_values: `[S, A]`; a constant.
    """
    unit = torch.ones_like(sample.segments.mask, dtype=torch.float64)
    return surrogates.expected_value(log_probs, unit, all_action_values, sample.segments)


def taken(name: str, x: Tensor, actions: Tensor, sample: Sample) -> Tensor:
    """Of numbers `[S, A]`, those of the actions that were taken, `[S]`.

    Raises:
        ValueError: Wrong shape.
    """
    contracts.require_vector("actions", actions, sample.segments.size, "position")
    contracts.require_rows(name, x, sample.segments.size)
    return x.gather(1, sample.segments.fill(actions).unsqueeze(1)).squeeze(1)
