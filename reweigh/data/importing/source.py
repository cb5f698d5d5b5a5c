"""What an importer makes of a source: what its log holds, and its episodes, a few at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reweigh.data.importing.layout import DONE, Found, Layout
from reweigh.data.schema import ArraySpec, TrajectorySchema
from reweigh.data.trajectories import Trajectories

MAX_STEPS = 100_000
"""The most steps that are held, and appended, at a time; one longer episode is held whole."""
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Source:
    """Episodes that can be read into a log."""

    format: str
    """What the source is, in words."""
    schema: TrajectorySchema
    read: Callable[[], Iterator[Trajectories]]
    """Whole episodes, their fragments together and in order, some at a time."""
    steps: int | None = None
    """How many steps there are, if that is known beforehand."""
    columns: Mapping[str, tuple[str, ...]] | None = None
    """Which column was read as what, where that had to be found out."""
    unread: tuple[str, ...] = ()
    """Columns that nothing was made of."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was read, a sentence each."""


Reader = Callable[[Path, Layout], Source]
"""Opens a source of one format."""


def rows_at_a_time(row_bytes: int, most: int) -> int:
    """How many rows to hold at a time: fewer than `most` if they are large, as images are."""
    return max(1, min(most, _MAX_BYTES // (row_bytes + 1)))


def bytes_of(spec: ArraySpec) -> int:
    """The size of an entry."""
    return spec.size * np.dtype(spec.dtype).itemsize


def notes(found: Found, *, final: bool = False) -> tuple[str, ...]:
    """What is said of the ends of episodes, where the columns leave something open.

    Args:
        found: the columns.
        final: whether the observations go on to the one after the last step.
    """
    said = []
    if not final and "next_observations" not in found:
        said.append(
            "The observation after the last step of an episode is not in the source: its last "
            "observation stands for it. Only the value of what follows a truncated episode is ever "
            "computed from it."
        )
    name = found.get("terminated", ("",))[0]
    if name.lower().removeprefix("infos/") in DONE and "truncated" not in found:
        said.append(
            f"Column {name!r} says that an episode ended, not why: each is taken as terminated."
        )
    return tuple(said)
