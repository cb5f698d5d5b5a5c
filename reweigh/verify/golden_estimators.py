"""The estimators of the golden file: recipes, and recipes with other parts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reweigh.core import advantages, returns, weights
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.recipes import ALL, Recipe, truncated, weighted_score
from reweigh.recipes.expectation import BEHAVIOUR, TARGET, Gradient
from reweigh.recipes.recipe import GradientRecipe, ValueRecipe
from reweigh.verify.cases import Case

Objective = Callable[[Case], Tensor]
"""From a case to what is maximised: per step, per episode, or their mean as one number."""


@dataclass(frozen=True)
class Estimator:
    """An estimator of the golden file."""

    objective: Objective
    declared: Gradient | str
    """What its expectation is: a gradient that `verify` holds it to, or words."""
    by_tokens: bool = False
    """Whether the sum over steps is divided by the steps, not by the episodes."""
    critic: str = "theta"
    """Whose action values the critic has."""
    whole_batch: bool = False
    """Whether an episode's term depends on the other episodes of the batch."""


SURROGATE = Gradient(BEHAVIOUR, BEHAVIOUR)
BEHAVIOUR_CONTINUES = Gradient(TARGET, BEHAVIOUR)
OFF_PAC = Gradient(BEHAVIOUR, TARGET)
GRADIENT = Gradient(TARGET, TARGET)
BIASED = "biased"
AS_ITSELF = "as un-normalised, as N → ∞"


def _recipe(recipe: Recipe) -> Objective:
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


def _score(
    weight: Callable[[Sample], Tensor | float],
    continuation: Objective,
    *,
    discounted: bool = True,
) -> Objective:
    return lambda c: weighted_score(
        c.sample, weight(c.sample), continuation(c), discounted=discounted
    )


def _unit(sample: Sample) -> float:
    return 1.0


def _step(sample: Sample) -> Tensor:
    return sample.log_ratios.exp()


def _prefix(sample: Sample) -> Tensor:
    return sample.log_prefix.exp()


def _trajectory(sample: Sample) -> Tensor:
    return sample.segments.spread(sample.log_trajectory).exp()


def _self_normalised(log_weights: Callable[[Sample], Tensor]) -> Callable[[Sample], Tensor]:
    return lambda s: weights.self_normalise(log_weights(s), s.segments).exp()


def _normalised_over_alive(sample: Sample) -> Tensor:
    """Self-normalised over the episodes that have not ended: a mistake, to be seen as one."""
    segments = sample.segments
    alone = torch.arange(segments.size)
    steps = Segments(alone, alone + 1, segments.inside, torch.zeros_like(alone))
    longest = segments.most_steps
    time = torch.where(segments.inside, segments.time, longest)
    sums = weights.log_sums_of_groups(sample.log_prefix, time, steps, groups=longest + 1)
    return (sample.log_prefix - sums.log_sum[time, 0] + math.log(len(sample))).exp()


def _product_of_truncated(sample: Sample, *, maximum: float) -> Tensor:
    bounded = weights.truncate(sample.log_ratios, sample.segments, maximum=maximum).log_weights
    return weights.prefix(bounded, sample.segments).exp()


def _truncated(sample: Sample, *, maximum: float) -> Tensor:
    whole, segments = sample.log_prefix, sample.segments
    return weights.truncate(whole, segments, maximum=maximum).log_weights.exp()


def _balance(c: Case) -> Tensor:
    return c.sample.against(c.log_prob_sources, c.proportions).log_prefix


def _balanced(objective: Callable[[Tensor, Case], Tensor]) -> Objective:
    def whole(c: Case) -> Tensor:
        factor = objective(_balance(c), c).exp()
        return weighted_score(c.sample, factor, c.sample.reward_to_go)

    return whole


def _at_end(log_prefix: Tensor, c: Case) -> Tensor:
    return c.segments.spread(c.segments.last(log_prefix))


def _power_mean(c: Case, log_weights: Tensor) -> Tensor:
    """`(α_j N / n_j)` times the power mean of the weight to the own source `j`, as a log-weight."""
    assert c.power_mean is not None
    share, proportion = c.power_mean
    own = c.source[c.segments.episode]
    bounded = weights.power_mean(log_weights, c.segments, share=share[own]).log_weights
    return bounded + (proportion / c.proportions).log()[own]


