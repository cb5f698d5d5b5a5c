"""Tables: from columns of Arrow to a source, and how CSV is read.

Arrow's own scanners read ahead as far as memory goes if what comes after them is slower: files are
read in order, a block at a time.
"""

import codecs
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from pyarrow import compute as pc

from reweigh.contracts import one_line
from reweigh.data.importing.columns import floats_for_integers, is_list, is_text, is_time, numbers
from reweigh.data.importing.layout import USUAL, Layout, Source, columns_of, names_in
from reweigh.data.importing.lists import list_source
from reweigh.data.importing.steps import step_source

BLOCK_BYTES = 4 << 20
"""Text that is read at a time; the types of columns are told from the first block."""

_FLOATS = ("rewards", "log_prob_behaviour", "probabilities")
_COUNTS = ("episode", "time", "policy_version")
_GUESSES = (
    _FLOATS,
    (*_FLOATS, "observations", "next_observations"),
    tuple(role for role in USUAL if role not in _COUNTS),
)
"""What to read as floats, although the first block of a text holds whole numbers: more each time
that a later one does not."""
_NUMBER = r"(?i)^\s*([-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf|infinity)|true|false)\s*$"
_VECTOR = r"^\s*\[[^\[\]]*\]\s*$"

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

    def parts(self, columns: Sequence[str]) -> "Iterator[TableRows]":
        """All rows, with the columns that are asked for."""
        first = 0
        for batch in self.batches(columns):
            yield TableRows(batch, first)
            first += len(batch)


@dataclass(frozen=True)
class TableRows:
    """Rows of an Arrow table."""

    batch: pa.RecordBatch
    first_row: int
    """The number of the first of them in the table, for messages."""

    def __len__(self) -> int:
        return len(self.batch)

    def array(self, name: str) -> pa.Array:
        """A column, lists that are written as text as lists."""
        return numeric(self.batch.column(name), name, first_row=self.first_row)

    def flat(self, name: str) -> pa.Array:
        """The entries of a column of lists, end to end."""
        array = self.array(name)
        return numeric(array.flatten(), name) if is_list(array.type) else array

    def numbers(self, name: str, *, mend: bool = False) -> np.ndarray:
        """The entries of a column."""
        return numbers(self.array(name), name, mend=mend)

    def labels(self, name: str) -> np.ndarray:
        """Numbers, names or times."""
        array = self.batch.column(name)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if is_text(array.type) or is_time(array.type):
            return array.to_numpy(zero_copy_only=False)
        values = numbers(array, name)
        if values.ndim > 1:
            raise ValueError(f"Column {name} holds lists; give a number, a name or a time a row.")
        return values


