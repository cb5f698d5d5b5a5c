"""Returns from rewards alone, and which policy the steps after `t` belong to.

The *continuation* of a return is the policy that its rewards after `t` are about: the behaviour's
for logged rewards as they are (`reward_to_go`), the target's for weighted ones (`per_decision`).
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.scan import linear_recurrence
from reweigh.core.segments import Segments


def reward_to_go(
    rewards: Tensor, segments: Segments, *, discount: float, bootstrap: Tensor | None = None
) -> Tensor:
    """Discounted logged reward-to-go `G_t = Σ_{t'≥t} γ^(t'-t) r_t'`: the behaviour's continuation.

    An unbiased sample of `Q^φ(s_t, a_t)`, the behaviour's action value.

    Args:
        rewards: `[S]`.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        bootstrap: `[N]`, the value after each episode's last step: 0 where it terminated. Without
            it, 0 everywhere.

    Returns:
        `[S]` float64. With γ = 0 it is the reward.

    Raises:
        ValueError: Another shape; γ outside [0, 1].
    """
    unweighted = torch.zeros_like(rewards, dtype=torch.float64)
    return per_decision(rewards, unweighted, segments, discount=discount, bootstrap=bootstrap)


def per_decision(
    rewards: Tensor,
    log_weights: Tensor,
    segments: Segments,
    *,
    discount: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Per-decision return `Σ_{t'≥t} γ^(t'-t) w_t' r_t'`: the target's continuation.

    Each reward carries the weight of the steps that led to it (Precup et al. 2000, section 3). With
    prefix weights, `E_φ[score_t · this] = E_θ[score_t Q^θ(s_t, a_t)]`; the weight of step `t` is
    already in it. The bootstrap carries the last step's weight.

    Args:
        rewards: `[S]`.
        log_weights: `[S]`, prefix log-weights, bounded or normalised as composed.
        segments: Where the episodes lie.
        discount: γ in [0, 1].
        bootstrap: `[N]`, as in `reward_to_go`.

    Returns:
        `[S]` float64, differentiable in all tensors. With log-weights 0 it is `reward_to_go`.

    Raises:
        ValueError: Another shape; γ outside [0, 1].
    """
    contracts.between("discount", discount, 0, 1)
    rewards = segments.read("rewards", rewards)
    weights = segments.fill(segments.read("log_weights", log_weights).exp())
    if bootstrap is not None:
        final = segments.read_episodes("bootstrap", bootstrap)
        rewards = rewards + discount * segments.next(torch.zeros_like(rewards), final)
    return linear_recurrence(weights * rewards, torch.full_like(rewards, discount), segments)


def discount_from_start(segments: Segments, *, discount: float) -> Tensor:
    """`γ^t` with `t` counted from the episode's true start (`time_start` counts).

    With this factor on each step's term a policy gradient is that of the discounted return `J_γ`.
    Without it, as is usual, it is the gradient of no function when γ < 1.

    Args:
        segments: Where the episodes lie.
        discount: γ in [0, 1].

    Returns:
        `[S]` float64, 0 where no step exists.

    Raises:
        ValueError: γ outside [0, 1].
    """
    contracts.between("discount", discount, 0, 1)
    return segments.fill(discount ** segments.time.double())
