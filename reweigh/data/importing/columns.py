"""Columns of a source: as numbers, one entry a row, as a log keeps them, and what they are."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from reweigh.data.importing.layout import Columns, Layout, Parts, Rows, behaviour, is_done, names_in
from reweigh.data.schema import ArraySpec, ObservedSpec, TrajectorySchema


class RowError(ValueError):
    """A row that cannot be. Who knows which episode and step it is says so."""

    def __init__(self, row: int, text: str):
        super().__init__(f"{text}, in row {row}.")
        self.row = int(row)
        """Its number among the rows at hand."""
        self.text = text
        """What is wrong with it."""


def is_list(kind: pa.DataType) -> bool:
    """Whether entries are lists."""
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether entries are text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_time(kind: pa.DataType) -> bool:
    """Whether entries are points of time, or durations; the time of a day is neither."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_duration(kind)


def floats_for_integers(kind: pa.DataType) -> pa.DataType:
    """The type with floats for whole numbers, within lists too."""
    if is_list(kind):
        return pa.list_(floats_for_integers(kind.value_type))
    return pa.float64() if pa.types.is_integer(kind) or pa.types.is_null(kind) else kind


def depth(kind: pa.DataType) -> int:
    """How many lists are around each number."""
    return 1 + depth(kind.value_type) if is_list(kind) else 0


