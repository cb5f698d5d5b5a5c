"""Bounds of episodes in the layouts that other libraries use for packed sequences."""

import torch
from torch import Tensor

from reweigh import contracts


def bounds_of_cu_seqlens(cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """First positions and ends `[N]` int64 of sequences by their cumulative lengths `[N + 1]`.

    Raises:
        ValueError: Not integers, or not from 0.
    """
    bounds = contracts.counts("cu_seqlens", cu_seqlens).to(cu_seqlens.device)
    if bounds.numel() < 2 or int(bounds[0]) != 0:
        raise ValueError(
            f"cu_seqlens must be cumulative lengths that begin with 0, got {bounds.tolist()}"
        )
    return bounds[:-1], bounds[1:]


def bounds_of_ids(ids: Tensor) -> tuple[Tensor, Tensor]:
    """First positions and ends `[N]` int64 of the runs of one number `[S]`; below 0 is padding.

    Raises:
        ValueError: Not integers; a number that comes again after another.
    """
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"episode ids must be integers, got {ids.dtype}")
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[1:] = ids[1:] != ids[:-1]
    start = begins.nonzero().squeeze(1)
    stop = torch.cat([start[1:], start.new_tensor([ids.numel()])])
    is_episode = ids[start] >= 0
    start, stop = start[is_episode], stop[is_episode]
    number, count = ids[start].unique(return_counts=True)
    if bool((count > 1).any()):
        raise ValueError(
            f"episode id {int(number[count > 1][0])} comes again after another: the steps of an "
            "episode must lie together"
        )
    return start, stop