def numeric(array: pa.Array, name: str, *, first_row: int = 0) -> pa.Array:
    """The same column, without a dictionary; lists that are written as text become lists.

    Raises:
        ValueError: Other text.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not is_text(array.type):
        return array
    other = ~_matches(array, _VECTOR)
    if other.any():
        words = other & ~_matches(array, _NUMBER)
        row = int((words if words.any() else other).argmax())
        raise ValueError(
            f"Column {name} holds text such as {array[row].as_py()[:40]!r} in row "
            f"{first_row + row} (from 0). Numbers are needed, or lists of numbers, [1.5, 2]; lists "
            "of lists can be read from Parquet and JSONL."
        )
    inside = pc.call_function("utf8_trim", [array], pc.TrimOptions("[] \t\n,"))
    lists = pc.call_function("split_pattern_regex", [inside], pc.SplitPatternOptions(r"[,\s]+"))
    for kind in (pa.int64(), pa.float64()):
        with suppress(pa.ArrowInvalid):
            return lists.cast(pa.list_(kind))
    bad = int((~_matches(lists.flatten(), _NUMBER)).argmax())
    sizes = pc.call_function("list_value_length", [lists]).fill_null(0)
    row = int(np.searchsorted(np.cumsum(sizes.to_numpy()), bad, side="right"))
    raise ValueError(
        f"Column {name} holds lists that are not of numbers: {array[row].as_py()[:40]!r} in row "
        f"{first_row + row} (from 0)."
    )


def _matches(array: pa.Array, pattern: str) -> np.ndarray:
    """`[rows]` bool: whether a text is missing, or matches."""
    matching = pc.call_function("match_substring_regex", [array], pc.MatchSubstringOptions(pattern))
    return matching.fill_null(True).to_numpy(zero_copy_only=False)


def table_source(table: Table, layout: Layout, path: Path, *, fixed_types: bool) -> Source:
    """A table as a source, with one row a step or one row an episode.

    Args:
        table: The table.
        layout: The user's description of the columns.
        path: The file.
        fixed_types: Whether the file declares the types of its columns.
    """
    names = table.schema.names
    columns = columns_of(names, layout, table.place)
    environment = path.name.partition(".")[0] or path.name
    first = next((b for b in table.parts([columns["rewards"][0]]) if len(b)), None)
    if first is None:
        raise ValueError(f"{table.place} has no rows.")
    if is_list(first.array(columns["rewards"][0]).type):
        columns = {role: names for role, names in columns.items() if role != "time"}
        return list_source(table, columns, layout, environment, fixed_types=fixed_types)
    if not (layout.time or _has_times(table, names_in(columns, "time"))):
        columns = {role: names for role, names in columns.items() if role != "time"}
    return step_source(
        f"{table.kind}, one row a step",
        table.parts,
        columns,
        layout,
        names=names,
        environment=environment,
        fixed_types=fixed_types,
        steps=table.rows,
    )


def _has_times(table: Table, names: Sequence[str]) -> bool:
    """Whether the column of the step has an order that can be checked."""
    ordered = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, is_time)
    types = [table.schema.field(name).type for name in names]
    return all(any(is_kind(each) for is_kind in ordered) for each in types)


def text_source(opening: Callable[[Types], Table], layout: Layout, path: Path) -> Source:
    """A table as a source, whose types have to be told from its text."""
    table = opening({})
    columns = columns_of(table.schema.names, layout, table.place)
    for roles in _GUESSES:
        types = {
            n: floats_for_integers(table.schema.field(n).type) for n in names_in(columns, *roles)
        }
        try:
            return table_source(opening(types), layout, path, fixed_types=False)
        except UnreadableError:
            if roles is _GUESSES[-1]:
                raise
    raise AssertionError("the last guess returns or raises")


def csv(path: Path, layout: Layout, *, block_bytes: int = BLOCK_BYTES) -> Source:
    """A CSV file with a header, `.csv.gz` too. Lists are texts such as "[0.5, 1.5]"."""
    blocks = pacsv.ReadOptions(block_size=block_bytes)

    def opening(types: Types) -> Table:
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
                        raise not_utf8(path)
                    yield from opened
            except UnreadableError:
                counted = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
                names = [f.name for f in schema if any(is_kind(f.type) for is_kind in counted)]
                if names:
                    _refuse_words(path, names, blocks)
                raise

        refuse_utf16(path, "CSV")
        with readable(path, "CSV"):
            every = pacsv.ConvertOptions(column_types=types)
            with pacsv.open_csv(path, blocks, convert_options=every) as opened:
                names = opened.schema.names
                if twice := sorted({name for name in names if names.count(name) > 1}):
                    raise ValueError(
                        f"{path} has more than one column {', '.join(twice)}: rename them"
                    )
                return Table(str(path), "CSV", opened.schema, batches)

    return text_source(opening, layout, path)


def _refuse_words(path: Path, names: Collection[str], blocks: pacsv.ReadOptions) -> None:
    """Refuses words in columns of numbers, which Arrow names without their place."""
    as_text = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=list(names),
        strings_can_be_null=True,
    )
    row = 0
    with (
        suppress(pa.ArrowException),
        pacsv.open_csv(path, blocks, convert_options=as_text) as opened,
    ):
        for batch in opened:
            words = {name: ~_matches(batch.column(name), _NUMBER) for name in names}
            first = {name: int(where.argmax()) for name, where in words.items() if where.any()}
            if first:
                name = min(first, key=first.__getitem__)
                word = batch.column(name)[first[name]].as_py()
                raise word_error(path, name, word, row + first[name])
            row += len(batch)


def word_error(path: Path, name: str, word: str, row: int) -> ValueError:
    """The error for a word in a column of numbers."""
    return ValueError(
        f"{path}: column {name} holds {word[:40]!r} in row {row} (from 0), which is no number as "
        "others there are. Mend it, or leave the row out."
    )


@contextmanager
def readable(place: str | Path, kind: str) -> Iterator[None]:
    """Says of Arrow's errors which file they are about.

    Raises:
        UnreadableError: In place of one of them.
        ValueError: Text that is not UTF-8.
        OSError: The system cannot read the file.
    """
    try:
        yield
    except UnicodeDecodeError:
        raise not_utf8(place) from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        text = one_line(error)
        if "UTF8" in text:
            raise not_utf8(place) from None
        raise UnreadableError(f"{place} cannot be read as {kind}: {text}") from None


def refuse_utf16(path: Path, kind: str) -> None:
    """Refuses the text that spreadsheets call Unicode."""
    with readable(path, kind), pa.input_stream(str(path)) as text:
        if text.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise not_utf8(path)


def not_utf8(place: str | Path) -> ValueError:
    """The error for text of another encoding."""
    return ValueError(
        f"{place} is not UTF-8 text. Convert it to UTF-8 from the encoding that it has, such as by "
        "iconv -f LATIN1 -t UTF-8."
    )
