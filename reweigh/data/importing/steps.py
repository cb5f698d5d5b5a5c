"""Rows with one step each become whole episodes: the one way that every source goes.

A row's episode is told by its label, or by the marks of ends; its time is counted. A source with
one row an episode is laid out as steps first (`lists`) and joins at `log_steps`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from reweigh.data.importing.columns import (
    Labels,
    RowError,
    end_marks,
    entries,
    require,
    side_by_side,
    survey,
    whole_numbers,
)
from reweigh.data.importing.layout import (
    Columns,
    Layout,
    Parts,
    Rows,
    Source,
    names_in,
    notes,
    unread,
)
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories

NO_SEED = -1
"""The seed of an episode of which nobody knows how it was reset."""

Steps = Mapping[str, np.ndarray]
"""Columns of `Trajectories`, an entry a step; with `time`, and `next_observations` if known."""


def step_source(
    kind: str,
    parts: Parts,
    columns: Columns,
    layout: Layout,
    *,
    names: Sequence[str],
    environment: str,
    fixed_types: bool,
    steps: int | None,
) -> Source:
    """A source with one row a step.

    Args:
        kind: The source's format, in words.
        names: All columns that could be read.
        environment: The environment's name, if the layout has none.
        fixed_types: Whether the first rows tell the type and shape of all others.
        steps: How many there are; None if the types are not fixed: then all are counted.
    """
    schema, seen, doubts = survey(parts, columns, layout, environment, fixed_types=fixed_types)

    def read() -> Iterator[Trajectories]:
        clock = _Clock(_is_count(parts, columns))
        return _episodes(parts(names_in(columns)), columns, schema, clock)

    return Source(
        format=kind,
        schema=schema,
        read=read,
        steps=seen if steps is None else steps,
        columns=columns,
        unread=unread(names, columns),
        notes=(*notes(columns), *doubts),
    )


def _episodes(
    parts: Iterator[Rows], columns: Columns, schema: TrajectorySchema, clock: "_Clock"
) -> Iterator[Trajectories]:
    """Whole episodes of rows, as many as each part completes.

    Memory holds one part, and what came before of the episode that goes on.
    """
    places, read = _Places(), 0
    pending: list[Steps] = []
    for part in parts:
        if len(part) == 0:
            continue
        try:
            marks = end_marks(part, columns, len(part))
            labels = part.labels(columns["episode"][0]) if "episode" in columns else None
            episode, time = places.next(labels, marks["terminated"] | marks["truncated"])
        except RowError as error:
            raise ValueError(f"{error.text}, in row {read + error.row} (from 0).") from None
        try:
            if "time" in columns:
                clock.check(part, columns["time"][0], time)
            steps = {**log_steps(part, columns, schema), **marks, "episode": episode, "time": time}
        except RowError as error:
            place = f"episode {episode[error.row]}, step {time[error.row]}"
            raise ValueError(f"{error.text}, in {place}.") from None
        read += len(part)
        begins = np.flatnonzero(time == 0)
        if len(begins):  # all before the last episode that begins here is complete
            complete = [*pending, {name: c[: begins[-1]] for name, c in steps.items()}]
            if sum(len(piece["time"]) for piece in complete):
                yield fragments(_joined(complete))
            pending = [{name: column[begins[-1] :] for name, column in steps.items()}]
        else:
            pending.append(steps)
    if pending:
        yield fragments(_joined(pending))


def _joined(parts: Sequence[Steps]) -> Steps:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _Places:
    """The episode and the time of each row, from one part to the next."""

    def __init__(self):
        self._labels, self._label = Labels(), None
        self._episode, self._time, self._ended = -1, -1, True

    def next(self, labels: np.ndarray | None, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`episode` and `time`, both `[rows]` int64.

        An episode begins where the label changes; without labels, after the end of another.

        Raises:
            RowError: A label that cannot be.
        """
        if labels is None:
            begins = np.append(self._ended, ended[:-1])
            numbers = self._episode + np.arange(1, begins.sum() + 1)
        else:
            begins_here = self._episode < 0 or labels[0] != self._label
            begins = np.append(begins_here, labels[1:] != labels[:-1])
            try:
                numbers = self._labels.number(labels[begins])
            except RowError as error:
                raise RowError(np.flatnonzero(begins)[error.row], error.text) from None
            self._label = labels[-1]
        episode, rows = np.append(self._episode, numbers)[np.cumsum(begins)], np.arange(len(ended))
        time = rows - np.maximum.accumulate(np.where(begins, rows, -1 - self._time))
        self._episode, self._time, self._ended = int(episode[-1]), int(time[-1]), bool(ended[-1])
        return episode, time


