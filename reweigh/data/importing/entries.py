"""Numbers out of columns: one entry a row, all of one shape and dtype, and what these are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from reweigh.data.importing.layout import Found, Layout, behaviour
from reweigh.data.importing.texts import plain
from reweigh.data.schema import ArraySpec, TrajectorySchema

_MOST_CHOICES = 10_000
"""Floats from here on are amounts, whole or not."""


class RowError(ValueError):
    """A row that cannot be. Whoever knows which episode and step it is says so.

    Attributes:
        row: its number among the rows at hand.
        text: what is wrong with it.
    """

    def __init__(self, row: int, text: str):
        super().__init__(f"{text}, in row {row}.")
        self.row = int(row)
        self.text = text


def is_list(arrow_type: pa.DataType) -> bool:
    """Whether a column's entries are lists, of whatever kind."""
    return (
        pa.types.is_list(arrow_type)
        or pa.types.is_large_list(arrow_type)
        or pa.types.is_fixed_size_list(arrow_type)
    )


def depth(arrow_type: pa.DataType) -> int:
    """How many lists are around each number."""
    return 1 + depth(arrow_type.value_type) if is_list(arrow_type) else 0


def numbers(array: pa.Array, name: str, *, mend: bool = False) -> np.ndarray:
    """The entries of a column: `[rows]`, or `[rows, ...]` if they are lists of equal lengths.

    A float that is missing is NaN, which a log refuses with its place.

    Args:
        array: the column.
        name: its name.
        mend: leave out entries that cannot be, for a look at the others' type and shape.

    Raises:
        RowError: lists of different lengths; an integer or a bool is missing.
        ValueError: the column holds something else than numbers.
    """
    shape, stride = [], 1
    array = plain(array, name)
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
    if mend and (pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)):
        array = array.fill_null(pa.scalar(0).cast(array.type))
    return _leaf(array, name, stride).reshape(-1, *shape)


def list_lengths(array: pa.Array, name: str, stride: int = 1) -> np.ndarray:
    """`[rows]` int64, the length of each row's list.

    Raises:
        RowError: a list is missing. `stride` entries of the array are one row.
    """
    _refuse_missing(array, name, stride)
    return (
        pc.call_function("list_value_length", [array])
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
    )


def _leaf(array: pa.Array, name: str, stride: int) -> np.ndarray:
    kind = array.type
    if pa.types.is_null(kind) or pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"Column {name} holds {kind}; numbers are needed, or lists of numbers.")
    if not pa.types.is_floating(array.type):
        _refuse_missing(array, name, stride)
    return array.to_numpy(zero_copy_only=False)


