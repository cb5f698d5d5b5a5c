"""Parquet files: of any table, or exported from a log."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reweigh.data.importing import exported
from reweigh.data.importing.columns import is_list, is_text
from reweigh.data.importing.layout import Layout, Source
from reweigh.data.importing.tables import Table, readable, table_source
from reweigh.data.schema import MAX_STEPS, rows_at_a_time


def parquet(path: Path, layout: Layout, *, max_steps: int = MAX_STEPS) -> Source:
    """A Parquet file, or a folder of them in the order of their names.

    Args:
        path: The file or folder.
        layout: What the columns mean.
        max_steps: The most rows that are read at a time.
    """
    if path.is_file():
        with readable(path, "Parquet"):
            metadata = pq.read_schema(path).metadata or {}
        if exported.SCHEMA.encode() in metadata:
            return exported.parquet(path, metadata, layout)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} has no .parquet files.")
    return table_source(_table(files, max_steps), layout, path, fixed_types=True)


def _table(files: Sequence[Path], max_steps: int) -> Table:
    """Files with the same columns, one after the other."""
    place = str(files[0] if len(files) == 1 else files[0].parent)
    rows = size = 0
    schemas: list[pa.Schema] = []
    for file in files:
        with readable(file, "Parquet"):
            metadata = pq.read_metadata(file)
            schemas.append(metadata.schema.to_arrow_schema())
            rows += metadata.num_rows
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            size += sum(group.total_byte_size for group in groups)
    count = rows_at_a_time(size // max(rows, 1), max_steps)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for file, schema in zip(files, schemas, strict=True):
            _require_same(file, schema, files[0], schemas[0], columns)
        for file in files:
            # Without the buffer, which is the whole file.
            with readable(file, "Parquet"), pq.ParquetFile(file, pre_buffer=False) as opened:
                yield from opened.iter_batches(count, columns=list(columns), use_threads=False)

    return Table(place, "Parquet", schemas[0], batches, rows)


def _require_same(
    file: Path, schema: pa.Schema, first: Path, usual: pa.Schema, columns: Sequence[str]
) -> None:
    """Requires that a file has the columns of the first, of the same kinds."""
    for name in columns:
        if name not in schema.names:
            raise ValueError(f"{file} has no column {name!r}, as {first} has.")
        kind, other = schema.field(name).type, usual.field(name).type
        if not _is_alike(kind, other):
            raise ValueError(
                f"{file}: column {name} holds {kind}, and {other} in {first}. Write the same in "
                "every file."
            )


def _is_alike(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether two columns can be one."""
    if pa.types.is_null(kind) or pa.types.is_null(other):
        return True
    if is_list(kind) and is_list(other):
        return _is_alike(kind.value_type, other.value_type)
    return _group(kind) == _group(other)


def _group(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if is_text(kind):
        return "text"
    if pa.types.is_temporal(kind):
        return "time"
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return "number" if any(is_kind(kind) for is_kind in numeric) else str(kind)
