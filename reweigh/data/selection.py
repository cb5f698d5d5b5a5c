"""Which rows of the log a batch holds: ranges of a sorted key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Range:
    """Rows whose key lies from `first` to `last`, both included, in lexicographic order."""

    names: tuple[str, ...]
    first: Sequence[int]
    last: Sequence[int]

    def __str__(self) -> str:
        first, last = (", ".join(map(str, key)) for key in (self.first, self.last))
        return f"({', '.join(self.names)}) from ({first}) to ({last})"

    @property
    def leading(self) -> pc.Expression:
        """What the statistics of files can be held against."""
        name = pc.field(self.names[0])
        return (name >= self.first[0]) & (name <= self.last[0])

    def groups(self, metadata: pq.FileMetaData) -> list[int]:
        """The row groups of a file that may hold such rows, by their statistics."""
        place = metadata.schema.to_arrow_schema().get_field_index(self.names[0])

        def may_hold(group: int) -> bool:
            told = metadata.row_group(group).column(place).statistics
            if told is None or not told.has_min_max:
                return True
            return told.max >= self.first[0] and told.min <= self.last[0]

        return [group for group in range(metadata.num_row_groups) if may_hold(group)]

    def rows(self, table: pa.Table) -> np.ndarray:
        """Indices of such rows."""
        columns = [table.column(name).to_numpy() for name in self.names]
        above, below = columns[-1] >= self.first[-1], columns[-1] <= self.last[-1]
        for column, low, high in reversed(
            list(zip(columns[:-1], self.first[:-1], self.last[:-1], strict=True))
        ):
            above = (column > low) | ((column == low) & above)
            below = (column < high) | ((column == high) & below)
        return np.flatnonzero(above & below)


def batches(keys: np.ndarray, lengths: np.ndarray, max_steps: int) -> Iterator[tuple[int, int]]:
    """Cut sorted rows into batches (first, stop) of at most max_steps, between unequal keys.

    Args:
        keys: [R, k], sorted; rows of one key stay together.
        lengths: [R], the steps of each row.
        max_steps: the most steps in a batch, unless a single key has more.
    """
    begins = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))[: len(keys)]
    bounds = np.append(begins, len(keys)).tolist()
    steps = np.append(0, np.cumsum(lengths)).tolist()
    first = 0
    for begin, stop in pairwise(bounds):
        if begin > first and steps[stop] - steps[first] > max_steps:
            yield first, begin
            first = begin
    if len(keys):
        yield first, len(keys)
