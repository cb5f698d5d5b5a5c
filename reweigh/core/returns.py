"""Returns from rewards alone, and which policy the steps after `t` belong to.

The *continuation* of a return is the policy that its rewards after `t` are about: the behaviour's
for logged rewards as they are (`reward_to_go`), the target's for weighted ones
(`weighted_reward_to_go`, `target_reward_to_go`, `doubly_robust_values`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import linear_recurrence, unscale, weighted_recurrence
from reweigh.core.segments import Segments
from reweigh.core.weights import weigh


def reward_to_go(
    rewards: Tensor, segments: Segments, *, discount: float, bootstrap: Tensor | None = None
) -> Tensor:
    """Discounted logged reward-to-go `G_t = Σ_{t'≥t} γ^(t'-t) r_t'`: the behaviour's continuation.

    An unbiased sample of `Q^φ(s_t, a_t)`, the behaviour's action value.

    Args:
        rewards: `[S]`.
        discount: γ in [0, 1].
        bootstrap: `[N]`, the value after each episode's last step: 0 where it terminated. Without
            it, 0 everywhere.

    Returns:
        `[S]` float64. With γ = 0 it is the reward.

    Raises:
        ValueError: Wrong shape; γ outside [0, 1].
    """
    unweighted = torch.zeros_like(segments.mask, dtype=torch.float64)
    return weighted_reward_to_go(
        rewards, unweighted, segments, discount=discount, bootstrap=bootstrap
    )


def weighted_reward_to_go(
    rewards: Tensor,
    log_weights: Tensor,
    segments: Segments,
    *,
    discount: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Weighted reward-to-go `Σ_{t'≥t} γ^(t'-t) w_t' r_t'`: the target's continuation.

    Each reward carries the weight of the steps that led to it: per-decision importance sampling
    (Precup et al. 2000, section 3). With
    prefix weights, `E_φ[score_t · this] = E_θ[score_t Q^θ(s_t, a_t)]`; the weight of step `t` is
    already in it. The bootstrap carries the last step's weight. Rewards of both signs whose weights
    overflow have no sum in float64, and it is NaN: bound the weights first.

    Args:
        rewards: `[S]`.
        log_weights: `[S]`, prefix log-weights, bounded or normalised as composed.
        discount: γ in [0, 1].
        bootstrap: `[N]`, as in `reward_to_go`.

    Returns:
        `[S]` float64, differentiable in all tensors. With log-weights 0 it is `reward_to_go`.

    Raises:
        ValueError: Wrong shape; γ outside [0, 1].
    """
    contracts.require_between("discount", discount, 0, 1)
    rewards = segments.as_float64("rewards", rewards)
    log_weights = segments.as_float64("log_weights", log_weights)
    if bootstrap is not None:
        final = segments.episodes_as_float64("bootstrap", bootstrap)
        rewards = rewards + discount * segments.next(torch.zeros_like(rewards), final)
    weighted = segments.fill(weigh(log_weights, rewards))
    return linear_recurrence(weighted, torch.full_like(rewards, discount), segments)


class DoublyRobust(NamedTuple):
    """The recursive doubly robust estimates at each step, both `[S]` float64."""

    values: Tensor
    """`V^DR_t`, the estimate of the target's value of `s_t`."""
    residuals: Tensor
    """`r_t + γ V^DR_{t+1} - Q̂_t`: the critic's error from this step on, without the ratio of the
    step itself."""


