"""Sources with one row an episode, or one file or group: its columns are lists of steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reweigh.data.importing.entries import RowError, fitted, side_by_side
from reweigh.data.importing.episodes import ends, fragments, steps_of
from reweigh.data.importing.layout import Found
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True)
class Lists:
    """A column of lists, end to end."""

    values: np.ndarray
    """`[sum of counts, ...]`"""
    counts: np.ndarray
    """`[N]`, of each episode: one a step; one more, of observations; or one an episode."""


def read_episodes(
    columns: Mapping[str, Lists],
    found: Found,
    schema: TrajectorySchema,
    episode: np.ndarray,
    *,
    seeds: np.ndarray | None = None,
) -> Trajectories:
    """Whole episodes out of lists.

    Observations may be one more than the steps: the last is the one after the last step.

    Args:
        columns: by name, those that were found.
        found: the columns.
        schema: of the log.
        episode: `[N]` int64, the episodes' numbers.
        seeds: `[N]` int64, if they are known.

    Raises:
        ValueError: lists of different lengths, or something else that cannot be; says in which
            episode and step.
    """
    lengths = columns[found["rewards"][0]].counts
    if (lengths == 0).any():
        raise ValueError(f"Episode {episode[(lengths == 0).argmax()]}, step 0: it has no steps.")
    stop = np.cumsum(lengths)
    time = np.arange(lengths.sum()) - np.repeat(stop - lengths, lengths)
    observed = [columns[name] for name in found["observations"]]
    longer = all((each.counts == lengths + 1).all() for each in observed)
    final = None
    if longer:
        last = np.cumsum(lengths + 1) - 1
        final = side_by_side([each.values[last] for each in observed])

    def entries(name: str) -> np.ndarray:
        column = columns[name]
        if (column.counts == lengths).all():
            return column.values
        if longer and name in found["observations"]:
            return np.delete(column.values, np.cumsum(lengths + 1) - 1, axis=0)
        if (column.counts == 1).all():
            return _once(name, column.values, stop)
        which = int((column.counts != lengths).argmax())
        raise ValueError(
            f"{name}: {column.counts[which]} entries in episode {episode[which]}, which has "
            f"{lengths[which]} rewards; they part at step "
            f"{min(column.counts[which], lengths[which])}. Every step needs one of each."
        )

    def _once(name: str, values: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """What an episode has once: marks of its end and what came after stand at its end."""
        if name in (*found.get("terminated", ()), *found.get("truncated", ())):
            spread = np.zeros((stop[-1], *values.shape[1:]), dtype=values.dtype)
        else:
            spread = np.repeat(values, lengths, axis=0)
        spread[stop - 1] = values
        return spread

    try:
        steps = {**steps_of(entries, found, schema), **ends(entries, found, len(time))}
        if final is not None:
            final = fitted(final, schema.observation, "observations")
    except RowError as error:
        which = int(np.searchsorted(stop, error.row, side="right"))
        raise ValueError(
            f"{error.text}, in episode {episode[which]}, step {time[error.row]}."
        ) from None
    steps |= {"episode": np.repeat(episode, lengths), "time": time}
    return fragments(steps, final_observations=final, seeds=seeds)
