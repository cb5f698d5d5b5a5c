"""Files of tables, read in order and a block at a time: Parquet, CSV, JSONL.

Arrow's own scanners read ahead as far as memory goes if what comes after them is slower.
"""

import codecs
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from reweigh.data.importing.entries import is_list
from reweigh.data.importing.source import MAX_STEPS, rows_at_a_time
from reweigh.data.importing.texts import is_text, refuse_words_in_csv, refuse_words_in_jsonl

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
    schemas: list[pa.Schema] = []
    for file in files:
        with readable(file, "Parquet"):
            metadata = pq.read_metadata(file)
            schemas.append(metadata.schema.to_arrow_schema())
            rows += metadata.num_rows
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            size += sum(group.total_byte_size for group in groups)
    count = rows_at_a_time(size // max(rows, 1), MAX_STEPS)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for file, schema in zip(files, schemas, strict=True):
            _refuse_others(file, schema, files[0], schemas[0], columns)
        for file in files:
            # Without the buffer, which is the whole file.
            with readable(file, "Parquet"), pq.ParquetFile(file, pre_buffer=False) as opened:
                yield from opened.iter_batches(count, columns=list(columns), use_threads=False)

    return Table(place, "Parquet", schemas[0], batches, rows)


def _refuse_others(
    file: Path, schema: pa.Schema, first: Path, usual: pa.Schema, columns: Sequence[str]
) -> None:
    """Refuse a file whose columns are not those of the first.

    Raises:
        ValueError: a column is missing, or holds something else.
    """
    for name in columns:
        if name not in schema.names:
            raise ValueError(f"{file} has no column {name!r}, as {first} has.")
        kind, other = schema.field(name).type, usual.field(name).type
        if not _alike(kind, other):
            raise ValueError(
                f"{file}: column {name} holds {kind}, and {other} in {first}. Write the same in "
                "every file."
            )


def _alike(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether two columns can be one."""
    if pa.types.is_null(kind) or pa.types.is_null(other):
        return True
    if is_list(kind) and is_list(other):
        return _alike(kind.value_type, other.value_type)
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


def csv_file(path: Path, types: Types) -> Table:
    """A CSV file with a header.

    Raises:
        ValueError: it cannot be read.
    """
    blocks = pacsv.ReadOptions(block_size=_BLOCK_BYTES)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = pacsv.ConvertOptions(column_types=types, include_columns=list(columns))
        schema = pa.schema([])
        try:
            with (
                readable(path, "CSV"),
                pacsv.open_csv(path, blocks, convert_options=wanted) as opened,
            ):
                schema = opened.schema
                if any(pa.types.is_binary(kind) for kind in schema.types):
                    raise _not_utf8(path)
                yield from opened
        except UnreadableError:
            counted = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
            numbers = [f.name for f in schema if any(is_kind(f.type) for is_kind in counted)]
            if numbers:
                refuse_words_in_csv(path, numbers, blocks)
            raise

    _refuse_utf16(path, "CSV")
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
    _refuse_utf16(path, "JSONL")
    try:
        with readable(path, "JSONL"):
            first = next(_json_blocks(path, pa.schema([])), None)
            found = first.schema if first is not None else pa.schema([])
            schema = pa.schema([f.with_type(types.get(f.name, f.type)) for f in found])
    except UnreadableError:
        refuse_words_in_jsonl(path)
        raise

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            with readable(path, "JSONL"):
                for table in _json_blocks(path, schema):
                    chosen = table.select(list(columns)).combine_chunks()
                    chosen.validate(full=True)  # of text, that it is UTF-8
                    yield from chosen.to_batches()
        except UnreadableError:
            refuse_words_in_jsonl(path)
            raise

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
        ValueError: text that is not UTF-8.
        OSError: the system cannot read the file.
    """
    try:
        yield
    except UnicodeDecodeError:
        raise _not_utf8(place) from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        text = " ".join(str(error).split())
        if "UTF8" in text:
            raise _not_utf8(place) from None
        raise UnreadableError(f"{place} cannot be read as {kind}: {text}") from None


def _refuse_utf16(path: Path, kind: str) -> None:
    """Refuse the text that spreadsheets call Unicode.

    Raises:
        ValueError: it is UTF-16.
    """
    with readable(path, kind), pa.input_stream(str(path)) as text:
        if text.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise _not_utf8(path)


def _not_utf8(place: str | Path) -> ValueError:
    return ValueError(
        f"{place} is not UTF-8 text. Convert it to UTF-8 from the encoding that it has, such as by "
        "iconv -f LATIN1 -t UTF-8."
    )
