"""Off-policy value targets and advantages: V-trace and its relatives, one recurrence.

Nothing here is differentiated: targets and advantages are constants of the update they serve.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.advantages.multistep import one_step
from reweigh.core.scan import linear_recurrence, max_plus_recurrence, unscale
from reweigh.core.segments import Segments
from reweigh.core.weights import leaky_truncate


class VTrace(NamedTuple):
    """What V-trace estimates at each step, all `[S]` float64."""

    targets: Tensor
    """`v_t`, the value target of `s_t`."""
    action_values: Tensor
    """`r_t + γ v_{t+1}`, the estimate of the action's value, without a ratio of its own step."""
    advantages: Tensor
    """`min(ρ̄_pg, ρ_t) (r_t + γ v_{t+1} - V(s_t))`, the policy gradient's coefficient."""


@torch.no_grad()
def corrected_values(
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    log_rho: Tensor,
    log_c: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
) -> Tensor:
    """Off-policy value targets: `v_t = V_t + Σ_{k≥t} (γλ)^(k-t) (Π_{i=t}^{k-1} c_i) ρ_k δ_k`.

    With `δ_k = r_k + γ V_{k+1} - V_k`: the sum that V-trace (Espeholt et al. 2018, equation 1) and
    its relatives share. `ρ`, the correction of the step's own difference, decides which policy's
    value is the fixed point; `c` and λ only how fast and how noisily it is reached.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, as in `gae`.
        log_rho: `[S]`, log-ratios, bounded as composed.
        log_c: `[S]`, likewise; without λ.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].

    Returns:
        `[S]` float64. With both log-ratios 0 it is `lambda_return`; with the log-ratios for both
        and λ = 1, the `doubly_robust` values with the action values `V`.

    Raises:
        ValueError: Another shape; γ or λ outside [0, 1].
    """
    v, delta = _differences(rewards, values, bootstrap, segments, discount)
    return v + unscale(*_sums(delta, log_rho, log_c, segments, discount, trace_lambda))


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
    return leaky_vtrace(
        rewards,
        values,
        bootstrap,
        log_ratios,
        segments,
        discount=discount,
        trace_lambda=trace_lambda,
        max_rho=max_rho,
        max_c=max_c,
        max_rho_advantage=max_rho_advantage,
        leak=0.0,
    )


@torch.no_grad()
def leaky_vtrace(
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
    leak: float,
) -> VTrace:
    """V-trace whose truncated ratios let a share of the excess through.

    Every `min(x̄, ρ)` of `vtrace` becomes `(1 - leak) min(x̄, ρ) + leak ρ`. Zahavy et al. 2020,
    "Self-Tuning Deep Reinforcement Learning", section 4.1, with `leak = 1 - α`. The bias shrinks
    and the variance grows as the leak does.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, as in `gae`.
        log_ratios: `[S]`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].
        max_rho: ρ̄ above 0.
        max_c: c̄ above 0.
        max_rho_advantage: ρ̄_pg above 0.
        leak: In [0, 1].

    Returns:
        Targets, action values and advantages. With `leak = 0` they are those of `vtrace`, with
        `leak = 1` those of `vtrace` without any truncation.

    Raises:
        ValueError: As `vtrace`; a leak outside [0, 1].
    """
    log_rho = _truncated(log_ratios, segments, "max_rho", max_rho, leak)
    log_c = _truncated(log_ratios, segments, "max_c", max_c, leak)
    own = _truncated(log_ratios, segments, "max_rho_advantage", max_rho_advantage, leak)
    v, delta = _differences(rewards, values, bootstrap, segments, discount)
    scaled, log_scale = _sums(delta, log_rho, log_c, segments, discount, trace_lambda)
    targets = v + unscale(scaled, log_scale)
    # r_t + γ v_{t+1} - V_t = δ_t + γ (v_{t+1} - V_{t+1}), whose last part a small ratio of this
    # step may keep from overflowing. An infinite ratio on nothing is nothing.
    nothing = v.new_zeros(len(segments))
    later = unscale(segments.next(scaled, nothing), segments.next(log_scale, nothing) + own)
    now = torch.where(delta == 0, 0.0, own.exp() * delta)
    action_values = one_step(rewards, targets, bootstrap, segments, discount=discount)
    return VTrace(targets, action_values, segments.fill(now + discount * later))


def _differences(
    rewards: Tensor, values: Tensor, bootstrap: Tensor, segments: Segments, discount: float
) -> tuple[Tensor, Tensor]:
    """`V_t`, and the temporal differences `δ_t = r_t + γ V_{t+1} - V_t`."""
    v = segments.as_float64("values", values)
    return v, one_step(rewards, values, bootstrap, segments, discount=discount) - v


def _sums(
    delta: Tensor,
    log_rho: Tensor,
    log_c: Tensor,
    segments: Segments,
    discount: float,
    trace_lambda: float,
) -> tuple[Tensor, Tensor]:
    """`y_t = ρ_t δ_t + γλ c_t y_{t+1}` as `y e^-m` and `m ≥ 0`.

    `m` is the logarithm of the largest coefficient in the sum, so that no product overflows; if no
    ratio exceeds 1 it is 0, and nothing is rounded.
    """
    contracts.between("trace_lambda", trace_lambda, 0, 1)
    log_rho, log_c = segments.as_float64("log_rho", log_rho), segments.as_float64("log_c", log_c)
    log_decay = math.log(discount * trace_lambda) if discount * trace_lambda > 0 else -math.inf
    log_scale = max_plus_recurrence(log_rho.clamp(min=0.0), log_c + log_decay, segments)
    later_scale = segments.next(log_scale, log_scale.new_zeros(len(segments)))
    c = trace_lambda * (log_c + later_scale - log_scale).exp()
    scaled = linear_recurrence((log_rho - log_scale).exp() * delta, discount * c, segments)
    return scaled, log_scale


def _truncated(
    log_ratios: Tensor, segments: Segments, name: str, maximum: float, leak: float
) -> Tensor:
    contracts.positive(name, maximum)
    return leaky_truncate(log_ratios, segments, maximum=maximum, leak=leak).log_weights
