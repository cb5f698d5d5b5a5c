"""Every estimator of the golden file that the library can compose, by its name there."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reweigh.core import advantages, returns, surrogates, weights
from reweigh.core.segments import Segments
from reweigh.verify.samples import Sample

PerStep = Callable[[Sample], Tensor]


def count_episodes(segments: Segments) -> float:
    """The usual divisor: N."""
    return len(segments)


def count_steps(segments: Segments) -> float:
    """The divisor of a mean over steps (tokens)."""
    return float(segments.lengths.sum())


@dataclass(frozen=True)
class Estimator:
    """An estimator of a policy gradient."""

    objective: PerStep
    """Per-step objective to maximise, `[S]`."""
    target: str
    """What its expectation is, exactly."""
    divisor: Callable[[Segments], float] = count_episodes
    whole_batch: bool = False
    """Whether an episode's term depends on the other episodes of the batch."""


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


def _step(s: Sample) -> Tensor:
    return weights.step(s.log_ratios, s.segments)


def _prefix(s: Sample) -> Tensor:
    return weights.prefix(s.log_ratios, s.segments)


def _trajectory(s: Sample) -> Tensor:
    return weights.trajectory(s.log_ratios, s.segments)


def _balance(s: Sample) -> Tensor:
    return weights.balance_heuristic(s.log_prob, s.log_prob_sources, s.proportions, s.segments)


def _balance_trajectory(s: Sample) -> Tensor:
    return s.segments.spread(s.segments.last(_balance(s)))


def _truncated(log_weights: PerStep, maximum: float) -> PerStep:
    return lambda s: weights.truncate(log_weights(s), s.segments, maximum=maximum).log_weights


def _product_of_truncated(maximum: float) -> PerStep:
    return lambda s: weights.prefix(_truncated(_step, maximum)(s), s.segments)


def _normalised(log_weights: PerStep) -> PerStep:
    return lambda s: weights.self_normalise(log_weights(s), s.segments)


# Plain weights.


def _unit(s: Sample) -> Tensor:
    return torch.ones_like(s.log_ratios)


def _exp(log_weights: PerStep) -> PerStep:
    return lambda s: log_weights(s).exp()


# Continuations: what multiplies weight and score.


def _logged(s: Sample) -> Tensor:
    return returns.reward_to_go(s.rewards, s.segments, discount=s.discount)


def _logged_total(s: Sample) -> Tensor:
    first = s.segments.inside & (s.segments.time == 0)
    return s.segments.spread(s.segments.total(torch.where(first, _logged(s), 0.0)))


def _logged_above_behaviour(s: Sample) -> Tensor:
    return _logged(s) - s.value("phi")


def _logged_above_target(s: Sample) -> Tensor:
    return _logged(s) - s.value("theta")


def _action_value(s: Sample) -> Tensor:
    return s.action_value


def _per_decision(log_weights: PerStep) -> PerStep:
    return lambda s: returns.per_decision(
        s.rewards, log_weights(s), s.segments, discount=s.discount
    )


def _per_decision_above_target(s: Sample) -> Tensor:
    return _per_decision(_prefix)(s) - _prefix(s).exp() * s.value("theta")


def _per_decision_length_mean(s: Sample) -> Tensor:
    return _per_decision(_prefix)(s) / s.segments.spread(s.segments.lengths.double())


def _per_decision_bootstrap(bootstrap: PerStep) -> PerStep:
    return lambda s: returns.per_decision(
        s.rewards, _prefix(s), s.segments, discount=s.discount, bootstrap=bootstrap(s)
    )


def _vtrace(threshold: float) -> PerStep:
    return lambda s: (
        advantages.vtrace(
            s.rewards,
            s.value("theta"),
            torch.zeros_like(s.bootstrap("theta")),
            s.log_ratios,
            s.segments,
            discount=s.discount,
            max_rho=threshold,
            max_c=threshold,
            max_rho_advantage=threshold,
        ).advantages
    )


def _ppo(s: Sample) -> Tensor:
    advantage = _logged_above_behaviour(s)
    return surrogates.clipped_ratio(s.log_ratios, advantage, s.segments, clip=0.2)


GRADIENT = "∇J_γ"
SURROGATE = "∇ of the TRPO surrogate"
SEED = "visits as θ, continues as φ"
OFF_PAC = "visits as φ, continues as θ"
BIASED = "biased"
CONSISTENT = "as N→∞, as un-normalised"

_seed_gt = weighted(_exp(_prefix), _logged)
_pdis = weighted(_unit, _per_decision(_prefix))