def numbers(array: pa.Array, name: str, *, mend: bool = False) -> np.ndarray:
    """The entries of a column: `[rows]`, or `[rows, ...]` if they are lists of equal lengths.

    A float that is missing is NaN, which a log refuses with its place.

    Args:
        array: The column.
        name: Its name.
        mend: Leave out entries that cannot be, for a look at the others' type and shape.

    Raises:
        RowError: Lists of different lengths; an integer or a bool is missing.
        ValueError: The column holds something else than numbers.
    """
    shape, stride = [], 1  # `stride` entries of the array are one row
    while is_list(array.type):
        array = array.drop_null() if mend else array
        sizes = list_lengths(array, name, stride)
        size = int(sizes[0]) if len(sizes) else 1
        others = sizes != size
        if others.any() and not mend:
            row = int(others.argmax())
            raise RowError(row // stride, f"{name}: {sizes[row]} numbers, where others have {size}")
        if size == 0:
            raise RowError(0, f"{name}: an entry without numbers")
        shape.append(size)
        stride *= size
        array = array.filter(pa.array(~others)).flatten()
    kind = array.type
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if mend and whole:
        array = array.fill_null(pa.scalar(0).cast(kind))
    elif whole:
        _require_all(array, name, stride)
    elif pa.types.is_null(kind) or pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif not pa.types.is_floating(kind):
        raise ValueError(f"Column {name} holds {kind}; numbers are needed, or lists of numbers.")
    return array.to_numpy(zero_copy_only=False).reshape(-1, *shape)


def list_lengths(array: pa.Array, name: str, stride: int = 1) -> np.ndarray:
    """`[rows]` int64: the length of each list; `stride` of them are one row.

    Raises:
        RowError: A list is missing.
    """
    _require_all(array, name, stride)
    lengths = pc.call_function("list_value_length", [array])
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _require_all(array: pa.Array, name: str, stride: int) -> None:
    if array.null_count:
        row = array.is_null().to_numpy(zero_copy_only=False).argmax()
        raise RowError(row // stride, f"{name}: a value is missing")


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One entry a row out of several columns: a single one as it is, several end to end."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def require(good: np.ndarray, flaw: Callable[[int], str]) -> None:
    """Requires that all rows are good.

    Args:
        good: `[rows]` bool.
        flaw: What is wrong with a row that is not.

    Raises:
        RowError: A row is not.
    """
    if not good.all():
        row = int(good.argmin())
        raise RowError(row, flaw(row))


def entries(values: np.ndarray, spec: ArraySpec, role: str) -> np.ndarray:
    """Entries with the dtype and shape that the log has.

    Raises:
        RowError: Wrong shape; more precision; a fraction where choices are.
    """
    if values.shape[1:] != spec.shape:
        raise RowError(
            0, f"{role}: an entry of shape {list(values.shape[1:])}, where others are {spec}"
        )
    dtype = np.dtype(spec.dtype)
    if dtype.kind == values.dtype.kind == "f" and dtype.itemsize < values.itemsize:
        raise RowError(0, f"{role}: {values.dtype}, where others are {spec}")
    if dtype.kind in "iu" and values.dtype.kind == "f":
        whole = (values == np.floor(values)).reshape(len(values), -1).all(axis=1)
        require(whole, lambda row: f"{role}: {values[row]} is not a whole number, as a choice is")
    return values.astype(dtype)


def end_marks(rows: Rows, columns: Columns, count: int) -> dict[str, np.ndarray]:
    """`terminated` and `truncated` of each row, all false if the source says nothing of it.

    A column named done means the end, whatever its reason: it is taken as terminal unless another
    column says that it was a truncation.

    Raises:
        RowError: A value that is neither true nor false.
    """
    marks = {}
    for role in ("terminated", "truncated"):
        marks[role] = np.zeros(count, dtype=bool)
        if role in columns:
            name = columns[role][0]
            flags = rows.numbers(name).reshape(count)
            require(
                (flags == 0) | (flags == 1),
                lambda row, name=name, flags=flags: (
                    f"{name}: {flags[row]}, which is neither true nor false"
                ),
            )
            marks[role] = flags.astype(bool)
    if is_done(columns):
        marks["terminated"] &= ~marks["truncated"]
    return marks


def whole_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """Whole numbers as int64.

    Raises:
        RowError: Other numbers.
    """
    whole = np.full(len(values), values.dtype.kind in "iub")
    if values.dtype.kind == "f":
        whole = values == np.floor(values)
    require(whole, lambda row: f"{name}: {values[row]!r} is not a whole number")
    return values.astype(np.int64)


_AGAIN = (
    "episode {} begins a second time, after another one: sort the rows by episode, then by step"
)


class Labels:
    """Numbers of episodes from what a source calls them, none of which may come twice.

    Whole numbers stay what they are. Anything else is numbered in the order in which it comes.
    """

    def __init__(self):
        self._names: dict[str, int] = {}
        self._numbers: list[np.ndarray] = []
        self._highest = -1

    def number(self, labels: np.ndarray) -> np.ndarray:
        """`[N]` int64, of N episodes that follow each other.

        Raises:
            RowError: A label is missing, negative, or has been there before.
        """
        if labels.dtype.kind not in "iubf":
            return np.array([self._named(i, name) for i, name in enumerate(labels.tolist())], int)
        numbers = whole_numbers(labels, "episode")
        require(numbers >= 0, lambda row: f"episode: {numbers[row]}; episodes count from 0")
        self._numbers.append(numbers)
        if (np.diff(numbers, prepend=self._highest) <= 0).any():
            # Only where numbers do not rise, all that were there before have to be looked at.
            every = np.concatenate(self._numbers)
            is_first = np.zeros(len(every), dtype=bool)
            is_first[np.unique(every, return_index=True)[1]] = True
            require(is_first[-len(numbers) :], lambda row: _AGAIN.format(numbers[row]))
        self._highest = max([self._highest, *numbers.tolist()])
        return numbers

    def _named(self, row: int, name: str) -> int:
        if name is None:
            raise RowError(row, "episode: a name is missing")
        if name in self._names:
            raise RowError(row, _AGAIN.format(name))
        return self._names.setdefault(name, len(self._names))


def survey(
    parts: Parts, columns: Columns, layout: Layout, environment: str, *, fixed_types: bool
) -> tuple[TrajectorySchema, int, tuple[str, ...]]:
    """The schema of a log of these rows, how many rows were seen, and doubts about the actions.

    Args:
        parts: The rows.
        columns: Which column is what.
        layout: What the user says of them.
        environment: Its name, if the layout has none.
        fixed_types: Whether the first rows tell the type and shape of all others; then not all
            rows are seen.

    Raises:
        ValueError: There are no rows.
    """
    specs = {
        "observations": ObservedSpec(layout.observation_choices, is_action=False),
        "actions": ObservedSpec(layout.choices, is_action=True),
    }

    def observe(part: Rows, roles: Iterable[str]) -> None:
        for role in roles:
            entries = [part.numbers(name, mend=True) for name in columns[role]]
            count = min(map(len, entries))
            specs[role].add(side_by_side([column[:count] for column in entries]))

    rows = 0
    for part in parts(names_in(columns, *specs)):
        rows += len(part)
        observe(part, specs)
        if rows and fixed_types:
            break
    if rows == 0:
        raise ValueError("The source has no rows.")
    # Of fixed types, only columns of choices are read to their end: observations may be large.
    counted = [role for role, spec in specs.items() if fixed_types and spec.is_countable]
    for part in parts(names_in(columns, *counted)) if counted else ():
        observe(part, counted)
        if not any(specs[role].is_countable for role in counted):
            break
    actions = specs["actions"]
    schema = TrajectorySchema(
        environment=layout.environment or environment,
        observation=specs["observations"].spec(),
        action=actions.spec(),
        discrete_actions=bool(layout.choices) or actions.is_whole,
        behaviour=behaviour(columns),
    )
    if schema.discrete_actions or not actions.is_choice_as_float:
        return schema, rows, ()
    return (
        schema,
        rows,
        (
            f"The actions are whole numbers written as {actions.dtype}, which look like choices: "
            "they are taken as continuous. If they are choices, import them by --choices "
            f"{' '.join(map(str, actions.counted()))}.",
        ),
    )
