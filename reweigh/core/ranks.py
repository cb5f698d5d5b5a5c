"""Mergeable records over the processes of a distributed group."""

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, TypeVar

import torch

from reweigh.core.diagnostics import WeightHealth
from reweigh.core.weights import LogSums

if TYPE_CHECKING:  # a build of torch without distributed lacks it
    from torch.distributed import ProcessGroup

Record = TypeVar("Record", LogSums, WeightHealth)


def merge_over_ranks(
    record: Record,
    merge: Callable[[Record, Record], Record],
    *,
    process_group: "ProcessGroup | None" = None,
) -> Record:
    """Every rank's record merged, on every rank.

    For what a batch needs to know as a whole: the sums of a normalisation with `weights.merge`,
    weight health with `diagnostics.merge_health`. Each rank must call it. It waits for the device
    and for the other ranks.

    Args:
        record: This rank's, a named tuple of tensors, with the same groups on every rank.
        merge: What makes one record of two.
        process_group: Which ranks; without it all.

    Returns:
        The record of all ranks, on this rank's device. On one rank it is `record`.

    Raises:
        ValueError: The ranks' records do not merge, as `merge` says.
    """
    kind, device = type(record), record[0].device
    own = kind(*(x.detach().cpu() for x in record))
    parts = [own] * torch.distributed.get_world_size(process_group)
    torch.distributed.all_gather_object(parts, own, group=process_group)
    return kind(*(x.to(device) for x in reduce(merge, parts)))
