"""Advantages and value targets from a critic: one linear recurrence each.

Nothing here is differentiated: targets and advantages are constants of the update they serve.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import linear_recurrence
from reweigh.core.segments import Segments
from reweigh.core.weights import truncate


class VTrace(NamedTuple):
    """What V-trace estimates at each step, all `[S]` float64."""

    targets: Tensor
    """`v_t`, the value target of `s_t`."""
    action_values: Tensor
    """`r_t + γ v_{t+1}`, the estimate of the action's value, without a ratio of its own step."""
    advantages: Tensor
    """`min(ρ̄_pg, ρ_t) (r_t + γ v_{t+1} - V(s_t))`, the policy gradient's coefficient."""


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float,
) -> Tensor:
    """Generalised advantage estimation: `A_t = δ_t + γλ A_{t+1}`, `δ_t = r_t + γ V_{t+1} - V_t`.

    Schulman et al. 2016, equation 16. The continuation is the behaviour's.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, the value after each episode's last step: 0 where it terminated, `V` of
            the final observation where it was cut.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1]: 0 is the one-step TD error, 1 is return minus value.

    Returns:
        `[S]` float64. Plus `values`, it is the λ-return.

    Raises:
        ValueError: Another shape; γ or λ outside [0, 1].
    """
    contracts.between("discount", discount, 0, 1)
    contracts.between("trace_lambda", trace_lambda, 0, 1)
    v = segments.read("values", values)
    delta = _action_values(rewards, values, bootstrap, segments, discount) - v
    return linear_recurrence(delta, torch.full_like(delta, discount * trace_lambda), segments)


@torch.no_grad()
def vtrace(
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    log_ratios: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
    max_rho: float = 1.0,
    max_c: float = 1.0,
    max_rho_advantage: float = 1.0,
) -> VTrace:
    """V-trace: off-policy value targets and advantages with truncated ratios.

    `v_t = V_t + Σ_{k≥t} γ^(k-t) (Π_{i=t}^{k-1} c_i) ρ_k δ_k`, with `ρ_k = min(ρ̄, ρ_k)`,
    `c_i = λ min(c̄, ρ_i)` and `δ_k = r_k + γ V_{k+1} - V_k`. Espeholt et al. 2018, equation 1 and
    remark 2. `ρ̄` decides which policy's value is estimated (the target's at infinity), `c̄` and λ
    only how fast and how noisily.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, the value after each episode's last step, as in `gae`.
        log_ratios: `[S]`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].
        max_rho: ρ̄ above 0; infinity does not truncate.
        max_c: c̄ above 0; infinity does not truncate.
        max_rho_advantage: ρ̄_pg above 0, the truncation of the advantage's own ratio.

    Returns:
        Targets, action values and advantages. On-policy, with the thresholds at 1 or above, the
        targets are `gae + values` with the same λ.

    Raises:
        ValueError: Another shape; γ or λ outside [0, 1]; a threshold that is not positive.
    """
    contracts.between("discount", discount, 0, 1)
    contracts.between("trace_lambda", trace_lambda, 0, 1)
    rho = _truncated(log_ratios, segments, "max_rho", max_rho)
    c = trace_lambda * _truncated(log_ratios, segments, "max_c", max_c)
    rho_advantage = _truncated(log_ratios, segments, "max_rho_advantage", max_rho_advantage)
    v = segments.read("values", values)
    delta = rho * (_action_values(rewards, values, bootstrap, segments, discount) - v)
    targets = v + linear_recurrence(delta, discount * c, segments)
    action_values = _action_values(rewards, targets, bootstrap, segments, discount)
    return VTrace(targets, action_values, rho_advantage * (action_values - v))


def _action_values(rewards, values, bootstrap, segments, discount) -> Tensor:
    """`r_t + γ V_{t+1}`, with the bootstrap after the last step."""
    final = segments.read_episodes("bootstrap", bootstrap)
    return segments.read("rewards", rewards) + discount * segments.next(
        segments.read("values", values), final
    )


def _truncated(log_ratios: Tensor, segments: Segments, name: str, maximum: float) -> Tensor:
    contracts.positive(name, maximum)
    return truncate(log_ratios, segments, maximum=maximum).log_weights.exp()
