"""Files with one JSON object a line."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pajson

from reweigh.data.importing.layout import Layout, Source
from reweigh.data.importing.tables import (
    BLOCK_BYTES,
    Table,
    Types,
    UnreadableError,
    readable,
    refuse_utf16,
    text_source,
    word_error,
)


def jsonl(path: Path, layout: Layout, *, block_bytes: int = BLOCK_BYTES) -> Source:
    """A file with one JSON object a line."""

    def blocks(schema: pa.Schema) -> Iterator[pa.Table]:
        """The lines, parsed `block_bytes` at a time, or a single line that is longer."""
        options = pajson.ParseOptions(explicit_schema=schema)
        try:
            with readable(path, "JSONL"), path.open("rb") as file:
                while lines := file.readlines(block_bytes):
                    text = b"".join(lines)
                    if text.strip():
                        whole = pajson.ReadOptions(block_size=len(text) + 1)
                        yield pajson.read_json(io.BytesIO(text), whole, options)
        except UnreadableError:
            _refuse_words(path)
            raise

    def opening(types: Types) -> Table:
        def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
            with readable(path, "JSONL"):
                for table in blocks(schema):
                    chosen = table.select(list(columns)).combine_chunks()
                    chosen.validate(full=True)  # of text, that it is UTF-8
                    yield from chosen.to_batches()

        refuse_utf16(path, "JSONL")
        with readable(path, "JSONL"):
            first = next(blocks(pa.schema([])), None)
            fields = first.schema if first is not None else pa.schema([])
            schema = pa.schema([f.with_type(types.get(f.name, f.type)) for f in fields])
        return Table(str(path), "JSONL", schema, batches)

    return text_source(opening, layout, path)


def _refuse_words(path: Path) -> None:
    """Refuses words in columns in which there are numbers anywhere.

    Raises:
        ValueError: A word; says what it is, and where.
    """
    words: dict[str, tuple[str, int]] = {}
    numbered: set[str] = set()
    with path.open("rb") as file:
        for row, line in enumerate(line for line in file if line.strip()):
            try:
                record = json.loads(line)
            except ValueError:
                return
            for name, value in record.items() if isinstance(record, dict) else ():
                for leaf in _leaves(value):
                    if isinstance(leaf, str):
                        words.setdefault(name, (leaf, row))
                    elif isinstance(leaf, int | float):
                        numbered.add(name)
                if name in numbered and name in words:
                    raise word_error(path, name, *words[name])


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