ESTIMATORS: dict[str, Estimator] = {
    "reinforce_old": Estimator(weighted(_unit, _logged), f"{GRADIENT} only if φ = θ"),
    "reinforce_old_nogt": Estimator(
        weighted(_unit, _logged, from_start=False), "∇J only if φ = θ and γ = 1"
    ),
    "step": Estimator(weighted(_exp(_step), _logged), SURROGATE),
    "step_nogt": Estimator(
        weighted(_exp(_step), _logged, from_start=False), f"{SURROGATE}, γ^t dropped"
    ),
    "seed": Estimator(weighted(_exp(_prefix), _logged, from_start=False), f"{SEED}, γ^t dropped"),
    "seed_gt": Estimator(_seed_gt, SEED),
    "pdis": Estimator(_pdis, GRADIENT),
    "pdis_nogt": Estimator(
        weighted(_unit, _per_decision(_prefix), from_start=False), f"{GRADIENT}, γ^t dropped"
    ),
    "traj_rtg": Estimator(weighted(_exp(_trajectory), _logged), GRADIENT),
    "traj_total": Estimator(weighted(_exp(_trajectory), _logged_total, from_start=False), GRADIENT),
    "vtrace_1_1": Estimator(weighted(_unit, _vtrace(1.0)), BIASED),
    "vtrace_inf": Estimator(weighted(_unit, _vtrace(math.inf)), f"{OFF_PAC}, with exact V"),
    "ppo_clip0.2": Estimator(_ppo, BIASED),
    "step_Qtheta": Estimator(weighted(_exp(_step), _action_value), OFF_PAC),
    "prefix_Qtheta": Estimator(weighted(_exp(_prefix), _action_value), GRADIENT),
    "reinforce_old_base": Estimator(
        weighted(_unit, _logged_above_behaviour), f"{BIASED}; a baseline changes it"
    ),
    "step_base": Estimator(weighted(_exp(_step), _logged_above_behaviour), SURROGATE),
    "seed_gt_base": Estimator(weighted(_exp(_prefix), _logged_above_behaviour), SEED),
    "pdis_base": Estimator(weighted(_unit, _per_decision_above_target), GRADIENT),
    "traj_base": Estimator(weighted(_exp(_trajectory), _logged_above_target), GRADIENT),
    "seed_gt_trunc2_base": Estimator(
        weighted(_exp(_truncated(_prefix, 2.0)), _logged_above_behaviour),
        f"{BIASED}; a baseline changes it",
    ),
    "pdis_lenmean": Estimator(weighted(_unit, _per_decision_length_mean), "biased for every N"),
    "pdis_tokenmean": Estimator(
        _pdis, f"as N→∞, {GRADIENT} / E_φ[T]", divisor=count_steps, whole_batch=True
    ),
    "sn_seed_gt": Estimator(
        weighted(_exp(_normalised(_prefix)), _logged), CONSISTENT, whole_batch=True
    ),
    "sn_pdis": Estimator(
        weighted(_unit, _per_decision(_normalised(_prefix))), CONSISTENT, whole_batch=True
    ),
    "sn_traj": Estimator(
        weighted(_exp(_normalised(_trajectory)), _logged), CONSISTENT, whole_batch=True
    ),
    "pdis_cut": Estimator(_pdis, "∇ of the first h rewards"),
    "pdis_boot_theta": Estimator(
        weighted(_unit, _per_decision_bootstrap(lambda s: s.bootstrap("theta"))),
        f"first h terms of {GRADIENT}",
    ),
    "pdis_boot_phi": Estimator(
        weighted(_unit, _per_decision_bootstrap(lambda s: s.bootstrap("phi"))), BIASED
    ),
    "mix_src_seed_gt": Estimator(_seed_gt, f"{SEED}, a mixture"),
    "mix_src_pdis": Estimator(_pdis, GRADIENT),
    "mix_bh_seed_gt": Estimator(
        weighted(_exp(_balance), _logged), "visits as θ, continues as the sources"
    ),
    "mix_bh_pdis": Estimator(weighted(_unit, _per_decision(_balance)), GRADIENT),
    "mix_bh_traj": Estimator(weighted(_exp(_balance_trajectory), _logged), GRADIENT),
    "mix_def_pdis": Estimator(weighted(_unit, _per_decision(_balance)), GRADIENT),
    "mix_def_traj": Estimator(weighted(_exp(_balance_trajectory), _logged), GRADIENT),
}
for _c in (1, 2, 5):
    ESTIMATORS[f"seed_gt_trunc{_c}"] = Estimator(
        weighted(_exp(_truncated(_prefix, _c)), _logged), BIASED
    )
    ESTIMATORS[f"pdis_trunc{_c}"] = Estimator(
        weighted(_unit, _per_decision(_truncated(_prefix, _c))), BIASED
    )
    ESTIMATORS[f"seed_gt_prodclip{_c}"] = Estimator(
        weighted(_exp(_product_of_truncated(_c)), _logged), BIASED
    )
