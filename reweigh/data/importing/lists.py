"""Sources with one row an episode, or one file or group: lists, laid out as steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reweigh.data.importing.columns import (
    Labels,
    RowError,
    depth,
    end_marks,
    entries,
    is_list,
    list_lengths,
    numbers,
    side_by_side,
    survey,
)
from reweigh.data.importing.layout import ArrayRows, Columns, Layout, Rows, Source, names_in, notes
from reweigh.data.importing.layout import unread as unread_names
from reweigh.data.importing.steps import fragments, log_steps
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories

if TYPE_CHECKING:
    from reweigh.data.importing.tables import Table, TableRows


@dataclass(frozen=True)
class Lists:
    """A column of lists, end to end."""

    values: np.ndarray
    """`[sum of counts, ...]`"""
    counts: np.ndarray
    """`[N]`, of each episode: one a step; one more, of observations; or one an episode."""


def read_episodes(
    lists: Mapping[str, Lists],
    columns: Columns,
    schema: TrajectorySchema,
    episode: np.ndarray,
    *,
    seeds: np.ndarray | None = None,
) -> Trajectories:
    """Whole episodes out of lists.

    Observations may be one more than the steps: the last is the one after the last step.

    Args:
        lists: The columns by name.
        columns: Which column is what.
        schema: Of the log.
        episode: `[N]` int64, the episodes' numbers.
        seeds: `[N]` int64, if they are known.

    Raises:
        ValueError: Lists of different lengths, or a value that cannot be; says in which episode
            and step.
    """
    lengths = lists[columns["rewards"][0]].counts
    if (lengths == 0).any():
        raise ValueError(f"Episode {episode[(lengths == 0).argmax()]}, step 0: it has no steps.")
    stop = np.cumsum(lengths)
    time = np.arange(stop[-1]) - np.repeat(stop - lengths, lengths)
    after = np.cumsum(lengths + 1) - 1  # where the observations after the last steps lie
    has_after = all((lists[n].counts == lengths + 1).all() for n in columns["observations"])

    def laid_out(name: str) -> np.ndarray:
        """The column, one entry a step."""
        values, counts = lists[name].values, lists[name].counts
        if (counts == lengths).all():
            return values
        if has_after and name in columns["observations"]:
            return np.delete(values, after, axis=0)
        if (counts == 1).all():
            if name not in names_in(columns, "terminated", "truncated"):
                return np.repeat(values, lengths, axis=0)
            marks = np.zeros((stop[-1], *values.shape[1:]), dtype=values.dtype)
            marks[stop - 1] = values  # an episode that is marked once ends at its last step
            return marks
        i = int((counts != lengths).argmax())
        raise ValueError(
            f"{name}: {counts[i]} entries in episode {episode[i]}, which has {lengths[i]} rewards; "
            f"they part at step {min(counts[i], lengths[i])}. Every step needs one of each."
        )

    rows = ArrayRows({name: laid_out(name) for name in lists})
    final = None
    try:
        steps = {**log_steps(rows, columns, schema), **end_marks(rows, columns, len(time))}
        if has_after:
            final = side_by_side([lists[name].values[after] for name in columns["observations"]])
            final = entries(final, schema.observation, "observations")
    except RowError as error:
        i = int(np.searchsorted(stop, error.row, side="right"))
        raise ValueError(
            f"{error.text}, in episode {episode[i]}, step {time[error.row]}."
        ) from None
    steps |= {"episode": np.repeat(episode, lengths), "time": time}
    return fragments(steps, final_observations=final, seeds=seeds)


# Tables


def list_source(
    table: "Table", columns: Columns, layout: Layout, environment: str, *, fixed_types: bool
) -> Source:
    """A table with one row an episode."""

    def parts(names) -> Iterator[Rows]:
        return map(_entries_of, table.parts(names))

    observed, rewards = columns["observations"][0], columns["rewards"][0]
    first = next(part for part in table.parts([observed, rewards]) if len(part))
    in_first = [first.array(name).slice(0, 1) for name in (observed, rewards)]
    final = all(is_list(a.type) for a in in_first) and (
        len(in_first[0].flatten()) > len(in_first[1].flatten())
    )
    schema, _, doubts = survey(parts, columns, layout, environment, fixed_types=fixed_types)
    return Source(
        format=f"{table.kind}, one row an episode",
        schema=schema,
        read=lambda: _read(table, columns, schema),
        columns=columns,
        unread=unread_names(table.schema.names, columns),
        notes=(*notes(columns, final=final), *doubts),
    )


def _entries_of(rows: "TableRows") -> Rows:
    """The entries of episodes, to look at as if each were a row."""
    names = rows.batch.schema.names
    return ArrayRows({name: numbers(rows.flat(name), name, mend=True) for name in names})


def _read(table: "Table", columns: Columns, schema: TrajectorySchema) -> Iterator[Trajectories]:
    names, labels = names_in(columns), Labels()
    for rows in table.parts(names):
        if not len(rows):
            continue
        episode = rows.first_row + np.arange(len(rows))
        if "episode" in columns:
            try:
                episode = labels.number(rows.labels(columns["episode"][0]))
            except RowError as error:
                row = rows.first_row + error.row
                raise ValueError(f"{error.text}, in row {row} (from 0).") from None
        levels = depth(rows.array(columns["observations"][0]).type)
        after = columns.get("next_observations", ())
        lists = {}
        for name in names:
            if name not in columns.get("episode", ()):
                # The observation after an episode may stand there once: with one level less.
                kind = rows.array(name).type
                once = not is_list(kind) or (name in after and depth(kind) < levels)
                lists[name] = _placed(rows, name, episode, once=once)
        yield read_episodes(lists, columns, schema, episode)


def _placed(rows: "TableRows", name: str, episode: np.ndarray, *, once: bool) -> Lists:
    """A column of lists, or of entries `once` an episode; a flaw is named by episode and step."""
    counts, values = np.ones(len(rows), dtype=np.int64), rows.array(name)
    try:
        if not once:
            counts = list_lengths(values, name)
            values = rows.flat(name)
    except RowError as error:
        raise ValueError(f"{error.text}, in episode {episode[error.row]}, step 0.") from None
    try:
        return Lists(numbers(values, name), counts)
    except RowError as error:
        stop = np.cumsum(counts)
        i = int(np.searchsorted(stop, error.row, side="right"))
        step = error.row - (stop[i] - counts[i])
        raise ValueError(f"{error.text}, in episode {episode[i]}, step {step}.") from None