def _refuse_missing(array: pa.Array, name: str, stride: int) -> None:
    if array.null_count:
        row = array.is_null().to_numpy(zero_copy_only=False).argmax()
        raise RowError(row // stride, f"{name}: a value is missing")


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One entry a row out of several columns: a single one as it is, more of them end to end."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def fitted(values: np.ndarray, spec: ArraySpec, role: str) -> np.ndarray:
    """Entries with the dtype and shape that the log has.

    Raises:
        RowError: another shape; a number that is not whole where choices are.
    """
    if values.shape[1:] != spec.shape:
        raise RowError(
            0, f"{role}: an entry of shape {list(values.shape[1:])}, where others are {spec}"
        )
    dtype = np.dtype(spec.dtype)
    if dtype.kind == values.dtype.kind == "f" and dtype.itemsize < values.itemsize:
        raise RowError(0, f"{role}: {values.dtype}, where others are {spec}")
    if dtype.kind in "iu" and values.dtype.kind == "f":
        broken = (values != np.floor(values)).reshape(len(values), -1).any(axis=1)
        if broken.any():
            row = int(broken.argmax())
            raise RowError(row, f"{role}: {values[row]} is not a whole number, as a choice is")
    return values.astype(dtype)


def flags(values: np.ndarray, name: str) -> np.ndarray:
    """`[rows]` bool of a column of bools, or of 0 and 1.

    Raises:
        RowError: anything else.
    """
    values = values.reshape(len(values))
    bad = (values != 0) & (values != 1)
    if bad.any():
        row = int(bad.argmax())
        raise RowError(row, f"{name}: {values[row]}, which is neither true nor false")
    return values.astype(bool)


def log_of(probabilities: np.ndarray, name: str, *, discrete: bool) -> np.ndarray:
    """Log-probs of probabilities or, if the actions are not discrete, of densities.

    Raises:
        RowError: a negative one, or a probability above 1.
    """
    bad = (probabilities < 0) | (discrete & (probabilities > 1))
    if bad.any():
        row = int(bad.argmax())
        raise RowError(row, f"{name}: {probabilities[row]} is not a probability")
    with np.errstate(divide="ignore"):  # 0 becomes -inf, which is refused with its place
        return np.log(probabilities.astype(np.float64))


@dataclass
class Survey:
    """What the entries of a column are, seen a part at a time."""

    dtype: np.dtype | None = None
    shape: tuple[int, ...] = ()
    highest: np.ndarray | None = None
    lowest: int = 0
    fractions: bool = False
    """Whether there are floats that cannot be the numbers of choices."""

    def add(self, parts: Sequence[np.ndarray]) -> None:
        """See more entries, each out of one or several columns."""
        rows = min(len(part) for part in parts)
        values = side_by_side([part[:rows] for part in parts])
        if self.dtype is None:
            self.dtype, self.shape = values.dtype, values.shape[1:]
        if values.shape[1:] != self.shape or not len(values):
            return  # another shape is refused where its place is known
        self.dtype = np.result_type(self.dtype, values.dtype)
        if values.dtype.kind == "f":
            countable = (values >= 0) & (values < _MOST_CHOICES) & (values == np.floor(values))
            self.fractions |= not countable.all()
        if not self.fractions:
            highest = values.max(axis=0).astype(np.int64)
            self.highest = highest if self.highest is None else np.maximum(self.highest, highest)
            self.lowest = min(self.lowest, int(values.min()))

    def countable(self, every: bool) -> bool:
        """Whether there are choices to count: `every` number is one, or only a single number."""
        return (every and self.choices_as_floats) or (self.whole and (every or self.shape == ()))

    @property
    def choices_as_floats(self) -> bool:
        """Whether all floats seen could be choices."""
        return self.highest is not None and not (self.whole or self.fractions)

    def doubts(self) -> tuple[str, ...]:
        """What is said of continuous actions that look like choices."""
        if not self.choices_as_floats:
            return ()
        counted = " ".join(map(str, self._counted()))
        return (
            f"The actions are whole numbers written as {self.dtype}, which look like choices: they "
            f"are taken as continuous. If they are choices, import them by --choices {counted}.",
        )

    @property
    def whole(self) -> bool:
        """Whether all of them are whole numbers by their type."""
        return self.dtype is not None and self.dtype.kind in "iub"

    def action(self, choices: tuple[int, ...]) -> ArraySpec:
        """One action: discrete if its numbers are whole by type, or `choices` are given."""
        assert self.dtype is not None
        if choices or self.whole:
            return ArraySpec("int64", self.shape, choices or self._counted())
        return ArraySpec(str(self.dtype), self.shape)

    def _counted(self) -> tuple[int, ...]:
        """How many choices there are if the highest number seen is the last of them."""
        assert self.highest is not None
        return tuple((np.maximum(self.highest, 0).reshape(-1) + 1).tolist())

    def observation(self, choices: tuple[int, ...]) -> ArraySpec:
        """One observation: a single whole number is a state, and states are counted from 0."""
        assert self.dtype is not None
        if choices:
            return ArraySpec("int64", self.shape, choices)
        if self.whole and self.dtype.kind != "b" and self.shape == () and self.lowest >= 0:
            return ArraySpec("int64", (), self._counted())
        return ArraySpec(str(self.dtype), self.shape)


def schema_of(
    environment: str, observations: Survey, actions: Survey, layout: Layout, found: Found
) -> TrajectorySchema:
    """What a log of these entries holds."""
    return TrajectorySchema(
        environment=layout.environment or environment,
        observation=observations.observation(layout.observation_choices),
        action=actions.action(layout.choices),
        discrete_actions=bool(layout.choices) or actions.whole,
        behaviour=behaviour(found),
    )
