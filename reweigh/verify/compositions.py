"""What the golden file's estimators are composed of: weights, continuations, and whole ones."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reweigh.core import advantages, returns, weights
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.recipes import ALL, Recipe, weighted_score
from reweigh.recipes.recipe import GradientRecipe, ValueRecipe
from reweigh.verify.cases import Case

Objective = Callable[[Case], Tensor]
"""From a case to what is maximised: per step, per episode, or their mean as one number."""


def recipe(recipe: Recipe) -> Objective:
    """A public recipe on the inputs of a case."""

    def objective(case: Case) -> Tensor:
        inputs = case.inputs(recipe.inputs)
        if isinstance(recipe, ValueRecipe):
            terms = recipe.terms(case.sample, **inputs)
            assert terms.weighted is None
            return terms.plain
        assert isinstance(recipe, GradientRecipe)
        return recipe.objective(case.sample, **inputs)

    return objective


def score(
    weight: Callable[[Sample], Tensor | float],
    continuation: Objective,
    *,
    discounted: bool = True,
) -> Objective:
    """A weighted score: a weight of the sample times a continuation."""
    return lambda c: weighted_score(
        c.sample, weight(c.sample), continuation(c), discounted=discounted
    )


def unit(sample: Sample) -> float:
    """The weight 1."""
    return 1.0


def step(sample: Sample) -> Tensor:
    """`ρ_t`."""
    return sample.log_ratios.exp()


def prefix(sample: Sample) -> Tensor:
    """`w_t`."""
    return sample.log_prefix.exp()


def trajectory(sample: Sample) -> Tensor:
    """`W`."""
    return sample.segments.spread(sample.log_trajectory).exp()


def self_normalised(log_weights: Callable[[Sample], Tensor]) -> Callable[[Sample], Tensor]:
    """The weight that log-weights become, self-normalised at each time."""
    return lambda s: weights.self_normalise(log_weights(s), s.segments).exp()


def normalised_over_alive(sample: Sample) -> Tensor:
    """Self-normalised over the episodes that have not ended: a mistake, to be seen as one."""
    segments = sample.segments
    alone = torch.arange(segments.size)
    steps = Segments(alone, alone + 1, segments.inside, torch.zeros_like(alone))
    longest = segments.most_steps
    time = torch.where(segments.inside, segments.time, longest)
    sums = weights.log_sums_of_groups(sample.log_prefix, time, steps, groups=longest + 1)
    return (sample.log_prefix - sums.log_sum[time, 0] + math.log(len(sample))).exp()


def product_of_truncated(sample: Sample, *, maximum: float) -> Tensor:
    """`Π_{k≤t} min(c, ρ_k)`."""
    bounded = weights.truncate(sample.log_ratios, sample.segments, maximum=maximum).log_weights
    return weights.prefix(bounded, sample.segments).exp()


def truncated(sample: Sample, *, maximum: float) -> Tensor:
    """`min(c, w_t)`."""
    whole, segments = sample.log_prefix, sample.segments
    return weights.truncate(whole, segments, maximum=maximum).log_weights.exp()


def balance(c: Case) -> Tensor:
    """Log-weights of the balance heuristic."""
    return c.sample.against(c.log_prob_sources, c.proportions).log_prefix


def balanced(objective: Callable[[Tensor, Case], Tensor]) -> Objective:
    """REINFORCE with weights made of those of the balance heuristic."""

    def whole(c: Case) -> Tensor:
        factor = objective(balance(c), c).exp()
        return weighted_score(c.sample, factor, c.sample.reward_to_go)

    return whole


def at_end(log_prefix: Tensor, c: Case) -> Tensor:
    """The last weight of each episode, at all of its steps."""
    return c.segments.spread(c.segments.last(log_prefix))


def power_mean(c: Case, log_weights: Tensor) -> Tensor:
    """`(α_j N / n_j)` times the power mean of the weight to the own source `j`, as a log-weight."""
    assert c.power_mean is not None
    share, proportion = c.power_mean
    own = c.source[c.segments.episode]
    bounded = weights.power_mean(log_weights, c.segments, share=share[own]).log_weights
    return bounded + (proportion / c.proportions).log()[own]


def power_mean_trajectory(c: Case) -> Tensor:
    """REINFORCE with the power mean of `W`."""
    whole = power_mean(c, c.segments.spread(c.sample.log_trajectory))
    return weighted_score(c.sample, whole.exp(), c.sample.reward_to_go)


def power_mean_recipe(c: Case) -> Tensor:
    """The recipe, with the shares that it computes itself."""
    return ALL["power_mean"].function(
        c.sample, c.log_prob_sources, c.source, c.second_moments, episodes=c.counts
    )


def power_mean_per_decision(c: Case) -> Tensor:
    """`per_decision` with the power means of `w_t`."""
    return to_go(power_mean(c, c.sample.log_prefix), c)


def to_go(log_weights: Tensor, c: Case, *, bootstrap: Tensor | None = None) -> Tensor:
    """The score form of `per_decision`: `γ^t (Σ_{t'≥t} γ^(t'-t) w_t' r_t') log π`."""
    continuation = returns.weighted_reward_to_go(
        c.sample.require_rewards(),
        log_weights,
        c.segments,
        discount=c.sample.discount,
        bootstrap=bootstrap,
    )
    return weighted_score(c.sample, 1.0, continuation)


def bootstrapped(c: Case, *, policy: str) -> Tensor:
    """`per_decision` with the value of a policy after the last step."""
    return to_go(c.sample.log_prefix, c, bootstrap=c.value_after(policy))


def logged(c: Case) -> Tensor:
    """`G_t`."""
    return c.sample.reward_to_go


def above(policy: str) -> Objective:
    """`G_t - V_t` of a policy."""
    return lambda c: c.sample.reward_to_go - c.value(policy)


def action_value(policy: str) -> Objective:
    """`Q_t` of a policy."""
    return lambda c: c.taken(c.problem.action_value[policy][c.segments.time, c.states])


def marginal(continuation: Objective) -> Objective:
    """The recipe `state_marginal` with the exact ratio of the states."""
    return lambda c: ALL["state_marginal"].function(c.sample, c.log_state_ratios, continuation(c))


def target_continuation(c: Case) -> Tensor:
    """The reward-to-go as the target would continue."""
    return returns.target_reward_to_go(
        c.sample.require_rewards(), c.sample.log_ratios, c.segments, discount=c.sample.discount
    )


def vtrace(c: Case, *, maximum: float) -> Tensor:
    """V-trace's advantages, with the exact `V^θ`, all thresholds alike."""
    bounded = weights.truncate(c.sample.log_ratios, c.segments, maximum=maximum).log_weights
    trace = advantages.vtrace(
        c.sample.require_rewards(),
        c.value("theta"),
        c.bootstrap,
        bounded,
        bounded,
        c.segments,
        discount=c.sample.discount,
    )
    return weighted_score(c.sample, 1.0, trace.advantages)


