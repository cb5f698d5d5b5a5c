"""Advantages of whole episodes against the others of their group (the answers to one prompt).

One return and one advantage for each episode, `[N]`; `segments.spread` gives them to the steps. An
episode that is not kept does not exist: it enters no mean, and its advantage is 0. Nothing here is
differentiated.
"""

import torch
from torch import Tensor

from reweigh import contracts


@torch.no_grad()
def group_centred(
    returns: Tensor, group: Tensor, *, groups: int, kept_episodes: Tensor | None = None
) -> Tensor:
    """Return minus the mean of its group: `A_i = R_i - mean_{j∈g} R_j`.

    Liu et al. 2025 (Dr. GRPO). The mean holds the episode's own return, and so scales the expected
    gradient by `(n - 1) / n`, which only a step size sees if all groups are of one size.

    Args:
        returns: `[N]`, of each episode.
        group: `[N]` int64 in [0, groups).
        groups: Number of groups.
        kept_episodes: `[N]` bool, False for rejected episodes; without it all are kept.

    Returns:
        `[N]` float64; 0 where rejected, or alone in a group. Sums to 0 in each group.

    Raises:
        ValueError: Wrong shape or dtype; a group outside [0, groups).
    """
    return _centred(returns, group, groups, kept_episodes)[0]


@torch.no_grad()
def group_relative(
    returns: Tensor,
    group: Tensor,
    *,
    groups: int,
    kept_episodes: Tensor | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """Return in standard deviations of its group: `A_i = (R_i - mean_g) / (std_g + ε)`.

    Shao et al. 2024 (GRPO), section 4.1.1, with the unbiased deviation (divisor `n - 1`).
    Biased: the divisor weighs every group by how much its returns agree.

    Args:
        returns: `[N]`, of each episode.
        group: `[N]` int64 in [0, groups).
        groups: Number of groups.
        kept_episodes: `[N]` bool, as in `group_centred`.
        epsilon: ε above 0; it alone limits the advantages of a group whose returns nearly agree.

    Returns:
        `[N]` float64; 0 where rejected, alone in a group, or equal to all others. Scaling and
        shifting a group's returns changes nothing as `ε → 0`.

    Raises:
        ValueError: As `group_centred`; ε that is not positive.
    """
    contracts.require_positive("epsilon", epsilon)
    centred, count = _centred(returns, group, groups, kept_episodes)
    variance = _total(centred.square(), group, groups) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)[group]


@torch.no_grad()
def leave_one_out(
    returns: Tensor, group: Tensor, *, groups: int, kept_episodes: Tensor | None = None
) -> Tensor:
    """Return minus the mean of the *others* of its group: `A_i = R_i - mean_{j∈g, j≠i} R_j`.

    Kool et al. 2019; Ahmadian et al. 2024 (RLOO). The baseline does not depend on the episode, and
    so leaves an on-policy gradient unbiased.

    Args:
        returns: `[N]`, of each episode.
        group: `[N]` int64 in [0, groups).
        groups: Number of groups.
        kept_episodes: `[N]` bool, as in `group_centred`.

    Returns:
        `[N]` float64; 0 where rejected, or alone in a group, where there is no baseline. It is
        `n / (n - 1)` times `group_centred`.

    Raises:
        ValueError: As `group_centred`.
    """
    centred, count = _centred(returns, group, groups, kept_episodes)
    return centred * (count / (count - 1).clamp(min=1))[group]


def _centred(
    returns: Tensor, group: Tensor, groups: int, kept_episodes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns minus their group's mean, `[N]`, and how many each group keeps, `[groups]`."""
    kept = torch.ones_like(group, dtype=torch.bool) if kept_episodes is None else kept_episodes
    contracts.require_groups("group", group, groups)
    contracts.require_vector("returns", returns, group.numel(), "episode")
    contracts.require_vector("kept_episodes", kept, group.numel(), "episode")
    contracts.require_boolean("kept_episodes", kept)
    returns = returns.double()
    count = _total(kept.double(), group, groups)
    # Above the smallest return of the group: returns that agree then differ by exactly 0.
    least = torch.where(kept, returns, torch.inf)
    least = returns.new_full((groups,), torch.inf).scatter_reduce(0, group, least, "amin")
    above = torch.where(kept, returns - least[group], 0.0)
    mean = _total(above, group, groups) / count.clamp(min=1)
    return torch.where(kept, above - mean[group], 0.0), count


def _total(x: Tensor, group: Tensor, groups: int) -> Tensor:
    return x.new_zeros(groups).index_add(0, group, x)