class _Clock:
    """Whether the source's column of the step is in order, from one part to the next."""

    def __init__(self, counts: bool):
        self.counts = counts
        """Whether the column counts steps, from 0 or 1 in each episode or in the source; else it is
        a clock, which goes on from step to step by whatever it likes."""
        self._before = self._base = None

    def check(self, part: Rows, name: str, time: np.ndarray) -> None:
        """Requires that the steps of each episode follow each other.

        Raises:
            RowError: They do not; a value is missing, or neither a number nor a time.
        """
        given = part.labels(name)
        if given.dtype.kind not in "iubfmM":
            raise RowError(0, f"{name}: {given[0]!r} is neither a number nor a time")
        require(given == given, lambda row: f"{name}: a value is missing")
        if self.counts:
            given = whole_numbers(given, name)
        if self._before is None:
            self._base = int(self.counts and given[0] == 1)
            self._before = np.array([self._base - 1]) if self.counts else given[:1]
        before = np.append(self._before, given[:-1])
        self._before = given[-1:]
        if not self.counts:
            require(
                (given > before) | (time == 0),
                lambda row: (
                    f"{name}: it is {given[row]} after {before[row]}: the rows are not sorted, or "
                    "some are there twice (if the column is no clock of the steps: --time '')"
                ),
            )
        else:
            verb = np.where(time == 0, "begins at", "is")
            require(
                (given == before + 1) | ((time == 0) & (given == self._base)),
                lambda row: (
                    f"{name}: it {verb[row]} {given[row]} after {before[row]}: steps are missing, "
                    "or the rows are not sorted (if the column counts something else: --time '')"
                ),
            )


def _is_count(parts: Parts, columns: Columns) -> bool:
    """Whether the column of the step has whole numbers only: others are a clock."""
    for part in parts(names_in(columns, "time")) if "time" in columns else ():
        try:
            given = part.labels(columns["time"][0])
        except RowError:  # of whole numbers one is missing, which is said later with its place
            return True
        if given.dtype.kind != "f":
            return given.dtype.kind in "iub"
        if (given != np.floor(given)).any():
            return False
    return True


def log_steps(rows: Rows, columns: Columns, schema: TrajectorySchema) -> dict[str, np.ndarray]:
    """What a source says of some steps, as the log keeps it.

    Raises:
        RowError: A value that cannot be.
    """

    def joined(role: str) -> np.ndarray:
        return side_by_side([rows.numbers(name) for name in columns[role]])

    def single(role: str) -> np.ndarray:
        values = joined(role)
        if values.size != len(values):
            raise RowError(0, f"{role}: {values[0].size} numbers a step, where one is needed")
        return values.reshape(len(values))

    rewards = single("rewards").astype(np.float64)
    steps = {
        "observations": entries(joined("observations"), schema.observation, "observations"),
        "actions": entries(joined("actions"), schema.action, "actions"),
        "rewards": rewards,
        "log_prob_behaviour": np.full(len(rewards), np.nan),
        "policy_version": np.zeros(len(rewards), dtype=np.int64),
    }
    if (role := "next_observations") in columns:
        steps[role] = entries(joined(role), schema.observation, role)
    if "log_prob_behaviour" in columns:
        steps["log_prob_behaviour"] = single("log_prob_behaviour").astype(np.float64)
    elif "probabilities" in columns:
        values, name = single("probabilities"), columns["probabilities"][0]
        bad = (values < 0) | (schema.discrete_actions & (values > 1))
        require(~bad, lambda row: f"{name}: {values[row]} is not a probability")
        with np.errstate(divide="ignore"):  # 0 becomes -inf, which is refused with its place
            steps["log_prob_behaviour"] = np.log(values.astype(np.float64))
    if "policy_version" in columns:
        name = columns["policy_version"][0]
        steps["policy_version"] = whole_numbers(single("policy_version"), name)
    return steps


def fragments(
    steps: Steps,
    *,
    final_observations: np.ndarray | None = None,
    seeds: np.ndarray | None = None,
) -> Trajectories:
    """Whole episodes, cut where the policy changed.

    Args:
        final_observations: `[E, *observation]`, after each episode's last step; by default from
            `next_observations`, and without those the last observation once more.
        seeds: `[E]`, of each episode; by default unknown.

    Raises:
        ValueError: An episode goes on after its end.
    """
    time, version = steps["time"], steps["policy_version"]
    begins = np.flatnonzero(time == 0)
    is_last = np.append(time[1:] == 0, True)
    early = (steps["terminated"] | steps["truncated"]) & ~is_last
    if early.any():
        step = int(early.argmax())
        raise ValueError(
            f"Episode {steps['episode'][step]} goes on after step {time[step]}, where it ended. "
            "If the column of the episode means something else, leave it out: --episode ''."
        )
    cut = time == 0
    cut[1:] |= version[1:] != version[:-1]
    start = np.flatnonzero(cut)
    last = np.append(start[1:], len(time)) - 1
    # After a cut within an episode comes its next observation; only those of the ends are missing.
    final = steps["observations"][np.minimum(last + 1, len(time) - 1)]
    if final_observations is None:
        final_observations = steps.get("next_observations", steps["observations"])[is_last]
    final[is_last[last]] = final_observations
    episode = np.searchsorted(begins, start, side="right") - 1
    return Trajectories(
        observations=steps["observations"],
        actions=steps["actions"],
        rewards=steps["rewards"],
        log_prob_behaviour=steps["log_prob_behaviour"],
        lengths=last - start + 1,
        final_observations=final,
        terminated=steps["terminated"][last],
        truncated=steps["truncated"][last],
        policy_version=version[start],
        episode=steps["episode"][start],
        seed=np.full(len(start), NO_SEED) if seeds is None else seeds[episode],
        time_start=time[start],
    )
