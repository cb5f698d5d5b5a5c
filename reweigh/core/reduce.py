"""From per-step objectives to the scalar that an optimiser minimises, by one explicit divisor.

The loss is a sum divided by a number, and the number is the caller's: `count_episodes` and
`count_steps`, of all or of those that survived a rejection, or a constant. A batch that comes in
parts (micro-batches, the ranks of a data-parallel group) adds up the counts of its parts first and
divides every part by the sum; the parts' losses then *sum* to the loss of the whole, and so do
their gradients. Where a framework averages gradients over ranks, divide the divisor by their
number.
"""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def loss(objective: Tensor, segments: Segments, *, divisor: float | Tensor | None = None) -> Tensor:
    """`-(1/D) Σ_i Σ_t objective_it`, with `D` the number of episodes unless given.

    Dividing by episodes, not by steps, keeps the estimate unbiased: the number of steps depends on
    the policy. A micro-batch, or one of several devices, passes the *full* batch's divisor, and the
    parts then sum to the loss of the whole.

    Args:
        objective: `[S]`, to maximise.
        divisor: What to divide by: a number above 0, or a scalar tensor, which is not looked at (no
            stall on an accelerator). A tensor that is 0 says that nothing survived: the loss is 0.

    Returns:
        Scalar float64. A step whose objective is exactly 0, such as a rejected one, adds 0.

    Raises:
        ValueError: Wrong shape; a number that is not positive.
    """
    divisor = len(segments) if divisor is None else divisor
    total = segments.as_float64("objective", objective).sum()
    if not isinstance(divisor, Tensor):
        contracts.require_positive("divisor", divisor)
        return -total / divisor
    if divisor.numel() != 1:
        raise ValueError(
            f"divisor must be one number, got a tensor of shape {list(divisor.shape)}: sum the "
            "counts of all parts of the batch"
        )
    divisor = divisor.detach().double().reshape(())
    nothing = divisor == 0
    return -torch.where(nothing, 0.0, total) / torch.where(nothing, 1.0, divisor)


def count_episodes(segments: Segments, kept_steps: Tensor | None = None) -> Tensor:
    """`N`, or how many episodes survived a rejection: the divisor of a mean over episodes.

    Args:
        kept_steps: `[S]` bool, steps that survived. An episode whose every step was rejected is not
            counted; one that has no steps was not rejected, and is.

    Returns:
        Scalar float64 on the segments' device. Parts' counts sum to the whole's.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    if kept_steps is None:
        return torch.ones_like(segments.start).double().sum()
    return kept_episodes(segments, kept_steps).double().sum()


def kept_episodes(segments: Segments, kept_steps: Tensor) -> Tensor:
    """Which episodes survived a rejection: the `kept_episodes` of `advantages.leave_one_out`.

    Args:
        kept_steps: `[S]` bool, steps that survived.

    Returns:
        `[N]` bool: False where every step was rejected; an episode without steps was not rejected.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    return (segments.lengths == 0) | (_steps(segments, kept_steps) > 0)


def count_steps(segments: Segments, kept_steps: Tensor | None = None) -> Tensor:
    """Existing steps, or those that survived a rejection: the divisor of a mean over steps.

    With it the loss is a mean over tokens, a ratio of two estimates: as `N` grows, that of `loss`
    by episodes over the mean length. Counting all steps after a rejection keeps the scale of what
    survived; counting the survivors makes up for the rejected.

    Args:
        kept_steps: `[S]` bool, steps that survived.

    Returns:
        Scalar float64 on the segments' device. Parts' counts sum to the whole's.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    return _steps(segments, kept_steps).sum()


def per_episode_mean(
    objective: Tensor, segments: Segments, kept_steps: Tensor | None = None
) -> Tensor:
    """`objective_t / T_i`, with `T_i` the steps of its episode: what sums to the episode's mean.

    Shao et al. 2024 (GRPO), equation 3: `loss` of it is the mean over episodes of each one's mean
    over steps. Biased for every `N` where lengths differ, since `T_i` depends on the actions; with
    it, longer episodes lose weight per step. Dividing by a constant, `N` times the longest allowed
    episode, is not (Liu et al. 2025, Dr. GRPO, section 3.1).

    Args:
        objective: `[S]`.
        kept_steps: `[S]` bool, steps that survived: `T_i` counts them, and the others become 0.

    Returns:
        `[S]` float64, differentiable. If all episodes have length `T`, it is `objective / T`.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    objective = segments.as_float64("objective", objective)
    steps = segments.spread(_steps(segments, kept_steps)).clamp(min=1.0)
    return (objective if kept_steps is None else torch.where(kept_steps, objective, 0.0)) / steps


def _steps(segments: Segments, kept_steps: Tensor | None) -> Tensor:
    """`[N]` float64: steps of each episode, or those of them that survived."""
    if kept_steps is None:
        return segments.lengths.double()
    contracts.require_vector("kept_steps", kept_steps, segments.size, "position")
    contracts.require_boolean("kept_steps", kept_steps)
    return segments.total(kept_steps.double())
