"""Tables: Parquet, CSV and JSONL, with one row a step or one row an episode."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from reweigh.data.importing.entries import RowError, depth, is_list, list_lengths, numbers
from reweigh.data.importing.episodes import Labels
from reweigh.data.importing.layout import USUAL, Found, Layout, find, unread
from reweigh.data.importing.rows import Lists, read_episodes
from reweigh.data.importing.source import Source, notes
from reweigh.data.importing.steps import Rows, counts_steps, read_steps, survey
from reweigh.data.importing.table_files import (
    Table,
    Types,
    UnreadableError,
    csv_file,
    jsonl_file,
    parquet_files,
)
from reweigh.data.importing.texts import is_text, plain
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories

_FLOATS = ("rewards", "log_prob_behaviour", "probabilities")
_COUNTS = ("episode", "time", "policy_version")
_GUESSES = (
    _FLOATS,
    (*_FLOATS, "observations", "next_observations"),
    tuple(role for role in USUAL if role not in _COUNTS),
)
"""What to read as floats, although the first block of a text holds whole numbers: more each time
that a later one does not.
"""


def parquet(path: Path, layout: Layout) -> Source:
    """A Parquet file, or a folder of them in the order of their names."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} has no .parquet files.")
    return _source(parquet_files(files), layout, path, fixed_types=True)


def csv(path: Path, layout: Layout) -> Source:
    """A CSV file with a header, `.csv.gz` too. Lists are texts such as "[0.5, 1.5]"."""
    return _text(partial(csv_file, path), layout, path)


def jsonl(path: Path, layout: Layout) -> Source:
    """A file with one JSON object a line."""
    return _text(partial(jsonl_file, path), layout, path)


def _text(opening: Callable[[Types], Table], layout: Layout, path: Path) -> Source:
    """A table whose types have to be told from its text."""
    table = opening({})
    found = find(table.schema.names, layout, table.place)
    for roles in _GUESSES:
        names = {name for role in roles for name in found.get(role, ())}
        types = {name: _floats(table.schema.field(name).type) for name in names}
        try:
            return _source(opening(types), layout, path, fixed_types=False)
        except UnreadableError:
            if roles is _GUESSES[-1]:
                raise
    raise AssertionError("the last guess returns or raises")


def _floats(kind: pa.DataType) -> pa.DataType:
    """The type with floats for whole numbers."""
    if is_list(kind):
        return pa.list_(_floats(kind.value_type))
    return pa.float64() if pa.types.is_integer(kind) or pa.types.is_null(kind) else kind


def _source(table: Table, layout: Layout, path: Path, *, fixed_types: bool) -> Source:
    names = table.schema.names
    found = find(names, layout, table.place)
    ends = (found["rewards"][0], found["observations"][0])
    first = next((b for b in table.batches(ends) if len(b)), None)
    if first is None:
        raise ValueError(f"{table.place} has no rows.")
    rewards, observed = (_column(first, name, 0).slice(0, 1) for name in ends)
    lists = is_list(rewards.type)
    final = lists and is_list(observed.type) and len(observed.flatten()) > len(rewards.flatten())
    if lists or not (layout.time or _are_times(table, found)):
        found = {role: columns for role, columns in found.items() if role != "time"}
    parts = partial(_flattened if lists else _parts, table)
    environment = path.name.partition(".")[0] or path.name
    schema, seen, said = survey(parts, found, layout, environment, fixed_types=fixed_types)

    def read() -> Iterator[Trajectories]:
        if lists:
            return _read_lists(table, found, schema)
        counted = counts_steps(parts, found)
        return read_steps(_parts(table, _names(found)), found, schema, counted=counted)

    return Source(
        format=f"{table.kind}, one row {'an episode' if lists else 'a step'}",
        schema=schema,
        read=read,
        steps=None if lists else table.rows or seen,
        columns=found,
        unread=unread(names, found),
        notes=(*notes(found, final=final), *said),
    )


