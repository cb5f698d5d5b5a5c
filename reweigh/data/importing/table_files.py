"""Files of tables, read in order and a block at a time: Parquet, CSV, JSONL.

Arrow's own scanners read ahead as far as memory goes if what comes after them is slower.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from reweigh.data.importing.source import MAX_STEPS, rows_at_a_time

_BLOCK_BYTES = 4 << 20
"""Text that is read at a time; the types of columns are told from the first block."""

Types = Mapping[str, pa.DataType]
"""What to read columns as, where the first block is not to be believed."""


class UnreadableError(ValueError):
    """Arrow does not understand a file; as text, it may with other types."""


@dataclass(frozen=True)
class Table:
    """A table on disk."""

    place: str
    kind: str
    schema: pa.Schema
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    """All rows in order, with the columns that are asked for."""
    rows: int | None = None
    """How many there are, if the file says so."""


def parquet_files(files: Sequence[Path]) -> Table:
    """Parquet files with the same columns, one after the other.

    Raises:
        ValueError: a file cannot be read.
    """
    place = str(files[0] if len(files) == 1 else files[0].parent)
    rows = size = 0
    with readable(place, "Parquet"):
        schema = pq.read_schema(files[0])
        for file in files:
            metadata = pq.read_metadata(file)
            rows += metadata.num_rows
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            size += sum(group.total_byte_size for group in groups)
    count = rows_at_a_time(size // max(rows, 1), MAX_STEPS)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with readable(place, "Parquet"):
            for file in files:
                # Without the buffer, which is the whole file.
                with pq.ParquetFile(file, pre_buffer=False) as opened:
                    yield from opened.iter_batches(count, columns=list(columns))

    return Table(place, "Parquet", schema, batches, rows)


def csv_file(path: Path, types: Types) -> Table:
    """A CSV file with a header.

    Raises:
        ValueError: it cannot be read.
    """
    blocks = pacsv.ReadOptions(block_size=_BLOCK_BYTES)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = pacsv.ConvertOptions(column_types=types, include_columns=list(columns))
        with readable(path, "CSV"), pacsv.open_csv(path, blocks, convert_options=wanted) as opened:
            yield from opened

    with readable(path, "CSV"):
        every = pacsv.ConvertOptions(column_types=types)
        with pacsv.open_csv(path, blocks, convert_options=every) as opened:
            names = opened.schema.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{path} has more than one column {', '.join(twice)}: rename them")
            return Table(str(path), "CSV", opened.schema, batches)


def jsonl_file(path: Path, types: Types) -> Table:
    """A file with one JSON object a line.

    Raises:
        ValueError: it cannot be read.
    """
    with readable(path, "JSONL"):
        first = next(_json_blocks(path, pa.schema([])), None)
    found = first.schema if first is not None else pa.schema([])
    schema = pa.schema([f.with_type(types.get(f.name, f.type)) for f in found])

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with readable(path, "JSONL"):
            for table in _json_blocks(path, schema):
                yield from table.select(list(columns)).combine_chunks().to_batches()

    return Table(str(path), "JSONL", schema, batches)


def _json_blocks(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The lines of a file, parsed a few megabytes at a time, or a single line that is longer."""
    options = pajson.ParseOptions(explicit_schema=schema)
    with path.open("rb") as file:
        while lines := file.readlines(_BLOCK_BYTES):
            text = b"".join(lines)
            if text.strip():
                block = pajson.ReadOptions(block_size=len(text) + 1)
                yield pajson.read_json(io.BytesIO(text), block, options)


@contextmanager
def readable(place: str | Path, kind: str) -> Iterator[None]:
    """Say of Arrow's errors which file they are about.

    Raises:
        UnreadableError: in place of one of them.
    """
    try:
        yield
    except pa.ArrowException as error:
        text = " ".join(str(error).split())
        raise UnreadableError(f"{place} cannot be read as {kind}: {text}") from None
