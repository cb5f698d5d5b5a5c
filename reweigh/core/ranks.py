"""Mergeable records over the processes of a distributed group."""

from typing import TYPE_CHECKING, TypeVar

import torch

from reweigh.core.diagnostics import WeightHealth
from reweigh.core.sample import EpisodeTotals
from reweigh.core.weights import LogSums

if TYPE_CHECKING:  # a build of torch without distributed lacks it
    from torch.distributed import ProcessGroup

Record = TypeVar("Record", EpisodeTotals, LogSums, WeightHealth)


def merge_over_ranks(record: Record, *, process_group: "ProcessGroup | None" = None) -> Record:
    """Every rank's record merged by its method `merge`, on every rank.

    For totals of episodes, sums of a normalisation and weight health, which belong to the batch as
    a whole. Each rank must call it. It waits for the device and for the other ranks.

    Args:
        record: This rank's, with the same groups on every rank.
        process_group: Which ranks; without it all.

    Returns:
        The record of all ranks, on this rank's device. On one rank it is `record`.

    Raises:
        ValueError: The ranks' records have different groups or episodes.
    """
    kind, device = type(record), record[0].device
    own = kind(*(x.detach().cpu() for x in record))
    parts = [own] * torch.distributed.get_world_size(process_group)
    torch.distributed.all_gather_object(parts, own, group=process_group)
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    return kind(*(x.to(device) for x in merged))
