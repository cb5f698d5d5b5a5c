"""The estimators of the golden file: recipes, and recipes with other parts."""

import math
from dataclasses import dataclass
from functools import partial

from reweigh.core import weights
from reweigh.recipes import ALL, truncated
from reweigh.recipes.expectation import BEHAVIOUR, TARGET, Gradient
from reweigh.verify import compositions as c


@dataclass(frozen=True)
class Estimator:
    """An estimator of the golden file."""

    objective: c.Objective
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


_PER_DECISION = c.recipe(ALL["per_decision"])

ESTIMATORS: dict[str, Estimator] = {
    "reinforce_old": Estimator(c.recipe(ALL["reinforce"]), BIASED),
    "reinforce_old_nogt": Estimator(c.score(c.unit, c.logged, discounted=False), BIASED),
    "step": Estimator(c.recipe(ALL["step"]), SURROGATE),
    "step_nogt": Estimator(
        c.score(c.step, c.logged, discounted=False), SURROGATE._replace(discounted=False)
    ),
    "seed": Estimator(
        c.recipe(ALL["behaviour_continuation"]), BEHAVIOUR_CONTINUES._replace(discounted=False)
    ),
    "seed_gt": Estimator(c.score(c.prefix, c.logged), BEHAVIOUR_CONTINUES),
    "pdis": Estimator(_PER_DECISION, GRADIENT),
    "pdis_nogt": Estimator(c.without_discount, GRADIENT._replace(discounted=False)),
    "traj_rtg": Estimator(c.recipe(ALL["trajectory"]), GRADIENT),
    "traj_total": Estimator(c.recipe(ALL["importance_sampling"]), GRADIENT),
    "vtrace_1_1": Estimator(partial(c.vtrace, maximum=1.0), BIASED),
    "vtrace_inf": Estimator(partial(c.vtrace, maximum=math.inf), OFF_PAC),
    "ppo_clip0.2": Estimator(c.recipe(ALL["ppo"]), BIASED),
    "step_Qtheta": Estimator(c.score(c.step, c.action_value("theta")), OFF_PAC),
    "prefix_Qtheta": Estimator(c.score(c.prefix, c.action_value("theta")), GRADIENT),
    "reinforce_old_base": Estimator(c.score(c.unit, c.above("phi")), BIASED),
    "step_base": Estimator(c.score(c.step, c.above("phi")), SURROGATE),
    "seed_gt_base": Estimator(c.score(c.prefix, c.above("phi")), BEHAVIOUR_CONTINUES),
    "pdis_base": Estimator(c.with_baseline, GRADIENT),
    "traj_base": Estimator(c.score(c.trajectory, c.above("theta")), GRADIENT),
    "seed_gt_trunc2_base": Estimator(
        c.score(partial(c.truncated, maximum=2.0), c.above("phi")), BIASED
    ),
    "pdis_lenmean": Estimator(c.length_mean, BIASED),
    "pdis_tokenmean": Estimator(
        _PER_DECISION, f"{GRADIENT} / E[T], as N → ∞", by_tokens=True, whole_batch=True
    ),
    "sn_seed_gt": Estimator(
        c.score(c.self_normalised(lambda s: s.log_prefix), c.logged), AS_ITSELF, whole_batch=True
    ),
    "sn_pdis": Estimator(
        lambda case: c.to_go(weights.self_normalise(case.sample.log_prefix, case.segments), case),
        AS_ITSELF,
        whole_batch=True,
    ),
    "sn_traj": Estimator(
        c.score(c.self_normalised(lambda s: s.segments.spread(s.log_trajectory)), c.logged),
        AS_ITSELF,
        whole_batch=True,
    ),
    "sn_seed_gt_active": Estimator(
        c.score(c.normalised_over_alive, c.logged), "inconsistent", whole_batch=True
    ),
    "marg_Qtheta": Estimator(c.recipe(ALL["state_marginal"]), GRADIENT),
    "marg_Qphi": Estimator(c.marginal(c.action_value("phi")), BEHAVIOUR_CONTINUES),
    "marg_rtg": Estimator(c.marginal(c.logged), BEHAVIOUR_CONTINUES),
    "marg_pdis": Estimator(c.marginal(c.target_continuation), GRADIENT),
    "marg_Atheta": Estimator(
        c.marginal(lambda case: c.action_value("theta")(case) - case.value("theta")), GRADIENT
    ),
    "dr_exactQ": Estimator(c.recipe(ALL["doubly_robust"]), GRADIENT),
    "dr_misQ": Estimator(c.recipe(ALL["doubly_robust"]), GRADIENT, critic="critic"),
    "dr_full": Estimator(c.doubly_robust_differentiated, GRADIENT),
    "pdis_cut": Estimator(_PER_DECISION, "∇ of the first h rewards"),
    "pdis_boot_theta": Estimator(
        partial(c.bootstrapped, policy="theta"), f"the first h terms of {GRADIENT}"
    ),
    "pdis_boot_phi": Estimator(partial(c.bootstrapped, policy="phi"), BIASED),
    "mix_src_seed_gt": Estimator(c.score(c.prefix, c.logged), "F(θ, φ_j), a mixture"),
    "mix_src_pdis": Estimator(_PER_DECISION, GRADIENT),
    "mix_bh_seed_gt": Estimator(
        c.balanced(lambda prefix, c: prefix), "visits as θ, continues as the sources"
    ),
    "mix_bh_pdis": Estimator(c.recipe(ALL["balance_heuristic"]), GRADIENT),
    "mix_bh_traj": Estimator(c.balanced(c.at_end), GRADIENT),
    "mix_pm_traj": Estimator(c.power_mean_trajectory, BIASED),
    "mix_pm_traj_paper": Estimator(c.power_mean_recipe, BIASED),
    "mix_pm_pdis": Estimator(c.power_mean_per_decision, BIASED),
    "mix_def_pdis": Estimator(c.recipe(ALL["balance_heuristic"]), GRADIENT),
    "mix_def_traj": Estimator(c.balanced(c.at_end), GRADIENT),
}
for bound in (1, 2, 5):
    ESTIMATORS[f"seed_gt_trunc{bound}"] = Estimator(
        c.score(partial(c.truncated, maximum=bound), c.logged), BIASED
    )
    ESTIMATORS[f"pdis_trunc{bound}"] = Estimator(
        c.recipe(truncated(ALL["per_decision"], maximum=bound)), BIASED
    )
    ESTIMATORS[f"seed_gt_prodclip{bound}"] = Estimator(
        c.score(partial(c.product_of_truncated, maximum=bound), c.logged), BIASED
    )
