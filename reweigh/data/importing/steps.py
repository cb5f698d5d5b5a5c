"""Sources with one row a step: which episode each row belongs to, and where episodes end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from reweigh.data.importing.entries import RowError, Survey, schema_of
from reweigh.data.importing.episodes import Labels, Steps, ends, fragments, steps_of, whole
from reweigh.data.importing.layout import Found, Layout
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True)
class Rows:
    """Some rows of a source, in its order."""

    count: int
    numbers: Callable[[str], np.ndarray]
    """The entries of a column."""
    labels: Callable[[str], np.ndarray]
    """The entries of a column that may hold names or times."""
    look: Callable[[str], np.ndarray]
    """The entries of a column, but for those that cannot be."""


def survey(
    parts: Callable[[Sequence[str]], Iterator[Rows]],
    found: Found,
    layout: Layout,
    environment: str,
    *,
    fixed_types: bool,
) -> tuple[TrajectorySchema, int, tuple[str, ...]]:
    """What a log of these rows holds, the choices of discrete actions counted; and how many rows.

    Args:
        parts: the rows with the columns that are asked for, some at a time.
        found: the columns.
        layout: what the user says of them.
        environment: its name, if the layout has none.
        fixed_types: whether the first rows tell the type and shape of all others.

    Returns:
        The schema, the number of rows that were seen (all if the types are not fixed), and what
        the user should know of the actions.

    Raises:
        ValueError: there are no rows.
    """
    seen = {"observations": Survey(), "actions": Survey()}
    given = {"observations": layout.observation_choices, "actions": layout.choices}
    rows = 0
    for part in parts([name for role in seen for name in found[role]]):
        rows += part.count
        for role, each in seen.items():
            each.add([part.look(name) for name in found[role]])
        if rows and fixed_types:
            break
    if fixed_types:
        counted = [r for r, each in seen.items() if each.countable(r == "actions") and not given[r]]
        for part in parts([name for role in counted for name in found[role]]):
            for role in counted:
                seen[role].add([part.look(name) for name in found[role]])
            if not any(seen[role].countable(role == "actions") for role in counted):
                break
    if rows == 0:
        raise ValueError("The source has no rows.")
    schema = schema_of(environment, seen["observations"], seen["actions"], layout, found)
    return schema, rows, () if schema.discrete_actions else seen["actions"].doubts()


def counts_steps(parts: Callable[[Sequence[str]], Iterator[Rows]], found: Found) -> bool:
    """Whether the column of the step has whole numbers only: others are a clock.

    Args:
        parts: the rows with the columns that are asked for, some at a time.
        found: the columns.
    """
    name = found.get("time", ("",))[0]
    for part in parts([name]) if name else ():
        try:
            given = part.labels(name)
        except RowError:  # of whole numbers one is missing, which read_steps says with its place
            return True
        if given.dtype.kind != "f":
            return given.dtype.kind in "iub"
        if (given != np.floor(given)).any():
            return False
    return True


def read_steps(
    parts: Iterator[Rows], found: Found, schema: TrajectorySchema, *, counted: bool
) -> Iterator[Trajectories]:
    """Whole episodes of rows, as many as each part completes.

    Memory holds one part, and what came before of the episode that goes on.

    Args:
        parts: the rows, some at a time.
        found: the columns.
        schema: of the log.
        counted: whether the column of the step counts them; else it is a clock.

    Raises:
        ValueError: something that cannot be; says in which episode and step.
    """
    places, clock, read = _Places(), _Count() if counted else _Clock(), 0
    pending: list[Steps] = []
    for part in parts:
        if part.count == 0:
            continue
        try:
            marks = ends(part.numbers, found, part.count)
            labels = part.labels(found["episode"][0]) if "episode" in found else None
            episode, time = places.of(labels, marks["terminated"] | marks["truncated"])
        except RowError as error:
            raise ValueError(f"{error.text}, in row {read + error.row} (from 0).") from None
        try:
            if "time" in found:
                name = found["time"][0]
                clock.check(_times(part, name), time, name)
            steps = {**steps_of(part.numbers, found, schema), **marks}
        except RowError as error:
            raise ValueError(
                f"{error.text}, in episode {episode[error.row]}, step {time[error.row]}."
            ) from None
        steps |= {"episode": episode, "time": time}
        read += part.count
        begins = np.flatnonzero(time == 0)
        if len(begins):
            whole_ones = [*pending, {name: c[: begins[-1]] for name, c in steps.items()}]
            if sum(len(p["time"]) for p in whole_ones):
                yield fragments(_joined(whole_ones))
            pending = [{name: column[begins[-1] :] for name, column in steps.items()}]
        else:
            pending.append(steps)
    if pending:
        yield fragments(_joined(pending))


def _times(part: Rows, name: str) -> np.ndarray:
    """The entries of the column of the step: numbers or times, none of them missing.

    Raises:
        RowError: one is missing, or they are something else.
    """
    given = part.labels(name)
    if given.dtype.kind not in "iubfmM":
        raise RowError(0, f"{name}: {given[0]!r} is neither a number nor a time")
    missing = given != given
    if missing.any():
        raise RowError(int(missing.argmax()), f"{name}: a value is missing")
    return given


def _joined(parts: Sequence[Steps]) -> Steps:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass
class _Places:
    """The episode and the time of each row, from one part to the next."""

    _labels: Labels = field(default_factory=Labels)
    _label: object = None
    _episode: int = -1
    _time: int = -1
    _ended: bool = True

    def of(self, labels: np.ndarray | None, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`episode` and `time`, both `[rows]` int64.

        An episode begins where the label changes; if there are none, after the end of another.

        Raises:
            RowError: a label that cannot be.
        """
        rows = np.arange(len(ended))
        if labels is None:
            begins = np.append(self._ended, ended[:-1])
            numbered = self._episode + np.arange(1, begins.sum() + 1)
        else:
            changed = labels[1:] != labels[:-1]
            begins = np.append(self._episode < 0 or labels[0] != self._label, changed)
            try:
                numbered = self._labels.number(labels[begins])
            except RowError as error:
                raise RowError(np.flatnonzero(begins)[error.row], error.text) from None
            self._label = labels[-1]
        episode = np.append(self._episode, numbered)[np.cumsum(begins)]
        began = np.maximum.accumulate(np.where(begins, rows, -1 - self._time))
        time = rows - began
        self._episode, self._time, self._ended = int(episode[-1]), int(time[-1]), bool(ended[-1])
        return episode, time


