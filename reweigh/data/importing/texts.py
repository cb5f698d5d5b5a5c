"""Numbers that are written as text: lists of them, and what is found in their place."""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from pyarrow import compute as pc

_NUMBER = r"(?i)^\s*([-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf|infinity)|true|false)\s*$"
_VECTOR = r"^\s*\[[^\[\]]*\]\s*$"


def plain(array: pa.Array, name: str, *, first_row: int = 0) -> pa.Array:
    """The same column, without a dictionary; lists that are written as text become lists.

    Args:
        array: the column, or some rows of it.
        name: its name.
        first_row: which of all rows is the first here, for messages.

    Raises:
        ValueError: other text.
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
    parts = pc.call_function("split_pattern_regex", [inside], pc.SplitPatternOptions(r"[,\s]+"))
    for kind in (pa.int64(), pa.float64()):
        with suppress(pa.ArrowInvalid):
            return parts.cast(pa.list_(kind))
    bad = int((~_matches(parts.flatten(), _NUMBER)).argmax())
    counts = pc.call_function("list_value_length", [parts]).fill_null(0)
    row = int(np.searchsorted(np.cumsum(counts.to_numpy()), bad, side="right"))
    raise ValueError(
        f"Column {name} holds lists that are not of numbers: {array[row].as_py()[:40]!r} in row "
        f"{first_row + row} (from 0)."
    )


def is_text(arrow_type: pa.DataType) -> bool:
    """Whether a column's entries are text."""
    return pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type)


def _matches(array: pa.Array, pattern: str) -> np.ndarray:
    """`[rows]` bool, whether they are missing or match."""
    matching = pc.call_function("match_substring_regex", [array], pc.MatchSubstringOptions(pattern))
    return matching.fill_null(True).to_numpy(zero_copy_only=False)


def refuse_words_in_csv(path: Path, names: Collection[str], blocks: pacsv.ReadOptions) -> None:
    """Refuse words in columns of numbers, which Arrow names without their place.

    Raises:
        ValueError: there is one; says what it is, and where.
    """
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
                raise _mixed(path, name, word, row + first[name])
            row += len(batch)


def refuse_words_in_jsonl(path: Path) -> None:
    """The same of JSONL, of columns in which there are numbers anywhere.

    Raises:
        ValueError: there is one; says what it is, and where.
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
                    raise _mixed(path, name, *words[name])


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _mixed(path: Path, name: str, word: str, row: int) -> ValueError:
    return ValueError(
        f"{path}: column {name} holds {word[:40]!r} in row {row} (from 0), which is no number as "
        "others there are. Mend it, or leave the row out."
    )
