"""The estimators of `which_weight.py`: each a composition of the library's functions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from which_weight_problem import (
    BATCHES,
    DISCOUNT,
    Everything,
    Moments,
    Objective,
    Problem,
    enumerated_moments,
    trajectory_gradients,
)
from which_weight_recurrence import UNIT

import reweigh as rw


def weighted(weight: Objective, continuation: Objective, *, from_start: bool = True) -> Objective:
    """`[γ^t] · weight · continuation · score`."""

    def objective(e: Everything) -> Tensor:
        factor = weight(e)
        if from_start:
            factor = factor * e.sample.discount_from_start
        return rw.surrogates.weighted_log_prob(
            e.sample.log_prob_target, factor, continuation(e), e.segments
        )

    return objective


# Log-weights.


def step(e: Everything) -> Tensor:
    """`log ρ_t`."""
    return e.sample.log_ratios


def prefix(e: Everything) -> Tensor:
    """`log w_t`."""
    return e.sample.log_prefix


def trajectory(e: Everything) -> Tensor:
    """`log W`."""
    return rw.weights.trajectory(e.sample.log_ratios, e.segments)


def balance(e: Everything) -> Tensor:
    """The prefix weight to the mixture of all that sampled."""
    count = len(e.log_prob_sources)
    shares = torch.full((count,), 1 / count, dtype=torch.float64)
    return rw.weights.balance_heuristic(
        e.sample.log_prob_target, e.log_prob_sources, shares, e.segments
    )


def window(steps: int) -> Objective:
    """The product of the last `steps` ratios."""
    return lambda e: rw.weights.window(e.sample.log_ratios, e.segments, steps=steps)


def truncated(log_weights: Objective, maximum: float) -> Objective:
    """`log min(c, w)`."""
    return lambda e: rw.weights.truncate(log_weights(e), e.segments, maximum=maximum).log_weights


def masked(log_weights: Objective, band: float) -> Objective:
    """The log-weight, minus infinity outside `[1/c, c]`."""
    return lambda e: (
        rw.weights.mask_outside(
            log_weights(e), e.segments, minimum=1 / band, maximum=band
        ).log_weights
    )


def power_mean(log_weights: Objective, share: float) -> Objective:
    """`log w / ((1 - λ) + λ w)`."""
    return lambda e: rw.weights.power_mean(log_weights(e), e.segments, share=share).log_weights


def product_of_truncated(maximum: float) -> Objective:
    """`log Π_k min(c, ρ_k)`."""
    return lambda e: rw.weights.prefix(truncated(step, maximum)(e), e.segments)


# Factors of the score.


def plain(log_weights: Objective) -> Objective:
    """Weights of log-weights."""
    return lambda e: log_weights(e).exp()


def one(e: Everything) -> Tensor:
    """1."""
    return torch.ones_like(e.rewards)


def logged(e: Everything) -> Tensor:
    """`G_t`."""
    return e.sample.reward_to_go


def action_value(e: Everything) -> Tensor:
    """`Q_t^θ(s_t, a_t)`."""
    return e.taken(e.action_values(e.problem.target))


def per_decision(log_weights: Objective, rewards: Objective = lambda e: e.rewards) -> Objective:
    """`Σ_{t'≥t} γ^t' w_t' r_t'`."""
    return weighted(
        one,
        lambda e: rw.returns.weighted_reward_to_go(
            rewards(e), log_weights(e), e.segments, discount=DISCOUNT
        ),
    )


def state_marginal(e: Everything) -> Tensor:
    """`log m_t ρ_t`, of the exact visits."""
    p = e.problem
    ratios = p.visits(p.target, e.horizon) / p.visits(p.behaviour, e.horizon)
    return rw.weights.state_marginal(e.sample.log_ratios, e.at_states(ratios.log()), e.segments)


def vtrace(threshold: float) -> Objective:
    """V-trace with the exact values of the target."""

    def advantages(e: Everything) -> Tensor:
        bounded = rw.weights.truncate(
            e.sample.log_ratios, e.segments, maximum=threshold
        ).log_weights
        return rw.advantages.vtrace(
            e.rewards,
            e.values(e.problem.target),
            e.rewards.new_zeros(len(e.segments)),
            bounded,
            bounded,
            e.segments,
            discount=DISCOUNT,
        ).advantages

    return weighted(one, advantages)


def doubly_robust(policy: Callable[[Problem], Tensor], maximum: float = math.inf) -> Objective:
    """Per-decision on what the critic leaves unexplained, and the critic summed over actions.

    The critic is the exact action value of a policy, the target or the behaviour.
    """

    def critic_values(e: Everything) -> Tensor:
        return e.action_values(policy(e.problem))

    def unexplained(e: Everything) -> Tensor:
        taken = e.taken(critic_values(e))
        value = (e.log_probs.detach().exp() * critic_values(e)).sum(1)
        after = e.segments.next(value, value.new_zeros(len(e.segments)))
        return e.rewards + DISCOUNT * after - taken

    sampled = per_decision(truncated(prefix, maximum), unexplained)
    earlier = truncated(
        lambda e: rw.weights.exclusive_prefix(e.sample.log_ratios, e.segments), maximum
    )

    def objective(e: Everything) -> Tensor:
        return sampled(e) + rw.surrogates.expected_value(
            e.log_probs,
            e.sample.discount_from_start * earlier(e).exp(),
            critic_values(e),
            e.segments,
        )

    return objective


def self_normalised_moments(e: Everything) -> Moments:
    """Per-decision with weights normalised over the batch: its limit for many episodes.

    The deviation is that of the influence function; the bias falls as 1/N and is left out. Neither
    holds where the effective sample size is small.
    """
    weights = prefix(e).exp().detach()
    influence = trajectory_gradients(e, per_decision(prefix)(e))
    for t in range(e.horizon):
        of_time = e.segments.fill(torch.where(e.segments.time == t, e.rewards, 0.0))
        share = trajectory_gradients(e, per_decision(prefix, lambda _, x=of_time: x)(e))
        weight = e.segments.total(torch.where(e.segments.time == t, weights, 0.0))
        influence = influence - torch.outer(weight - 1, e.probability @ share)
    return enumerated_moments(e, influence)


BOUNDS = (1.0, *(max(1.0, math.sqrt(n) / 2) for n in BATCHES), 2.0)
"""Of truncation: half the root of each batch size, and two plain numbers."""


def at(name: str, maximum: float) -> str:
    """The name of an estimator that is truncated."""
    return f"{name} truncated at {maximum:.3g}"


def short(maximum: float) -> Callable[[Tensor, Tensor], Tensor]:
    """`min(c, w)`, for a walk."""
    return lambda w, _: w.clamp(max=maximum)


def within(band: float) -> Callable[[Tensor, Tensor], Tensor]:
    """`w`, or 0 outside `[1/c, c]`, for a walk."""
    return lambda w, _: torch.where((w >= 1 / band) & (w <= band), w, 0.0)


WALKS = {
    "reinforce": (UNIT, weighted(one, logged)),
    "step": (UNIT._replace(score=lambda _, rho: rho), weighted(plain(step), logged)),
    at("step", 1): (
        UNIT._replace(score=lambda _, rho: rho.clamp(max=1.0)),
        weighted(plain(truncated(step, 1.0)), logged),
    ),
    "seed with γ^t": (UNIT._replace(score=lambda w, _: w), weighted(plain(prefix), logged)),
    at("seed with γ^t", 2): (
        UNIT._replace(score=short(2.0)),
        weighted(plain(truncated(prefix, 2.0)), logged),
    ),
    "per_decision": (UNIT._replace(reward=lambda w, _: w), per_decision(prefix)),
    **{
        at("per_decision", c): (
            UNIT._replace(reward=short(c)),
            per_decision(truncated(prefix, c)),
        )
        for c in BOUNDS
    },
    # A band whose ends are no weight's value, so that no rounding decides.
    "per_decision masked outside [1/5, 5]": (
        UNIT._replace(reward=within(5.003)),
        per_decision(masked(prefix, 5.003)),
    ),
    "per_decision, power mean .1": (
        UNIT._replace(reward=lambda w, _: w / (0.9 + 0.1 * w)),
        per_decision(power_mean(prefix, 0.1)),
    ),
}
"""What the recurrence can follow, and the same as a composition."""

COMPOSITIONS = {
    **{name: composition for name, (_, composition) in WALKS.items()},
    "seed": weighted(plain(prefix), logged, from_start=False),
    "trajectory": weighted(plain(trajectory), logged),
    "trajectory, power mean .1": weighted(plain(power_mean(trajectory, 0.1)), logged),
    "per_decision, product of ratios truncated at 1": per_decision(product_of_truncated(1.0)),
    "window of 2": weighted(plain(window(2)), logged),
    "window of 3": weighted(plain(window(3)), logged),
    "geometric mean": weighted(
        plain(lambda e: rw.weights.geometric_mean(e.sample.log_ratios, e.segments)), logged
    ),
}
"""All that take log-probabilities and rewards alone."""

WITH_CRITIC = {
    "V-trace 1, exact V": vtrace(1.0),
    "V-trace ∞, exact V": vtrace(math.inf),
    "doubly_robust, exact Q": doubly_robust(lambda p: p.target),
    "doubly_robust, Q of φ": doubly_robust(lambda p: p.behaviour),
    **{at("doubly_robust, Q of φ", c): doubly_robust(lambda p: p.behaviour, c) for c in BOUNDS},
}
MARGINAL = "state marginal × step, exact m and Q"
SELF_NORMALISED = "per_decision self-normalised, N→∞"
TWO_SOURCES = {
    "per_decision, half by a nearer policy": per_decision(prefix),
    "balance_heuristic, half by a nearer policy": per_decision(balance),
}