def without_discount(c: Case) -> Tensor:
    """`per_decision` divided by `γ^t` at each score."""
    segments, discount = c.segments, c.sample.discount
    continuation = returns.weighted_reward_to_go(
        c.sample.require_rewards(), c.sample.log_prefix, segments, discount=discount
    )
    return weighted_score(c.sample, 1.0, continuation, discounted=False)


def with_baseline(c: Case) -> Tensor:
    """`per_decision` less `γ^t w_t V_t^θ`."""
    baseline = weighted_score(c.sample, c.sample.log_prefix.exp(), c.value("theta"))
    return to_go(c.sample.log_prefix, c) - baseline


def length_mean(c: Case) -> Tensor:
    """`per_decision` over the length of each episode."""
    return to_go(c.sample.log_prefix, c) / c.segments.spread(c.segments.lengths.double())


def doubly_robust_differentiated(c: Case) -> Tensor:
    """The doubly robust value of the start, the exact critic differentiated too."""
    critic = c.problem.target_action_value()[c.segments.time, c.states]
    robust = returns.doubly_robust_values(
        c.sample.require_rewards(),
        c.sample.log_ratios,
        (c.log_probs_target.exp() * critic).sum(1),
        c.taken(critic),
        c.segments,
        discount=c.sample.discount,
    )
    return torch.where(c.segments.is_first, robust.values, 0.0)
