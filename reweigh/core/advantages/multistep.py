"""Targets and advantages from a critic, with the behaviour's own continuation, and baselines.

Nothing here is differentiated: targets and advantages are constants of the update they serve.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import linear_recurrence, times
from reweigh.core.segments import Segments


@torch.no_grad()
def one_step(
    rewards: Tensor, values: Tensor, bootstrap: Tensor, segments: Segments, *, discount: float
) -> Tensor:
    """The one-step target: `r_t + γ V_{t+1}`, with the bootstrap after the last step.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, the value after each episode's last step: 0 where it terminated, `V` of
            the final observation where it was cut.
        discount: γ in [0, 1].

    Returns:
        `[S]` float64. Minus `values`, it is `gae` with λ = 0.

    Raises:
        ValueError: Wrong shape; γ outside [0, 1].
    """
    contracts.require_between("discount", discount, 0, 1)
    final = segments.episodes_as_float64("bootstrap", bootstrap)
    following = segments.next(segments.as_float64("values", values), final)
    return segments.as_float64("rewards", rewards) + times(discount, following)


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
        bootstrap: `[N]`, the value after each episode's last step, as in `one_step`.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1]: 0 is the one-step TD error, 1 is return minus value.

    Returns:
        `[S]` float64. Plus `values`, it is the λ-return `G_t = r_t + γ ((1-λ) V_{t+1} + λ G_{t+1})`
        (Sutton and Barto 2018, section 12.1).

    Raises:
        ValueError: Wrong shape; γ or λ outside [0, 1].
    """
    contracts.require_between("trace_lambda", trace_lambda, 0, 1)
    v = segments.as_float64("values", values)
    delta = one_step(rewards, values, bootstrap, segments, discount=discount) - v
    return linear_recurrence(delta, torch.full_like(delta, discount * trace_lambda), segments)


@torch.no_grad()
def above_baseline(
    continuation: Tensor, log_weights: Tensor, baseline: Tensor, segments: Segments
) -> Tensor:
    """A weighted continuation above its baseline: `C_t - w_t b_t`.

    With prefix weights and `returns.weighted_reward_to_go` as `C_t`, or `w_t G_t`, or `W G_t` with
    trajectory weights: `E_φ[w_t b_t score_t] = 0`, so the expected gradient is that without a
    baseline. This needs the *same* weight on both, which is a function of `s_0..s_t, a_<t`, times
    `ρ_t`, times future factors of mean one: the scopes `step`, `prefix` and `trajectory`, with or
    without state ratios. With clipped, truncated or otherwise bounded weights, or none, a baseline
    *changes* the expectation. It may depend on `s_0..s_t`, `a_<t` and on other episodes, but not on
    `a_t` nor on later steps.

    Args:
        continuation: `[S]`, with its weight in it.
        log_weights: `[S]`, that weight: of the step, prefix or trajectory; `-inf` is legal.
        baseline: `[S]`, `b_t`, such as a critic's `V(s_t)`.

    Returns:
        `[S]` float64. With a baseline of 0 it is the continuation.

    Raises:
        ValueError: Wrong shape.
    """
    log_weights = segments.as_float64("log_weights", log_weights)
    baseline = segments.as_float64("baseline", baseline)
    # 0 * inf counts as 0, on either side.
    zero = (baseline == 0) | (log_weights == -torch.inf)
    expected = torch.where(zero, 0.0, log_weights.exp() * baseline)
    return segments.as_float64("continuation", continuation) - expected