@dataclass
class _Clock:
    """Whether time goes on from step to step; how far says nothing."""

    _last: np.ndarray | None = None

    def check(self, given: np.ndarray, time: np.ndarray, name: str) -> None:
        """Requires that each step of an episode is later than the one before.

        Raises:
            RowError: one is not.
        """
        before = np.concatenate([given[:1] if self._last is None else self._last, given[:-1]])
        bad = (given <= before) & (time > 0)
        if bad.any():
            row = int(bad.argmax())
            raise RowError(
                row,
                f"{name}: it is {given[row]} after {before[row]}: the rows are not sorted, or some "
                "are there twice (if the column is no clock of the steps: --time '')",
            )
        self._last = given[-1:]


@dataclass
class _Count:
    """Whether the source's own count of steps agrees."""

    _base: int = 0
    _last: int | None = None

    def check(self, given: np.ndarray, time: np.ndarray, name: str) -> None:
        """Requires that steps follow each other, from 0 or 1 in each episode, or in the source.

        Raises:
            RowError: they do not.
        """
        given = whole(given, name)
        if self._last is None:
            self._base = int(given[0] == 1)
            self._last = self._base - 1
        before = np.append(self._last, given[:-1])
        bad = (given != before + 1) & ((time > 0) | (given != self._base))
        if bad.any():
            row = int(bad.argmax())
            begins = f"begins at {given[row]}" if time[row] == 0 else f"is {given[row]}"
            raise RowError(
                row,
                f"{name}: it {begins} after {before[row]}: steps are missing, or the rows are not "
                f"sorted (if the column counts something else: --time '')",
            )
        self._last = int(given[-1])
