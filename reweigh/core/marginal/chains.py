"""Distributions carried through time, in passes over matrices instead of `T` steps."""

import torch
from torch import Tensor


def powers(initial: Tensor, transition: Tensor, times: int) -> Tensor:
    """A row vector under powers of one matrix: `x_t = x_0 K^t` for `t < times`.

    Each pass doubles the times that are known and squares the matrix; where that costs more than
    it saves, which is for matrices larger than the times, the known ones are moved on instead.

    Args:
        initial: `[d]`.
        transition: `[d, d]`.
        times: At least 1.

    Returns:
        `[times, d]`.
    """
    known = initial.unsqueeze(0)
    while len(known) < min(times, 4 * times / len(initial)):
        known = torch.cat([known, known @ transition])
        transition = transition @ transition
    # By now the matrix is K^n for the n times that are known.
    parts = [known]
    while len(parts) * len(known) < times:
        parts.append(parts[-1] @ transition)
    return torch.cat(parts)[:times]


def products(initial: Tensor, transitions: Tensor) -> Tensor:
    """A row vector under a product of matrices: `x_t = x_0 K_0 K_1 ⋯ K_{t-1}`.

    Hillis and Steele's scan with the matrix product: `T d²` numbers, `T d³ log2(T)` operations.

    Args:
        initial: `[d]`.
        transitions: `[T, d, d]`; the last leads out of the horizon and does not matter.

    Returns:
        `[T, d]`. With equal matrices it is `powers`.
    """
    so_far, stride = transitions[:-1], 1
    while stride < len(so_far):
        so_far = torch.cat([so_far[:stride], so_far[:-stride] @ so_far[stride:]])
        stride *= 2
    return torch.cat([initial.unsqueeze(0), initial @ so_far])
