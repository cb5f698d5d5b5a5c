"""Off-policy action-value targets: Retrace and its relatives, one recurrence with five traces.

Nothing here is differentiated: targets are constants of the update they serve.
"""

import math

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import returns
from reweigh.core.segments import Segments
from reweigh.core.weights import truncate


@torch.no_grad()
def corrected_action_values(
    rewards: Tensor,
    values: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    log_cs: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
) -> Tensor:
    """`Q^ret_t = r_t + γ (V_{t+1} + λ c_{t+1} (Q^ret_{t+1} - Q_{t+1}))`.

    The general return of Munos et al. 2016, equation 3: a fixed point is `Q^θ` for every trace with
    `0 ≤ λ c ≤ ρ`; smaller traces only make it slower and less noisy. `c = ρ` is importance sampling
    around a critic (Precup et al. 2000, section 3), of a variance that grows exponentially with the
    rest of the episode; the functions below are other choices of `c`.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t) = E_{a~θ}[Q(s_t, a)]`.
        action_values: `[S]`, `Q(s_t, a_t)`.
        bootstrap: `[N]`, the value `V` after each episode's last step: 0 where it terminated.
        log_cs: `[S]`, the trace of each step's action, without λ; `-inf` cuts. The trace of an
            episode's first step does not matter.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].

    Returns:
        `[S]` float64. With λ = 0 it is `one_step`.

    Raises:
        ValueError: Wrong shape; γ or λ outside [0, 1].
    """
    contracts.require_between("trace_lambda", trace_lambda, 0, 1)
    # λ joins the trace as a logarithm: -inf at λ = 0, where the trace is cut however large c is.
    log_lambda = math.log(trace_lambda) if trace_lambda > 0 else -math.inf
    log_cs = segments.fill(segments.as_float64("log_cs", log_cs) + log_lambda)
    residuals = returns.doubly_robust_values(
        rewards,
        log_cs,
        values,
        action_values,
        segments,
        discount=discount,
        bootstrap=bootstrap,
    ).residuals
    return segments.as_float64("action_values", action_values) + residuals


@torch.no_grad()
def retrace(
    rewards: Tensor,
    values: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    log_ratios: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
) -> Tensor:
    """Retrace(λ): `corrected_action_values` with `c = min(1, ρ)`.

    Munos et al. 2016, section 3. Contracts to `Q^θ` for any behaviour, with traces that never
    exceed 1 and are not cut while the policies agree. With λ = 1 it is `Q^ret` of ACER (Wang et al.
    2017, equation 5).

    Args:
        log_ratios: `[S]`. The others are those of `corrected_action_values`.

    Returns:
        `[S]` float64. On-policy it is `q_pi_lambda`.

    Raises:
        ValueError: As `corrected_action_values`.
    """
    return corrected_action_values(
        rewards,
        values,
        action_values,
        bootstrap,
        truncate(log_ratios, segments, maximum=1.0).log_weights,
        segments,
        discount=discount,
        trace_lambda=trace_lambda,
    )


@torch.no_grad()
def tree_backup(
    rewards: Tensor,
    values: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    log_prob_target: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
) -> Tensor:
    """Tree backup, TB(λ): `corrected_action_values` with `c = π_θ(a|s)`.

    Precup et al. 2000, section 4. Needs no behaviour probabilities and converges for any behaviour;
    cuts traces even where the policies agree.

    Args:
        log_prob_target: `[S]`, of discrete actions. The others are those of
            `corrected_action_values`.

    Returns:
        `[S]` float64. If the target is deterministic and took every action, it is `q_pi_lambda`.

    Raises:
        ValueError: As `corrected_action_values`; a half-precision log-probability.
    """
    contracts.require_full_precision("log_prob_target", log_prob_target)
    return corrected_action_values(
        rewards,
        values,
        action_values,
        bootstrap,
        log_prob_target,
        segments,
        discount=discount,
        trace_lambda=trace_lambda,
    )


@torch.no_grad()
def q_lambda(
    rewards: Tensor,
    values: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    greedy: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float,
) -> Tensor:
    """Watkins's Q(λ): `corrected_action_values` with `c = 1[a_t is greedy]`.

    Watkins 1989: the trace is cut at the first action that the target, greedy in `Q`, would not
    have taken. (Peng's Q(λ) never cuts, and is no estimate of the greedy policy's values.)

    Args:
        values: `[S]`, `max_a Q(s_t, a)`.
        bootstrap: `[N]`, a maximum too.
        greedy: `[S]` bool: whether the action taken is a maximising one. The others are those of
            `corrected_action_values`.

    Returns:
        `[S]` float64. If every action is greedy, it is `q_pi_lambda`.

    Raises:
        ValueError: As `corrected_action_values`; `greedy` that is not bool.
    """
    contracts.require_vector("greedy", greedy, segments.size, "position")
    contracts.require_boolean("greedy", greedy)
    return corrected_action_values(
        rewards,
        values,
        action_values,
        bootstrap,
        torch.where(greedy, 0.0, -torch.inf),
        segments,
        discount=discount,
        trace_lambda=trace_lambda,
    )


@torch.no_grad()
def q_pi_lambda(
    rewards: Tensor,
    values: Tensor,
    action_values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float,
) -> Tensor:
    """Q^π(λ): `corrected_action_values` with `c = 1`: only `V` is corrected.

    Harutyunyan et al. 2016, equation 4. Converges to `Q^θ` only while the policies are near:
    `‖π - μ‖₁ ≤ (1 - γ) / (λ γ)`.

    Returns:
        `[S]` float64. With `Q = V` it is `gae + values`.

    Raises:
        ValueError: As `corrected_action_values`.
    """
    return corrected_action_values(
        rewards,
        values,
        action_values,
        bootstrap,
        torch.zeros_like(action_values),
        segments,
        discount=discount,
        trace_lambda=trace_lambda,
    )
