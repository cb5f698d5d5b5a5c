"""Off-policy value targets and advantages from a critic of states: V-trace."""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh.core.advantages.multistep import one_step
from reweigh.core.scan import times, unscale, weighted_recurrence
from reweigh.core.segments import Segments


class VTrace(NamedTuple):
    """What V-trace estimates at each step, all `[S]` float64."""

    targets: Tensor
    """`v_t`, the value target of `s_t`."""
    action_values: Tensor
    """`r_t + γ v_{t+1}`, the estimate of the action's value, without a ratio of its own step."""
    advantages: Tensor
    """`ρ_t (r_t + γ v_{t+1} - V(s_t))`, the policy gradient's coefficient."""


@torch.no_grad()
def vtrace(
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    log_rhos: Tensor,
    log_cs: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
) -> VTrace:
    """V-trace, off-policy targets: `v_t = V_t + Σ_{k≥t} (γλ)^(k-t) (Π_{i=t}^{k-1} c_i) ρ_k δ_k`.

    With `δ_k = r_k + γ V_{k+1} - V_k` (Espeholt et al. 2018, equation 1 and remark 2). `ρ`, the
    correction of the step's own difference, decides which policy's value is estimated: the target's
    without a bound. `c` and λ only decide how fast and how noisily. The caller bounds both, in the
    paper by `weights.truncate(log_ratios, segments, maximum=1.0).log_weights`; with
    `weights.leaky_truncate` it is the leaky V-trace of Zahavy et al. 2020. Nothing is
    differentiated.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, the value after each episode's last step, as in `one_step`.
        log_rhos: `[S]`, log-ratios, bounded as composed.
        log_cs: `[S]`, log-ratios, bounded as composed; without λ.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].

    Returns:
        Targets, action values and advantages. With all log-ratios 0, the targets are `gae + values`
        with the same λ; without bounds and with λ = 1, the `returns.doubly_robust_values` with the
        action values `V`.

    Raises:
        ValueError: Wrong shape; γ or λ outside [0, 1].
    """
    v = segments.as_float64("values", values)
    delta = one_step(rewards, values, bootstrap, segments, discount=discount) - v
    log_rhos = segments.as_float64("log_rhos", log_rhos)
    scaled, log_scale = weighted_recurrence(
        delta,
        log_rhos,
        segments.as_float64("log_cs", log_cs),
        segments,
        discount=discount,
        trace_lambda=trace_lambda,
    )
    targets = v + unscale(scaled, log_scale)
    action_values = one_step(rewards, targets, bootstrap, segments, discount=discount)
    # r_t + γ v_{t+1} - V_t = δ_t + γ (v_{t+1} - V_{t+1}). The second term may overflow where its
    # product with a small ratio of this step does not, so their logarithms are added first.
    final = v.new_zeros(len(segments))
    later = unscale(segments.next(scaled, final), segments.next(log_scale, final) + log_rhos)
    # 0 * inf counts as 0.
    now = torch.where(delta == 0, 0.0, log_rhos.exp() * delta)
    return VTrace(targets, action_values, segments.fill(now + times(discount, later)))
