"""`Q^θ` from a log that another policy sampled: the other half of `m_t ρ_t Q_t ∇log π`.

A model (how often an action led where, and its mean reward) needs no importance weight: given state
and action, what follows does not depend on the policy. The target's own actions are then summed
over, not sampled.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.marginal.chains import powers
from reweigh.core.marginal.visits import Tabular, ends
from reweigh.core.segments import Segments


@torch.no_grad()
def action_values(
    visits: Tabular,
    actions: Tensor,
    rewards: Tensor,
    log_probs: Tensor,
    segments: Segments,
    *,
    discount: float,
) -> Tensor:
    """The target's action values without horizon, in a table: `Q = R + γ P Σ_a π_θ Q`.

    The certainty-equivalent values: exact in the model of the logged mean rewards and transitions,
    by one linear solve. Consistent for `Q^θ` of every pair that is logged
    and leads to logged pairs.

    Args:
        visits: The states.
        actions: `[S]` int64 in [0, A).
        rewards: `[S]`.
        log_probs: `[states, A]`, of every action in every state under the target.
        discount: γ in [0, 1); 1 only if the target terminates.

    Returns:
        `[states, A]` float64, 0 for a pair that was never logged. With γ = 0 it is the mean reward.

    Raises:
        ValueError: Wrong shape; a state or an action outside the table; γ outside [0, 1].
    """
    contracts.require_between("discount", discount, 0, 1)
    reward, transition = _model(visits, actions, rewards, log_probs, segments)
    policy = log_probs.double().exp()
    system = torch.eye(len(policy)).to(policy) - discount * _under(policy, transition)
    values = torch.linalg.solve(system, _under(policy, reward))
    return reward + discount * transition @ values


@torch.no_grad()
def action_values_by_time(
    visits: Tabular,
    actions: Tensor,
    rewards: Tensor,
    log_probs: Tensor,
    segments: Segments,
    *,
    discount: float,
    horizon: int,
) -> Tensor:
    """The target's action values with a horizon, in a table: `Q_t = R + γ P Σ_a π_θ Q_{t+1}`.

    As `action_values`, with stationary dynamics and the value 0 at the horizon; all times at once.

    Args:
        visits: The states.
        actions: `[S]` int64 in [0, A).
        rewards: `[S]`.
        log_probs: `[states, A]`, of every action in every state under the target.
        discount: γ in [0, 1].
        horizon: H, at least the longest episode.

    Returns:
        `[H, states, A]` float64. At the last time it is the mean reward; far from the horizon,
        `action_values`.

    Raises:
        ValueError: As `action_values`; a horizon shorter than an episode.
    """
    contracts.require_between("discount", discount, 0, 1)
    contracts.require_at_least("horizon", horizon, segments.most_steps)
    reward, transition = _model(visits, actions, rewards, log_probs, segments)
    policy = log_probs.double().exp()
    # (V, 1) of one time is a fixed matrix times that of the next: its powers are all horizons.
    count = len(policy)
    backup = policy.new_zeros(count + 1, count + 1)
    backup[:count, :count] = discount * _under(policy, transition)
    backup[:count, count] = _under(policy, reward)
    backup[count, count] = 1.0
    at_horizon = torch.eye(count + 1).to(policy)[count]
    to_go = powers(at_horizon, backup.mT, horizon)[:, :count].flip(0)
    return reward + discount * torch.einsum("sau,tu->tsa", transition, to_go)


def _model(
    visits: Tabular, actions: Tensor, rewards: Tensor, log_probs: Tensor, segments: Segments
) -> tuple[Tensor, Tensor]:
    """Mean reward `[states, A]` and transition `[states, A, states]` of the logged pairs."""
    contracts.require_rows("log_probs", log_probs, visits.count)
    contracts.require_vector("actions", actions, segments.size, "position")
    states, following = visits.moves(segments)
    count, choices = log_probs.shape
    actions = segments.fill(actions)
    outside = (actions < 0) | (actions >= choices)
    if bool(outside.any()):
        raise ValueError(
            f"actions hold {int(actions[outside][0])}, outside [0, {choices}): log_probs needs a "
            "column for every action"
        )
    pair = states * choices + actions
    taken = segments.inside.double()

    def table(size, place, x):
        return taken.new_zeros(size).index_add(0, place, x)

    total = table(count * choices, pair, taken).clamp(min=1.0)
    reward = table(count * choices, pair, segments.as_float64("rewards", rewards)) / total
    goes_on = torch.where(ends(visits.terminated, segments), 0.0, taken)
    moved = table(count * choices * count, pair * count + following, goes_on)
    transition = moved.reshape(-1, count) / total.unsqueeze(1)
    return reward.reshape(count, choices), transition.reshape(count, choices, count)


def _under(policy: Tensor, x: Tensor) -> Tensor:
    """Sums over the policy's actions: `[states, A, ...]` to `[states, ...]`."""
    return torch.einsum("sa,sa...->s...", policy, x)
