"""Advantages of whole episodes against the others of their group (the answers to one prompt).

One score and one advantage for each episode, `[N]`; `segments.spread` gives them to the steps. An
episode that is not kept does not exist: it enters no mean, and its advantage is 0. Nothing here is
differentiated.
"""

import torch
from torch import Tensor

from reweigh import contracts


@torch.no_grad()
def group_centred(
    scores: Tensor, group: Tensor, *, groups: int, kept: Tensor | None = None
) -> Tensor:
    """Score minus the mean of its group: `A_i = r_i - mean_{j∈g} r_j`.

    Liu et al. 2025 (Dr. GRPO). The mean holds the episode's own score, and so scales the expected
    gradient by `(n - 1) / n`, which only a step size sees if all groups are of one size.

    Args:
        scores: `[N]`, usually the return of each episode.
        group: `[N]` int64 in [0, groups).
        groups: How many groups there are.
        kept: `[N]` bool, False for rejected episodes; without it all are kept.

    Returns:
        `[N]` float64; 0 where rejected, or alone in a group. Sums to 0 in each group.

    Raises:
        ValueError: Another shape or dtype; a group that is none.
    """
    return _centred(scores, group, groups, kept)[0]


@torch.no_grad()
def group_relative(
    scores: Tensor,
    group: Tensor,
    *,
    groups: int,
    kept: Tensor | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """Score in standard deviations of its group: `A_i = (r_i - mean_g) / (std_g + ε)`.

    Shao et al. 2024 (GRPO), section 4.1.1, with the unbiased deviation (divisor `n - 1`).
    Biased: the divisor weighs every group by how much its scores agree.

    Args:
        scores: `[N]`, usually the return of each episode.
        group: `[N]` int64 in [0, groups).
        groups: How many groups there are.
        kept: `[N]` bool, False for rejected episodes; without it all are kept.
        epsilon: ε above 0; decides about groups whose scores all but agree.

    Returns:
        `[N]` float64; 0 where rejected, alone in a group, or equal to all others. Scaling and
        shifting a group's scores changes nothing as `ε → 0`.

    Raises:
        ValueError: As `group_centred`; ε that is not positive.
    """
    contracts.positive("epsilon", epsilon)
    centred, count = _centred(scores, group, groups, kept)
    variance = _total(centred.square(), group, groups) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)[group]


@torch.no_grad()
def leave_one_out(
    scores: Tensor, group: Tensor, *, groups: int, kept: Tensor | None = None
) -> Tensor:
    """Score minus the mean of the *others* of its group: `A_i = r_i - mean_{j∈g, j≠i} r_j`.

    Kool et al. 2019; Ahmadian et al. 2024 (RLOO). The baseline does not depend on the episode, and
    so leaves an on-policy gradient unbiased.

    Args:
        scores: `[N]`, usually the return of each episode.
        group: `[N]` int64 in [0, groups).
        groups: How many groups there are.
        kept: `[N]` bool, False for rejected episodes; without it all are kept.

    Returns:
        `[N]` float64; 0 where rejected, or alone in a group, which has no baseline and teaches
        nothing here. It is `n / (n - 1)` times `group_centred`.

    Raises:
        ValueError: As `group_centred`.
    """
    centred, count = _centred(scores, group, groups, kept)
    return centred * (count / (count - 1).clamp(min=1))[group]


def _centred(
    scores: Tensor, group: Tensor, groups: int, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores minus their group's mean, `[N]`, and how many each group keeps, `[groups]`."""
    kept = torch.ones_like(group, dtype=torch.bool) if kept is None else kept
    contracts.groups("group", group, groups)
    contracts.vector("scores", scores, group.numel(), "episode")
    contracts.vector("kept", kept, group.numel(), "episode")
    contracts.boolean("kept", kept)
    scores = scores.double()
    count = _total(kept.double(), group, groups)
    # Above the smallest score of the group: scores that agree then differ by exactly 0.
    least = torch.where(kept, scores, torch.inf)
    least = scores.new_full((groups,), torch.inf).scatter_reduce(0, group, least, "amin")
    above = torch.where(kept, scores - least[group], 0.0)
    mean = _total(above, group, groups) / count.clamp(min=1)
    return torch.where(kept, above - mean[group], 0.0), count


def _total(x: Tensor, group: Tensor, groups: int) -> Tensor:
    return x.new_zeros(groups).index_add(0, group, x)