def _are_times(table: Table, found: Found) -> bool:
    """Whether the column of the step has an order that can be checked."""
    ordered = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, _is_time)
    types = [table.schema.field(name).type for name in found.get("time", ())]
    return all(any(is_kind(each) for is_kind in ordered) for each in types)


def _is_time(kind: pa.DataType) -> bool:
    """Whether these are points of time, or how long after one; the time of a day is neither."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_duration(kind)


def _names(found: Found) -> list[str]:
    return [name for columns in found.values() for name in columns]


def _parts(table: Table, columns: Sequence[str]) -> Iterator[Rows]:
    """Rows, each of which is a step."""
    rows = 0
    for batch in table.batches(list(dict.fromkeys(columns))):
        yield Rows(
            count=len(batch),
            numbers=lambda name, b=batch, at=rows: numbers(_column(b, name, at), name),
            labels=lambda name, b=batch: _labels(b.column(name), name),
            look=lambda name, b=batch, at=rows: numbers(_column(b, name, at), name, mend=True),
        )
        rows += len(batch)


def _column(batch: pa.RecordBatch, name: str, rows: int) -> pa.Array:
    """A column, lists that are written as text as lists; before the batch come so many rows."""
    return plain(batch.column(name), name, first_row=rows)


def _flattened(table: Table, columns: Sequence[str]) -> Iterator[Rows]:
    """The entries of rows that are episodes, to look at as if each were a row."""
    rows = 0
    for batch in table.batches(list(dict.fromkeys(columns))):
        flat = {}
        for name in columns:
            array = _column(batch, name, rows)
            entries = array.flatten() if is_list(array.type) else array
            flat[name] = numbers(entries, name, mend=True)
        count = min((len(values) for values in flat.values()), default=0)
        yield Rows(count, flat.__getitem__, flat.__getitem__, flat.__getitem__)
        rows += len(batch)


def _read_lists(table: Table, found: Found, schema: TrajectorySchema) -> Iterator[Trajectories]:
    """Rows, each of which is an episode."""
    names, labels, rows = list(dict.fromkeys(_names(found))), Labels(), 0
    for batch in table.batches(names):
        if not len(batch):
            continue
        episode = np.arange(rows, rows + len(batch))
        if "episode" in found:
            name = found["episode"][0]
            try:
                episode = labels.number(_labels(batch.column(name), name))
            except RowError as error:
                raise ValueError(f"{error.text}, in row {rows + error.row} (from 0).") from None
        levels = depth(_column(batch, found["observations"][0], rows).type)
        columns = {}
        for name in set(names) - set(found.get("episode", ())):
            array = _column(batch, name, rows)
            # The observation after an episode may stand there once: then it has one level less.
            once = name in found.get("next_observations", ()) and depth(array.type) < levels
            columns[name] = _placed(array, name, episode, once=once)
        yield read_episodes(columns, found, schema, episode)
        rows += len(batch)


def _placed(array: pa.Array, name: str, episode: np.ndarray, *, once: bool) -> Lists:
    """A column of lists; what is wrong with it is said with episode and step."""
    try:
        if once or not is_list(array.type):
            return Lists(numbers(array, name), np.ones(len(array), dtype=np.int64))
        counts = list_lengths(array, name)
    except RowError as error:
        raise ValueError(f"{error.text}, in episode {episode[error.row]}, step 0.") from None
    try:
        return Lists(numbers(array.flatten(), name), counts)
    except RowError as error:
        stop = np.cumsum(counts)
        which = int(np.searchsorted(stop, error.row, side="right"))
        step = error.row - (stop[which] - counts[which])
        raise ValueError(f"{error.text}, in episode {episode[which]}, step {step}.") from None


def _labels(array: pa.Array, name: str) -> np.ndarray:
    """Numbers, names or times."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_text(array.type) or _is_time(array.type):
        return array.to_numpy(zero_copy_only=False)
    values = numbers(array, name)
    if values.ndim > 1:
        raise ValueError(f"Column {name} holds lists, where one number, name or time is needed.")
    return values
