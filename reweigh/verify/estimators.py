"""Every estimator of the golden file, by its name there, and what it is unbiased for."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from reweigh.core.reduce import count_episodes, count_steps
from reweigh.core.segments import Segments
from reweigh.verify.parts import (
    PerStep,
    action_value,
    advantage,
    balance,
    balance_trajectory,
    doubly_robust,
    doubly_robust_differentiated,
    exp,
    logged,
    logged_above_behaviour,
    logged_above_target,
    logged_total,
    marginal,
    normalised,
    normalised_over_alive,
    per_decision,
    per_decision_above_target,
    per_decision_bootstrap,
    per_decision_length_mean,
    power_mean,
    ppo,
    prefix,
    product_of_truncated,
    step,
    target,
    trajectory,
    truncated,
    unit,
    vtrace,
    weighted,
)


@dataclass(frozen=True)
class Estimator:
    """An estimator of a policy gradient."""

    objective: PerStep
    """Per-step objective to maximise, `[S]`."""
    target: str
    """What its expectation is, exactly."""
    divisor: Callable[[Segments], Tensor] = count_episodes
    whole_batch: bool = False
    """Whether an episode's term depends on the other episodes of the batch."""


GRADIENT = "∇J_γ"
SURROGATE = "∇ of the TRPO surrogate"
SEED = "visits as θ, continues as φ"
OFF_PAC = "visits as φ, continues as θ"
BIASED = "biased"
CONSISTENT = "as N→∞, as un-normalised"

_seed_gt = weighted(exp(prefix), logged)
_pdis = weighted(unit, per_decision(prefix))

ESTIMATORS: dict[str, Estimator] = {
    "reinforce_old": Estimator(weighted(unit, logged), f"{GRADIENT} only if φ = θ"),
    "reinforce_old_nogt": Estimator(
        weighted(unit, logged, from_start=False), "∇J only if φ = θ and γ = 1"
    ),
    "step": Estimator(weighted(exp(step), logged), SURROGATE),
    "step_nogt": Estimator(
        weighted(exp(step), logged, from_start=False), f"{SURROGATE}, γ^t dropped"
    ),
    "seed": Estimator(weighted(exp(prefix), logged, from_start=False), f"{SEED}, γ^t dropped"),
    "seed_gt": Estimator(_seed_gt, SEED),
    "pdis": Estimator(_pdis, GRADIENT),
    "pdis_nogt": Estimator(
        weighted(unit, per_decision(prefix), from_start=False), f"{GRADIENT}, γ^t dropped"
    ),
    "traj_rtg": Estimator(weighted(exp(trajectory), logged), GRADIENT),
    "traj_total": Estimator(weighted(exp(trajectory), logged_total, from_start=False), GRADIENT),
    "vtrace_1_1": Estimator(weighted(unit, vtrace(1.0)), BIASED),
    "vtrace_inf": Estimator(weighted(unit, vtrace(math.inf)), f"{OFF_PAC}, with exact V"),
    "ppo_clip0.2": Estimator(ppo, BIASED),
    "step_Qtheta": Estimator(weighted(exp(step), action_value("theta")), OFF_PAC),
    "prefix_Qtheta": Estimator(weighted(exp(prefix), action_value("theta")), GRADIENT),
    "reinforce_old_base": Estimator(
        weighted(unit, logged_above_behaviour), f"{BIASED}; a baseline changes it"
    ),
    "step_base": Estimator(weighted(exp(step), logged_above_behaviour), SURROGATE),
    "seed_gt_base": Estimator(weighted(exp(prefix), logged_above_behaviour), SEED),
    "pdis_base": Estimator(weighted(unit, per_decision_above_target), GRADIENT),
    "traj_base": Estimator(weighted(exp(trajectory), logged_above_target), GRADIENT),
    "seed_gt_trunc2_base": Estimator(
        weighted(exp(truncated(prefix, 2.0)), logged_above_behaviour),
        f"{BIASED}; a baseline changes it",
    ),
    "pdis_lenmean": Estimator(weighted(unit, per_decision_length_mean), "biased for every N"),
    "pdis_tokenmean": Estimator(
        _pdis, f"as N→∞, {GRADIENT} / E_φ[T]", divisor=count_steps, whole_batch=True
    ),
    "sn_seed_gt": Estimator(
        weighted(exp(normalised(prefix)), logged), CONSISTENT, whole_batch=True
    ),
    "sn_pdis": Estimator(
        weighted(unit, per_decision(normalised(prefix))), CONSISTENT, whole_batch=True
    ),
    "sn_traj": Estimator(
        weighted(exp(normalised(trajectory)), logged), CONSISTENT, whole_batch=True
    ),
    "sn_seed_gt_active": Estimator(
        weighted(exp(normalised_over_alive), logged), "inconsistent: never", whole_batch=True
    ),
    "marg_Qtheta": Estimator(weighted(exp(marginal), action_value("theta")), GRADIENT),
    "marg_Qphi": Estimator(weighted(exp(marginal), action_value("phi")), SEED),
    "marg_rtg": Estimator(weighted(exp(marginal), logged), SEED),
    "marg_pdis": Estimator(weighted(exp(marginal), target), GRADIENT),
    "marg_Atheta": Estimator(weighted(exp(marginal), advantage), GRADIENT),
    "dr_exactQ": Estimator(doubly_robust(lambda s: s.action_values("theta")), GRADIENT),
    "dr_misQ": Estimator(doubly_robust(lambda s: s.action_values("critic")), GRADIENT),
    "dr_full": Estimator(doubly_robust_differentiated, GRADIENT),
    "pdis_cut": Estimator(_pdis, "∇ of the first h rewards"),
    "pdis_boot_theta": Estimator(
        weighted(unit, per_decision_bootstrap(lambda s: s.bootstrap("theta"))),
        f"first h terms of {GRADIENT}",
    ),
    "pdis_boot_phi": Estimator(
        weighted(unit, per_decision_bootstrap(lambda s: s.bootstrap("phi"))), BIASED
    ),
    "mix_src_seed_gt": Estimator(_seed_gt, f"{SEED}, a mixture"),
    "mix_src_pdis": Estimator(_pdis, GRADIENT),
    "mix_bh_seed_gt": Estimator(
        weighted(exp(balance), logged), "visits as θ, continues as the sources"
    ),
    "mix_bh_pdis": Estimator(weighted(unit, per_decision(balance)), GRADIENT),
    "mix_bh_traj": Estimator(weighted(exp(balance_trajectory), logged), GRADIENT),
    "mix_pm_traj": Estimator(weighted(exp(power_mean(trajectory, "given")), logged), BIASED),
    "mix_pm_traj_paper": Estimator(weighted(exp(power_mean(trajectory, "paper")), logged), BIASED),
    "mix_pm_pdis": Estimator(weighted(unit, per_decision(power_mean(prefix, "given"))), BIASED),
    "mix_def_pdis": Estimator(weighted(unit, per_decision(balance)), GRADIENT),
    "mix_def_traj": Estimator(weighted(exp(balance_trajectory), logged), GRADIENT),
}
for _c in (1, 2, 5):
    ESTIMATORS[f"seed_gt_trunc{_c}"] = Estimator(
        weighted(exp(truncated(prefix, _c)), logged), BIASED
    )
    ESTIMATORS[f"pdis_trunc{_c}"] = Estimator(
        weighted(unit, per_decision(truncated(prefix, _c))), BIASED
    )
    ESTIMATORS[f"seed_gt_prodclip{_c}"] = Estimator(
        weighted(exp(product_of_truncated(_c)), logged), BIASED
    )
