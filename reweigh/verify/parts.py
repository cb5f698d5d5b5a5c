"""What the estimators of the golden file are composed of: functions of a sample, `[S]`."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reweigh.core import advantages, returns, surrogates, weights
from reweigh.core.segments import Segments
from reweigh.verify.samples import Sample

PerStep = Callable[[Sample], Tensor]


def weighted(weight: PerStep, continuation: PerStep, *, from_start: bool = True) -> PerStep:
    """`sg(γ^t · weight · continuation) log π`; without `γ^t` if `from_start` is False."""

    def objective(sample: Sample) -> Tensor:
        factor = weight(sample)
        if from_start:
            discount = returns.discount_from_start(sample.segments, discount=sample.discount)
            factor = discount * factor
        return surrogates.weighted_log_prob(
            sample.log_prob, factor, continuation(sample), sample.segments
        )

    return objective


# Log-weights.


def step(s: Sample) -> Tensor:
    """`ρ_t`."""
    return weights.step(s.log_ratios, s.segments)


def prefix(s: Sample) -> Tensor:
    """`w_t`."""
    return weights.prefix(s.log_ratios, s.segments)


def trajectory(s: Sample) -> Tensor:
    """`W`."""
    return weights.trajectory(s.log_ratios, s.segments)


def balance(s: Sample) -> Tensor:
    """`b_t`."""
    return weights.balance_heuristic(s.log_prob, s.log_prob_sources, s.proportions, s.segments)


def balance_trajectory(s: Sample) -> Tensor:
    """The last `b_t`."""
    return s.segments.spread(s.segments.last(balance(s)))


def truncated(log_weights: PerStep, maximum: float) -> PerStep:
    """`min(c, w)`."""
    return lambda s: weights.truncate(log_weights(s), s.segments, maximum=maximum).log_weights


def product_of_truncated(maximum: float) -> PerStep:
    """`Π min(c, ρ_k)`."""
    return lambda s: weights.prefix(truncated(step, maximum)(s), s.segments)


def normalised(log_weights: PerStep) -> PerStep:
    """Self-normalised over the batch."""
    return lambda s: weights.self_normalise(log_weights(s), s.segments)


def normalised_over_alive(s: Sample) -> Tensor:
    """Self-normalised over the episodes that have not ended: a mistake, to be seen as one."""
    alone = torch.arange(s.segments.size)
    steps = Segments(alone, alone + 1, s.segments.inside, torch.zeros_like(alone))
    time = torch.where(s.segments.inside, s.segments.time, s.horizon)
    sums = weights.log_sums_of_groups(prefix(s), time, steps, groups=s.horizon + 1)
    return prefix(s) - sums.log_sum[time, 0] + math.log(len(s.segments))


def marginal(s: Sample) -> Tensor:
    """`m_t ρ_t`, of the exact marginals."""
    return weights.state_marginal(s.log_ratios, s.log_state_ratios, s.segments)


def power_mean(log_weights: PerStep, parameters: str) -> PerStep:
    """`(α_j N / n_j)` times the power mean of the weight to the own source `j`."""

    def weight(s: Sample) -> Tensor:
        share, proportion = s.power_mean[parameters]
        own = s.source[s.segments.episode]
        bounded = weights.power_mean(log_weights(s), s.segments, share=share[own]).log_weights
        return bounded + (proportion / s.proportions).log()[own]

    return weight


# Plain weights.


def unit(s: Sample) -> Tensor:
    """A weight of 1."""
    return torch.ones_like(s.log_ratios)


def exp(log_weights: PerStep) -> PerStep:
    """Weights of log-weights."""
    return lambda s: log_weights(s).exp()


# Continuations: what multiplies weight and score.


def logged(s: Sample) -> Tensor:
    """`G_t`."""
    return returns.reward_to_go(s.rewards, s.segments, discount=s.discount)


def logged_total(s: Sample) -> Tensor:
    """`G_0`, at each step."""
    first = s.segments.inside & (s.segments.time == 0)
    return s.segments.spread(s.segments.total(torch.where(first, logged(s), 0.0)))


def logged_above_behaviour(s: Sample) -> Tensor:
    """`G_t - V_t^φ`."""
    return logged(s) - s.value("phi")


def logged_above_target(s: Sample) -> Tensor:
    """`G_t - V_t^θ`."""
    return logged(s) - s.value("theta")


def action_value(of: str) -> PerStep:
    """`Q_t(s_t, a_t)` of a policy."""
    return lambda s: s.action_value(of)


def advantage(s: Sample) -> Tensor:
    """`Q_t^θ(s_t, a_t) - V_t^θ(s_t)`."""
    return s.action_value("theta") - s.value("theta")


def target(s: Sample) -> Tensor:
    """`Σ_{t'≥t} γ^(t'-t) (Π_{t<k≤t'} ρ_k) r_t'`: what the target would collect."""
    return returns.target_reward_to_go(s.rewards, s.log_ratios, s.segments, discount=s.discount)


def per_decision(log_weights: PerStep) -> PerStep:
    """`Σ_{t'≥t} γ^(t'-t) w_t' r_t'`."""
    return lambda s: returns.weighted_reward_to_go(
        s.rewards, log_weights(s), s.segments, discount=s.discount
    )


def per_decision_above_target(s: Sample) -> Tensor:
    """Less `w_t V_t^θ`."""
    return per_decision(prefix)(s) - prefix(s).exp() * s.value("theta")


def per_decision_length_mean(s: Sample) -> Tensor:
    """Divided by the episode's steps."""
    return per_decision(prefix)(s) / s.segments.spread(s.segments.lengths.double())


