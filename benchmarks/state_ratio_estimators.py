"""The estimators of `state_ratio.py`: state ratios, and gradients that are composed with them."""

from collections.abc import Callable
from dataclasses import replace

import torch
from state_ratio_sample import DISCOUNT, STATES, Sampled, simulate
from torch import Tensor

import reweigh as rw
from reweigh import marginal

# State ratios: each a function of the sample to log m, [S], γ^t included.


def by_time(x: Sampled, log_m: Tensor) -> Tensor:
    """`γ^t m_t`, in logs."""
    return log_m + rw.returns.discount_from_start(x.segments, discount=DISCOUNT).log()


def exact(x: Sampled) -> Tensor:
    """What the estimators estimate."""
    return by_time(x, x.problem.log_state_ratios(x.horizon)[x.segments.time, x.states])


def tabular(x: Sampled) -> Tensor:
    """Estimated by state, pooled over time."""
    return by_time(x, x.tabular.log_state_ratios)


def tabular_by_time(x: Sampled) -> Tensor:
    """Estimated by state and time."""
    return by_time(
        x, marginal.finite_horizon_by_time(x.visits, x.ratios, x.segments).log_state_ratios
    )


def linear(x: Sampled) -> Tensor:
    """Linear in four features."""
    visits = marginal.Linear(*coarse(x), x.terminated)
    return by_time(x, marginal.finite_horizon(visits, x.ratios, x.segments).log_state_ratios)


def coarse(x: Sampled) -> tuple[Tensor, Tensor]:
    """Four features of six states, a constant among them: not enough for any ratio."""
    g = torch.Generator().manual_seed(5)
    project = torch.randn(STATES, 3, generator=g, dtype=torch.float64)

    def features(one_hot):
        return torch.cat([one_hot @ project, torch.ones(len(one_hot), 1)], 1)

    return features(x.one_hot[0]), features(x.one_hot[1])


def discounted(x: Sampled) -> Tensor:
    """Of the discounted problem without horizon, by state."""
    return marginal.discounted(x.visits, x.ratios, x.segments, discount=DISCOUNT).log_state_ratios


def kernel(x: Sampled) -> Tensor:
    """Of the discounted problem without horizon, by a kernel."""
    return marginal.kernel_discounted(
        *x.one_hot,
        x.terminated,
        x.ratios,
        x.segments,
        discount=DISCOUNT,
        generator=torch.Generator().manual_seed(x.seed),
    ).log_state_ratios


