"""Value targets and advantages of the behaviour's own continuation, from a critic.

Nothing here is differentiated: targets and advantages are constants of the update they serve.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import discounted_window_sum, linear_recurrence
from reweigh.core.segments import Segments


@torch.no_grad()
def one_step(
    rewards: Tensor, values: Tensor, bootstrap: Tensor, segments: Segments, *, discount: float
) -> Tensor:
    """The one-step target: `r_t + γ V_{t+1}`, with the bootstrap after the last step.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, as in `gae`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].

    Returns:
        `[S]` float64. Minus `values`, it is `gae` with λ = 0.

    Raises:
        ValueError: Another shape; γ outside [0, 1].
    """
    contracts.between("discount", discount, 0, 1)
    final = segments.episodes_as_float64("bootstrap", bootstrap)
    return segments.as_float64("rewards", rewards) + discount * segments.next(
        segments.as_float64("values", values), final
    )


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
    v = segments.as_float64("values", values)
    delta = one_step(rewards, values, bootstrap, segments, discount=discount) - v
    return linear_recurrence(delta, torch.full_like(delta, discount * trace_lambda), segments)


@torch.no_grad()
def lambda_return(
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float,
) -> Tensor:
    """The λ-return: `G_t = r_t + γ ((1 - λ) V_{t+1} + λ G_{t+1})`.

    Sutton and Barto 2018, section 12.1. A mean of all n-step returns, with weights
    `(1 - λ) λ^(n-1)`. The continuation is the behaviour's.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, as in `gae`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].

    Returns:
        `[S]` float64. It is `gae + values`.

    Raises:
        ValueError: Another shape; γ or λ outside [0, 1].
    """
    advantages = gae(
        rewards, values, bootstrap, segments, discount=discount, trace_lambda=trace_lambda
    )
    return segments.as_float64("values", values) + advantages


@torch.no_grad()
def n_step(
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    segments: Segments,
    *,
    discount: float,
    steps: int,
) -> Tensor:
    """The n-step return: `G_t = Σ_{k<n} γ^k r_{t+k} + γ^n V_{t+n}`.

    Sutton and Barto 2018, equation 7.1. Where fewer than n steps remain, the bootstrap stands after
    the last one. The continuation is the behaviour's.

    Args:
        rewards: `[S]`.
        values: `[S]`, `V(s_t)`.
        bootstrap: `[N]`, as in `gae`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        steps: n, at least 1.

    Returns:
        `[S]` float64. With one step it is `gae + values` with λ = 0; with as many as the longest
        episode has, `reward_to_go`.

    Raises:
        ValueError: Another shape; γ outside [0, 1]; no step.
    """
    contracts.between("discount", discount, 0, 1)
    contracts.at_least("steps", steps, 1)
    v = segments.as_float64("values", values)
    # The sum of one-step differences: the values inside the window cancel.
    delta = one_step(rewards, values, bootstrap, segments, discount=discount) - v
    return v + discounted_window_sum(delta, segments, steps=steps, discount=discount)