def _power_mean_trajectory(c: Case) -> Tensor:
    whole = _power_mean(c, c.segments.spread(c.sample.log_trajectory))
    return weighted_score(c.sample, whole.exp(), c.sample.reward_to_go)


def _power_mean_recipe(c: Case) -> Tensor:
    return ALL["power_mean"].function(
        c.sample, c.log_prob_sources, c.source, c.second_moments, episodes=c.counts
    )


def _power_mean_per_decision(c: Case) -> Tensor:
    return _to_go(_power_mean(c, c.sample.log_prefix), c)


def _to_go(log_weights: Tensor, c: Case, *, bootstrap: Tensor | None = None) -> Tensor:
    """The score form of `per_decision`: `γ^t (Σ_{t'≥t} γ^(t'-t) w_t' r_t') log π`."""
    continuation = returns.weighted_reward_to_go(
        c.sample.require_rewards(),
        log_weights,
        c.segments,
        discount=c.sample.discount,
        bootstrap=bootstrap,
    )
    return weighted_score(c.sample, 1.0, continuation)


def _bootstrapped(c: Case, *, policy: str) -> Tensor:
    return _to_go(c.sample.log_prefix, c, bootstrap=c.value_after(policy))


def _logged(c: Case) -> Tensor:
    return c.sample.reward_to_go


def _total(c: Case) -> Tensor:
    return c.segments.spread(c.sample.returns)


def _above(policy: str) -> Objective:
    return lambda c: c.sample.reward_to_go - c.value(policy)


def _action_value(policy: str) -> Objective:
    return lambda c: c.taken(c.problem.action_value[policy][c.segments.time, c.states])


def _marginal(continuation: Objective) -> Objective:
    return lambda c: ALL["state_marginal"].function(c.sample, c.log_state_ratios, continuation(c))


def _target_continuation(c: Case) -> Tensor:
    return returns.target_reward_to_go(
        c.sample.require_rewards(), c.sample.log_ratios, c.segments, discount=c.sample.discount
    )


def _vtrace(c: Case, *, maximum: float) -> Tensor:
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


def _without_discount(c: Case) -> Tensor:
    """`per_decision` divided by `γ^t` at each score."""
    segments, discount = c.segments, c.sample.discount
    continuation = returns.weighted_reward_to_go(
        c.sample.require_rewards(), c.sample.log_prefix, segments, discount=discount
    )
    return weighted_score(c.sample, 1.0, continuation, discounted=False)


def _with_baseline(c: Case) -> Tensor:
    """`per_decision` less `γ^t w_t V_t^θ`."""
    baseline = weighted_score(c.sample, c.sample.log_prefix.exp(), c.value("theta"))
    return _to_go(c.sample.log_prefix, c) - baseline


def _length_mean(c: Case) -> Tensor:
    return _to_go(c.sample.log_prefix, c) / c.segments.spread(c.segments.lengths.double())


def _doubly_robust_differentiated(c: Case) -> Tensor:
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


_PER_DECISION = _recipe(ALL["per_decision"])