def classified(x: Sampled) -> Tensor:
    """From a tenth as many episodes of the target itself, told apart by state and early time."""
    on_policy = replace(x.problem, behaviour=x.problem.target)
    new = simulate(on_policy, horizon=x.horizon, episodes=len(x.segments) // 10, seed=x.seed + 1)
    lengths = torch.cat([x.segments.lengths, new.segments.lengths])
    both = rw.Segments.packed(lengths)
    places = torch.cat([x.states, new.states]) + STATES * both.time.clamp(max=3)
    ratios = marginal.classifier(
        torch.eye(4 * STATES, dtype=torch.float64)[places],
        both.episode >= len(x.segments),
        both,
        ridge=1e-6,
    )
    return by_time(x, ratios.log_odds[: x.segments.size])


# Gradient forms: each a composition, a function of the sample and log m to a per-step objective.


def with_q(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m ρ Q ∇log π`."""
    weight = rw.weights.state_marginal(x.ratios, log_m, x.segments).exp()
    values = q[x.segments.time, x.states, x.actions]
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, values, x.segments)


def values(x: Sampled, q: Tensor) -> Tensor:
    """`V^θ` of each time and state."""
    return (q * x.problem.target.softmax(1)).sum(2)


def with_advantage(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m ρ (Q - V) ∇log π`: a baseline under the same weight, which changes no expectation."""
    return with_q(x, log_m, q - values(x, q).unsqueeze(2))


def with_all_actions(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m Σ_a Q ∇π`: nothing of the step is sampled but its state."""
    return rw.surrogates.expected_value(
        x.log_probs, log_m.exp(), q[x.segments.time, x.states], x.segments
    )


def with_future_ratios(x: Sampled, log_m: Tensor) -> Tensor:
    """`m ρ G ∇log π`, with the ratios after the step in G: no critic."""
    weight = rw.weights.state_marginal(x.ratios, log_m, x.segments).exp()
    to_go = rw.returns.target_reward_to_go(x.rewards, x.ratios, x.segments, discount=DISCOUNT)
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, to_go, x.segments)


def with_doubly_robust(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m ρ (G - V) ∇log π`, with the ratios after the step on what the critic leaves open."""
    weight = rw.weights.state_marginal(x.ratios, log_m, x.segments).exp()
    v = values(x, q)[x.segments.time, x.states]
    taken = q[x.segments.time, x.states, x.actions]
    robust = rw.returns.doubly_robust_values(
        x.rewards, x.ratios, v, taken, x.segments, discount=DISCOUNT
    )
    advantages = taken + robust.residuals - v
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, advantages, x.segments)


def with_window(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m_{t-2} ρ_{t-2} ρ_{t-1} ρ_t (Q - V) ∇log π`: the state ratio where a window begins."""
    log_discount = rw.returns.discount_from_start(x.segments, discount=DISCOUNT).log()
    weight = rw.weights.state_marginal(x.ratios, log_m - log_discount, x.segments, steps=3)
    advantages = (q - values(x, q).unsqueeze(2))[x.segments.time, x.states, x.actions]
    weight = (weight + log_discount).exp()
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, advantages, x.segments)


def doubly_robust(x: Sampled) -> Tensor:
    """Products of ratios on what the same critic leaves open: what the critic does without m."""
    q = x.q_by_time
    taken = q[x.segments.time, x.states, x.actions]
    v = values(x, q)[x.segments.time, x.states]
    robust = rw.returns.doubly_robust_values(
        x.rewards, x.ratios, v, taken, x.segments, discount=DISCOUNT
    )
    from_start = rw.returns.discount_from_start(x.segments, discount=DISCOUNT)
    inclusive = from_start * rw.weights.prefix(x.ratios, x.segments).exp()
    exclusive = from_start * rw.weights.exclusive_prefix(x.ratios, x.segments).exp()
    sampled = rw.surrogates.weighted_log_prob(x.log_prob, inclusive, robust.residuals, x.segments)
    return sampled + rw.surrogates.expected_value(
        x.log_probs, exclusive, q[x.segments.time, x.states], x.segments
    )


def product(weigh: Callable) -> Callable[[Sampled], Tensor]:
    """Prefix products on the target's rewards (PDIS), the reference."""

    def objective(x: Sampled) -> Tensor:
        log_weights = weigh(x.ratios, x.segments)
        returns = rw.returns.weighted_reward_to_go(
            x.rewards, log_weights, x.segments, discount=DISCOUNT
        )
        from_start = rw.returns.discount_from_start(x.segments, discount=DISCOUNT)
        return rw.surrogates.weighted_log_prob(x.log_prob, from_start, returns, x.segments)

    return objective


def self_normalised(ratios: Tensor, segments: rw.Segments) -> Tensor:
    """Prefix products, normalised over the batch at each time."""
    return rw.weights.self_normalise(rw.weights.prefix(ratios, segments), segments)


def step(x: Sampled) -> Tensor:
    """No correction of states or continuation (PPO's, at its first update)."""
    from_start = rw.returns.discount_from_start(x.segments, discount=DISCOUNT)
    to_go = rw.returns.reward_to_go(x.rewards, x.segments, discount=DISCOUNT)
    weight = from_start * rw.weights.step(x.ratios, x.segments).exp()
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, to_go, x.segments)


ESTIMATORS: dict[str, tuple[Callable[[Sampled], Tensor], bool]] = {
    "PDIS": (product(rw.weights.prefix), False),
    "PDIS, self-normalised": (product(self_normalised), False),
    "doubly robust, the same critic": (doubly_robust, False),
    "step ratio, logged return": (step, False),
    "tabular: m ρ (Q - V)": (lambda x: with_advantage(x, tabular(x), x.q_by_time), False),
    "tabular: m, all actions": (lambda x: with_all_actions(x, tabular(x), x.q_by_time), False),
    "tabular: window of 3, Q - V": (lambda x: with_window(x, tabular(x), x.q_by_time), False),
    "tabular: m, future ratios on a critic": (
        lambda x: with_doubly_robust(x, tabular(x), x.q_by_time),
        False,
    ),
    "tabular: m ρ Q": (lambda x: with_q(x, tabular(x), x.q_by_time), False),
    "tabular: m, future ratios": (lambda x: with_future_ratios(x, tabular(x)), False),
    "tabular by time: m ρ (Q - V)": (
        lambda x: with_advantage(x, tabular_by_time(x), x.q_by_time),
        False,
    ),
    "linear, 4 features: m ρ (Q - V)": (
        lambda x: with_advantage(x, linear(x), x.q_by_time),
        False,
    ),
    "discounted: m ρ (Q - V)": (lambda x: with_advantage(x, discounted(x), x.q_endless), True),
    "kernel: m ρ (Q - V)": (lambda x: with_advantage(x, kernel(x), x.q_endless), True),
    "classifier, 200 new episodes: m ρ (Q - V)": (
        lambda x: with_advantage(x, classified(x), x.q_by_time),
        False,
    ),
    "exact m: m ρ (Q - V)": (lambda x: with_advantage(x, exact(x), x.q_by_time), False),
    "m = 1: m ρ (Q - V)": (
        lambda x: with_advantage(x, by_time(x, 0 * x.ratios), x.q_by_time),
        False,
    ),
}
"""By name: the objective, and whether it aims at the problem without horizon."""


def estimate(objective: Callable[[Sampled], Tensor], x: Sampled) -> Tensor:
    """The gradient, `[states, A]`."""
    loss = rw.loss(objective(x), x.segments)
    return -torch.autograd.grad(loss, x.logits, retain_graph=True)[0]
