"""Trajectories as rows of an Arrow table, bit for bit, and ranges of such rows.

A row is a fragment. Its per-step columns are lists, flattened to numbers and shaped again from the
schema. Delta has no unsigned integers and no float16, and Arrow packs bools eight to a byte; those
are kept as their bytes. Each row carries a CRC-32 of its values, since neither Parquet nor Delta
notices a flipped bit in a file.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reweigh.data.schema import PER_STEP, ArraySpec, TrajectorySchema
from reweigh.data.trajectories import Trajectories

UNITS = {
    "observations": "as the environment gives them",
    "actions": "as the environment takes them",
    "rewards": "reward",
    "log_prob_behaviour": "nat",
    "lengths": "step",
    "final_observations": "as the environment gives them",
    "terminated": "bool",
    "truncated": "bool",
    "policy_version": "version",
    "episode": "number in the run",
    "seed": "seed",
    "time_start": "step",
}
LISTS = (*PER_STEP, "final_observations")
SCALARS = tuple(name for name in UNITS if name not in LISTS)
CHECKSUM = "checksum"

_DELTA_DTYPES = frozenset({"int8", "int16", "int32", "int64", "float32", "float64"})


def arrow_schema(schema: TrajectorySchema) -> pa.Schema:
    """The columns of the log's table, each with its unit in the field's metadata."""
    arrow_fields = [
        pa.field(name, _arrow_type(name, spec), nullable=False, metadata={"unit": UNITS[name]})
        for name, spec in schema.columns.items()
    ]
    checksum = pa.field(CHECKSUM, pa.int64(), nullable=False, metadata={"unit": "CRC-32"})
    return pa.schema([*arrow_fields, checksum])


def to_table(trajectories: Trajectories, schema: TrajectorySchema) -> pa.Table:
    """One row a fragment. `from_table` gives the same bits back."""
    arrays = []
    for name, spec in schema.columns.items():
        column = np.ascontiguousarray(getattr(trajectories, name))
        entries = trajectories.lengths if name in PER_STEP else np.ones_like(trajectories.lengths)
        arrays.append(
            _list_array(column, entries * spec.size) if name in LISTS else pa.array(column)
        )
    arrays.append(pa.array(checksums(trajectories)))
    return pa.Table.from_arrays(arrays, schema=arrow_schema(schema))


def from_table(table: pa.Table, schema: TrajectorySchema) -> Trajectories:
    """The fragments of a table, in its order. The arrays may be read-only views of the table.

    Raises:
        ValueError: a value is missing, or a row has another checksum than it was written with.
    """
    incomplete = [name for name in table.column_names if table.column(name).null_count]
    if incomplete:
        raise ValueError(f"values of {', '.join(incomplete)} are missing")
    values = {}
    for name, spec in schema.columns.items():
        column = table.column(name)
        flat = _numbers(column, spec) if name in LISTS else column.to_numpy()
        values[name] = flat.reshape(-1, *spec.shape)
    trajectories = Trajectories(**values)
    changed = checksums(trajectories) != table.column(CHECKSUM).to_numpy()
    if changed.any():
        episode = trajectories.episode[changed.argmax()]
        raise ValueError(f"the values of episode {episode} are not those that were written")
    return trajectories


def checksums(trajectories: Trajectories) -> np.ndarray:
    """[N] int64, the CRC-32 of the bytes of each fragment's values."""
    scalars = np.stack([getattr(trajectories, name).astype(np.int64) for name in SCALARS], axis=1)
    checksum = [zlib.crc32(row) for row in scalars]
    ones = np.ones_like(trajectories.lengths)
    for name in LISTS:
        column = np.ascontiguousarray(getattr(trajectories, name))
        entries = trajectories.lengths if name in PER_STEP else ones
        sizes = entries * column[:1].nbytes
        stops = np.cumsum(sizes)
        raw = column.reshape(-1).view(np.uint8).data
        checksum = [
            zlib.crc32(raw[start:stop], seen)
            for seen, start, stop in zip(checksum, stops - sizes, stops, strict=True)
        ]
    return np.array(checksum, dtype=np.int64)


def _arrow_type(name: str, spec: ArraySpec) -> pa.DataType:
    if name not in LISTS:
        return pa.from_numpy_dtype(np.dtype(spec.dtype))
    if spec.dtype in _DELTA_DTYPES:
        return pa.list_(pa.from_numpy_dtype(np.dtype(spec.dtype)))
    return pa.binary()


def _list_array(column: np.ndarray, counts: np.ndarray) -> pa.Array:
    """Consecutive runs of `counts` numbers as one list each."""
    numbers = column.reshape(-1)
    as_bytes = str(column.dtype) not in _DELTA_DTYPES
    offsets = np.concatenate([[0], np.cumsum(counts)]) * (column.itemsize if as_bytes else 1)
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(
            f"One append holds {offsets[-1]} values, and Arrow's lists at most 2^31 - 1. "
            "Append fewer fragments at a time."
        )
    offsets = offsets.astype(np.int32)
    if as_bytes:
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(numbers)]
        return pa.Array.from_buffers(pa.binary(), len(counts), buffers)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers))


def _numbers(column: pa.ChunkedArray, spec: ArraySpec) -> np.ndarray:
    """All numbers of a list column end to end."""
    parts = [np.empty(0, spec.dtype)]
    for chunk in column.chunks:
        if isinstance(chunk, pa.BinaryArray):
            offsets = np.frombuffer(chunk.buffers()[1], np.int32)
            first, last = offsets[chunk.offset], offsets[chunk.offset + len(chunk)]
            raw = chunk.buffers()[2]
            parts.append(np.frombuffer(raw, np.uint8)[first:last].view(spec.dtype))
        else:
            parts.append(chunk.flatten().to_numpy(zero_copy_only=True))
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


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