def doubly_robust_values(
    rewards: Tensor,
    log_ratios: Tensor,
    values: Tensor,
    action_values: Tensor,
    segments: Segments,
    *,
    discount: float,
    bootstrap: Tensor | None = None,
) -> DoublyRobust:
    """Doubly robust value: `V^DR_t = V̂_t + ρ_t (r_t + γ V^DR_{t+1} - Q̂_t)`.

    Jiang and Li 2016, equation 10. `E_φ[V^DR_t | s_t] = V^θ(s_t)` for every `Q̂` that does not
    depend on the data, if `V̂_t = E_{a~θ}[Q̂_t(s_t, a)]`; with the true ones the residual has mean 0
    given state and action. The policy gradient is `Σ_t γ^t (w_t residual_t score_t +
    w_{t-1} Σ_a Q̂_t(s_t, a) ∇π_θ(a|s_t))`; or differentiate `V^DR` at the first steps.

    Args:
        rewards: `[S]`.
        log_ratios: `[S]`; `-inf` is legal.
        values: `[S]`, `V̂_t(s_t)`.
        action_values: `[S]`, `Q̂_t(s_t, a_t)`.
        discount: γ in [0, 1].
        bootstrap: `[N]`, as in `reward_to_go`.

    Returns:
        Values and residuals, differentiable in all tensors. `w_t residual_t` is
        `weighted_reward_to_go` of the rewards `r_t + γ V̂_{t+1} - Q̂_t`, with prefix weights.

    Raises:
        ValueError: Wrong shape; γ outside [0, 1].
    """
    contracts.require_between("discount", discount, 0, 1)
    log_ratios = segments.as_float64("log_ratios", log_ratios)
    values = segments.as_float64("values", values)
    final = values.new_zeros(len(segments))
    if bootstrap is not None:
        final = segments.episodes_as_float64("bootstrap", bootstrap)
    unexplained = segments.as_float64("rewards", rewards) + discount * segments.next(values, final)
    unexplained = unexplained - segments.as_float64("action_values", action_values)
    # The residual y_t = x_t + γ ρ_{t+1} y_{t+1} leaves the ratio of its own step out.
    later = segments.next(log_ratios, values.new_zeros(len(segments)))
    scaled, log_scale = weighted_recurrence(
        unexplained, torch.zeros_like(values), later, segments, discount=discount
    )
    # A small ratio of the step may undo the overflow of the residual, so it joins the exponent.
    corrections = unscale(scaled, log_scale + log_ratios)
    return DoublyRobust(values + corrections, unscale(scaled, log_scale))


def target_reward_to_go(
    rewards: Tensor,
    log_ratios: Tensor,
    segments: Segments,
    *,
    discount: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Reward-to-go of the target, from each step on: `G_t = r_t + γ ρ_{t+1} G_{t+1}`.

    Precup et al. 2000, section 3. `E_φ[G_t | s_t, a_t] = Q^θ(s_t, a_t)`: an unbiased sample of the
    target's action value that takes no critic. It carries the ratios *after* the step alone; with a
    state ratio, `m_t ρ_t G_t score_t` is an unbiased policy gradient whose variance grows with what
    remains of the episode.

    Args:
        rewards: `[S]`.
        log_ratios: `[S]`; `-inf` is legal.
        discount: γ in [0, 1].
        bootstrap: `[N]`, as in `reward_to_go`.

    Returns:
        `[S]` float64, differentiable in all tensors. It is the residual of `doubly_robust_values`
        with a critic of 0; times the prefix weight, `weighted_reward_to_go`.

    Raises:
        ValueError: Wrong shape; γ outside [0, 1].
    """
    zero = torch.zeros_like(rewards, dtype=torch.float64)
    return doubly_robust_values(
        rewards, log_ratios, zero, zero, segments, discount=discount, bootstrap=bootstrap
    ).residuals


def discount_from_start(segments: Segments, *, discount: float) -> Tensor:
    """`γ^t` with `t` counted from the episode's true start (`time_start` counts).

    With this factor on each step's term a policy gradient is that of the discounted return `J_γ`.
    Without it, as is usual, it is the gradient of no function when γ < 1.

    Args:
        discount: γ in [0, 1].

    Returns:
        `[S]` float64, 0 where no step exists.

    Raises:
        ValueError: γ outside [0, 1].
    """
    contracts.require_between("discount", discount, 0, 1)
    return segments.fill(discount ** segments.time.double())
