"""Estimators with a learned critic."""

import torch
from torch import Tensor

from reweigh.core import advantages as adv
from reweigh.core import surrogates
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments


def vtrace(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
) -> Tensor:
    """IMPALA's policy gradient: `ĝ = (1/N) Σ_i Σ_t min(1, ρ_t) (r_t + γ v_{t+1} - V_t) score_t`.

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

    Returns:
        Scalar. With `φ = θ` the advantage is that of `gae` with λ = 1.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    trace = adv.vtrace(rewards, values, bootstrap, ratios, segments, discount=discount)
    unit = torch.ones_like(trace.advantages)
    return loss(
        surrogates.weighted_log_prob(log_prob_target, unit, trace.advantages, segments), segments
    )