def per_decision_bootstrap(bootstrap: PerStep) -> PerStep:
    """With a value after the last step."""
    return lambda s: returns.weighted_reward_to_go(
        s.rewards, prefix(s), s.segments, discount=s.discount, bootstrap=bootstrap(s)
    )


def vtrace(threshold: float) -> PerStep:
    """V-trace's advantages, with the exact `V^θ`, all ratios truncated alike."""

    def estimate(s: Sample) -> Tensor:
        bounded = weights.truncate(s.log_ratios, s.segments, maximum=threshold).log_weights
        return advantages.vtrace(
            s.rewards,
            s.value("theta"),
            torch.zeros_like(s.bootstrap("theta")),
            bounded,
            bounded,
            s.segments,
            discount=s.discount,
        ).advantages

    return estimate


def ppo(s: Sample) -> Tensor:
    """PPO's clipped objective, ε = 0.2."""
    advantage = logged_above_behaviour(s)
    return surrogates.clipped_ratio(s.log_ratios, advantage, s.segments, clip=0.2)


def doubly_robust(critic: Callable[[Sample], Tensor]) -> PerStep:
    """The doubly robust gradient, the critic held constant: sampled residuals and all actions."""

    def objective(s: Sample) -> Tensor:
        estimate = _doubly_robust(s, critic(s))
        from_start = returns.discount_from_start(s.segments, discount=s.discount)
        before = weights.exclusive_prefix(s.log_ratios, s.segments).exp()
        sampled = weighted(exp(prefix), lambda _: estimate.residuals)(s)
        return sampled + surrogates.expected_value(
            s.log_probs, from_start * before, critic(s), s.segments
        )

    return objective


def doubly_robust_differentiated(s: Sample) -> Tensor:
    """The doubly robust value of the start, ratios and exact critic differentiated."""
    critic = s.problem.target_action_value()[s.segments.time, s.states]
    return torch.where(s.segments.is_first, _doubly_robust(s, critic).values, 0.0)


def _doubly_robust(s: Sample, critic: Tensor) -> returns.DoublyRobust:
    return returns.doubly_robust_values(
        s.rewards,
        s.log_ratios,
        (s.log_probs.exp() * critic).sum(1),
        s.taken(critic),
        s.segments,
        discount=s.discount,
    )