ESTIMATORS: dict[str, Estimator] = {
    "reinforce_old": Estimator(_recipe(ALL["reinforce"]), BIASED),
    "reinforce_old_nogt": Estimator(_score(_unit, _logged, discounted=False), BIASED),
    "step": Estimator(_recipe(ALL["step"]), SURROGATE),
    "step_nogt": Estimator(
        _score(_step, _logged, discounted=False), SURROGATE._replace(discounted=False)
    ),
    "seed": Estimator(
        _recipe(ALL["behaviour_continuation"]), BEHAVIOUR_CONTINUES._replace(discounted=False)
    ),
    "seed_gt": Estimator(_score(_prefix, _logged), BEHAVIOUR_CONTINUES),
    "pdis": Estimator(_PER_DECISION, GRADIENT),
    "pdis_nogt": Estimator(_without_discount, GRADIENT._replace(discounted=False)),
    "traj_rtg": Estimator(_recipe(ALL["trajectory"]), GRADIENT),
    "traj_total": Estimator(_recipe(ALL["importance_sampling"]), GRADIENT),
    "vtrace_1_1": Estimator(partial(_vtrace, maximum=1.0), BIASED),
    "vtrace_inf": Estimator(partial(_vtrace, maximum=math.inf), OFF_PAC),
    "ppo_clip0.2": Estimator(_recipe(ALL["ppo"]), BIASED),
    "step_Qtheta": Estimator(_score(_step, _action_value("theta")), OFF_PAC),
    "prefix_Qtheta": Estimator(_score(_prefix, _action_value("theta")), GRADIENT),
    "reinforce_old_base": Estimator(_score(_unit, _above("phi")), BIASED),
    "step_base": Estimator(_score(_step, _above("phi")), SURROGATE),
    "seed_gt_base": Estimator(_score(_prefix, _above("phi")), BEHAVIOUR_CONTINUES),
    "pdis_base": Estimator(_with_baseline, GRADIENT),
    "traj_base": Estimator(_score(_trajectory, _above("theta")), GRADIENT),
    "seed_gt_trunc2_base": Estimator(
        _score(partial(_truncated, maximum=2.0), _above("phi")), BIASED
    ),
    "pdis_lenmean": Estimator(_length_mean, BIASED),
    "pdis_tokenmean": Estimator(
        _PER_DECISION, f"{GRADIENT} / E[T], as N → ∞", by_tokens=True, whole_batch=True
    ),
    "sn_seed_gt": Estimator(
        _score(_self_normalised(lambda s: s.log_prefix), _logged), AS_ITSELF, whole_batch=True
    ),
    "sn_pdis": Estimator(
        lambda c: _to_go(weights.self_normalise(c.sample.log_prefix, c.segments), c),
        AS_ITSELF,
        whole_batch=True,
    ),
    "sn_traj": Estimator(
        _score(_self_normalised(lambda s: s.segments.spread(s.log_trajectory)), _logged),
        AS_ITSELF,
        whole_batch=True,
    ),
    "sn_seed_gt_active": Estimator(
        _score(_normalised_over_alive, _logged), "inconsistent", whole_batch=True
    ),
    "marg_Qtheta": Estimator(_recipe(ALL["state_marginal"]), GRADIENT),
    "marg_Qphi": Estimator(_marginal(_action_value("phi")), BEHAVIOUR_CONTINUES),
    "marg_rtg": Estimator(_marginal(_logged), BEHAVIOUR_CONTINUES),
    "marg_pdis": Estimator(_marginal(_target_continuation), GRADIENT),
    "marg_Atheta": Estimator(
        _marginal(lambda c: _action_value("theta")(c) - c.value("theta")), GRADIENT
    ),
    "dr_exactQ": Estimator(_recipe(ALL["doubly_robust"]), GRADIENT),
    "dr_misQ": Estimator(_recipe(ALL["doubly_robust"]), GRADIENT, critic="critic"),
    "dr_full": Estimator(_doubly_robust_differentiated, GRADIENT),
    "pdis_cut": Estimator(_PER_DECISION, "∇ of the first h rewards"),
    "pdis_boot_theta": Estimator(
        partial(_bootstrapped, policy="theta"), f"the first h terms of {GRADIENT}"
    ),
    "pdis_boot_phi": Estimator(partial(_bootstrapped, policy="phi"), BIASED),
    "mix_src_seed_gt": Estimator(_score(_prefix, _logged), "F(θ, φ_j), a mixture"),
    "mix_src_pdis": Estimator(_PER_DECISION, GRADIENT),
    "mix_bh_seed_gt": Estimator(
        _balanced(lambda prefix, c: prefix), "visits as θ, continues as the sources"
    ),
    "mix_bh_pdis": Estimator(_recipe(ALL["balance_heuristic"]), GRADIENT),
    "mix_bh_traj": Estimator(_balanced(_at_end), GRADIENT),
    "mix_pm_traj": Estimator(_power_mean_trajectory, BIASED),
    "mix_pm_traj_paper": Estimator(_power_mean_recipe, BIASED),
    "mix_pm_pdis": Estimator(_power_mean_per_decision, BIASED),
    "mix_def_pdis": Estimator(_recipe(ALL["balance_heuristic"]), GRADIENT),
    "mix_def_traj": Estimator(_balanced(_at_end), GRADIENT),
}
for _c in (1, 2, 5):
    ESTIMATORS[f"seed_gt_trunc{_c}"] = Estimator(
        _score(partial(_truncated, maximum=_c), _logged), BIASED
    )
    ESTIMATORS[f"pdis_trunc{_c}"] = Estimator(
        _recipe(truncated(ALL["per_decision"], maximum=_c)), BIASED
    )
    ESTIMATORS[f"seed_gt_prodclip{_c}"] = Estimator(
        _score(partial(_product_of_truncated, maximum=_c), _logged), BIASED
    )
