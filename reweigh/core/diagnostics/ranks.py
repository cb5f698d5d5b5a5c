"""Records over the processes of a distributed group."""

from functools import reduce
from typing import TYPE_CHECKING

import torch

from reweigh.core.diagnostics.health import WeightHealth, merge_health

if TYPE_CHECKING:  # a build of torch without distributed lacks it
    from torch.distributed import ProcessGroup


def merge_over_ranks(
    health: WeightHealth, *, process_group: "ProcessGroup | None" = None
) -> WeightHealth:
    """Every rank's record merged, on every rank.

    Each rank must call it. It waits for the device and for the other ranks: call it when the record
    is to be read, not in each step.

    Args:
        health: This rank's record, with the same groups and kept weights on every rank.
        process_group: Which ranks; without it all.

    Returns:
        The record of all ranks, on this rank's device. On one rank it is `health`.

    Raises:
        ValueError: The ranks' records differ in groups or kept weights.
    """
    own = WeightHealth(*(x.cpu() for x in health))
    parts = [own] * torch.distributed.get_world_size(process_group)
    torch.distributed.all_gather_object(parts, own, group=process_group)
    return WeightHealth(*(x.to(health.sample_size.device) for x in reduce(merge_health, parts)))
