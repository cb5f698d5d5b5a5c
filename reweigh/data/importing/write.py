"""From a source to a log: read, checked and appended a few episodes at a time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from reweigh.data.importing.detect import detect
from reweigh.data.importing.folder import Progress, new_path
from reweigh.data.importing.layout import BY_USUAL_NAMES, Layout
from reweigh.data.importing.report import ImportReport, behaviour_notes
from reweigh.data.importing.source import MAX_STEPS, Source, bytes_of, rows_at_a_time
from reweigh.data.importing.unfinished import Unfinished, open_ends, refuse
from reweigh.data.log import TrajectoryLog
from reweigh.data.schema import MISSING, TrajectorySchema
from reweigh.data.trajectories import Trajectories

LogProbs = Callable[[Trajectories], np.ndarray]
"""`[S]` log-probs, in nats, of the actions of some trajectories."""
Estimator = Callable[[TrajectoryLog], tuple[LogProbs, str]]
"""Learns the behaviour from a log without log-probs: what gives them, and how, in words."""


def import_log(
    source: str | Path,
    path: str | Path,
    *,
    layout: Layout = BY_USUAL_NAMES,
    reader: Callable[[str | Path, Layout], Source] = detect,
    unfinished: Unfinished = refuse,
    estimate: Estimator | None = None,
    progress: Progress | None = None,
    max_steps: int = MAX_STEPS,
) -> ImportReport:
    """Read trajectories that others recorded into a new log.

    Memory holds `max_steps` steps, or the longest episode. The log appears when all of it is
    written; whatever goes wrong before leaves nothing behind.

    Args:
        source: a file or folder, or the name of a local Minari dataset; see `detect`.
        path: the folder of the new log.
        layout: what the source's columns mean; looked for under their usual names by default.
        reader: opens the source; by default by what it is. Others are in `detect.READERS`.
        unfinished: what to do with episodes that neither terminated nor were truncated: `refuse`,
            `truncated`, `drop` or `keep` of `reweigh.data.importing.unfinished`.
        estimate: learns the log-probs if the source has none. They are marked in the log.
        progress: called with the steps done, and how many there are if that is known.
        max_steps: the most steps in memory and in one append.

    Raises:
        ValueError: the path exists; the source cannot be read, or holds what cannot be: no column
            for something, lists of different lengths, steps out of order, an episode without end, a
            value that is not finite, an action of probability 0 or above 1. Says in which episode
            and step.
        OSError: the disk is full or cannot be written.
    """
    opened = reader(source, layout)
    if estimate and opened.schema.behaviour != MISSING:
        raise ValueError(
            f"{source} has log-probabilities ({opened.schema.behaviour}): there is nothing to "
            "estimate. To estimate all the same, leave them out by --log-prob-behaviour ''."
        )
    path = Path(path).absolute()
    with new_path(path) as temporary, TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
        log = TrajectoryLog.create(Path(scratch, "log") if estimate else temporary, opened.schema)
        written = _Written(log, unfinished)
        for batch in rebatched(opened.read(), _budget(log.schema, max_steps)):
            written.append(batch)
            if progress:
                progress(written.steps, opened.steps)
        if not written.steps:
            raise ValueError(f"Nothing is left of {source}: {written.notes()[0]}")
        if estimate:
            log_prob_behaviour, words = estimate(log)
            log = _copied(log, temporary, log_prob_behaviour, words, max_steps)
    return ImportReport(
        log=path,
        format=opened.format,
        schema=log.schema,
        episodes=written.episodes,
        steps=written.steps,
        terminated=written.terminated,
        truncated=written.truncated,
        columns=opened.columns or {},
        unread=opened.unread,
        notes=(*opened.notes, *written.notes(), *behaviour_notes(log.schema)),
    )


def with_log_prob_behaviour(
    log: TrajectoryLog,
    path: str | Path,
    log_prob_behaviour: LogProbs,
    *,
    behaviour: str,
    max_steps: int = MAX_STEPS,
) -> TrajectoryLog:
    """A copy of a log with other log-probs, such as estimated ones; the rest is the same, bitwise.

    Args:
        log: the log, whose own log-probs may be missing.
        path: the folder of the copy.
        log_prob_behaviour: gives those of some whole episodes, `[S]` in nats.
        behaviour: where they come from, in words, as the copy's schema will say.
        max_steps: the most steps in memory and in one append.

    Raises:
        ValueError: the path exists, or a log-prob cannot be; see `import_log`.
        OSError: the disk is full or cannot be written.
    """
    path = Path(path).absolute()
    with new_path(path) as temporary:
        _copied(log, temporary, log_prob_behaviour, behaviour, max_steps)
    return TrajectoryLog.open(path)


def _copied(
    log: TrajectoryLog, path: Path, log_prob_behaviour: LogProbs, behaviour: str, max_steps: int
) -> TrajectoryLog:
    if behaviour in ("", MISSING):
        raise ValueError(f"behaviour is {behaviour!r}; say where the log-probs come from.")
    copy = TrajectoryLog.create(path, replace(log.schema, behaviour=behaviour))
    for batch in log.stream_episodes(max_steps=_budget(log.schema, max_steps)):
        given = np.asarray(log_prob_behaviour(batch), dtype=np.float64)
        if given.shape != (batch.steps,):
            raise ValueError(
                f"log_prob_behaviour gave shape {list(given.shape)} for {batch.steps} steps; "
                "give one each."
            )
        batch = replace(batch, log_prob_behaviour=given)
        _refuse_impossible(batch)
        copy.append(batch)
    return copy


def rebatched(parts: Iterable[Trajectories], max_steps: int) -> Iterator[Trajectories]:
    """The same episodes in batches of at most `max_steps` steps; one that is longer is alone.

    Args:
        parts: whole episodes, the fragments of each together.
        max_steps: the most steps in a batch.
    """
    held: list[Trajectories] = []
    steps = 0
    for part in parts:
        for piece in part.pieces(max_steps):
            if held and steps + piece.steps > max_steps:
                yield Trajectories.concatenate(held)
                held, steps = [], 0
            held.append(piece)
            steps += piece.steps
    if held:
        yield Trajectories.concatenate(held)


def _budget(schema: TrajectorySchema, max_steps: int) -> int:
    return rows_at_a_time(bytes_of(schema.observation) + bytes_of(schema.action), max_steps)


@dataclass
class _Written:
    """A log that is being written, and what has gone into it."""

    log: TrajectoryLog
    unfinished: Unfinished
    steps: int = 0
    episodes: int = 0
    terminated: int = 0
    truncated: int = 0
    dropped: int = 0
    cut: int = 0
    endless: int = 0
    certain: bool = True

    def append(self, batch: Trajectories) -> None:
        """Append whole episodes, those without an end as `unfinished` says.

        Raises:
            ValueError: something that cannot be.
        """
        _refuse_impossible(batch)
        kept = self.unfinished(batch)
        batch.validate(self.log.schema)  # what is dropped, too, tells of a source that is broken
        self.log.append(kept)
        episodes, endless = len(batch.episode_spans()[0]), len(open_ends(batch))
        _, last = kept.episode_spans()
        self.dropped += episodes - len(last)
        self.endless += len(open_ends(kept))
        self.cut += endless - (episodes - len(last)) - len(open_ends(kept))
        self.steps += kept.steps
        self.episodes += len(last)
        self.terminated += int(kept.terminated[last].sum())
        self.truncated += int(kept.truncated[last].sum())
        self.certain &= self.log.schema.discrete_actions and not batch.log_prob_behaviour.any()

    def notes(self) -> tuple[str, ...]:
        """What became of the episodes without an end, and what is odd about the log-probs."""
        counted = (
            (self.dropped, "left out"),
            (self.cut, "taken as truncated where the source stops"),
            (self.endless, "kept so: nothing can be estimated from them"),
        )
        said = [f"{n:,} episodes without an end were {what}." for n, what in counted if n]
        if self.certain:
            said.append(
                "Every action has probability 1: a policy that never explores tells nothing of one "
                "that acts otherwise. Was the probability of the action recorded?"
            )
        return tuple(said)


def _refuse_impossible(batch: Trajectories) -> None:
    """Refuse actions that the behaviour cannot have taken.

    Raises:
        ValueError: a log-prob is -inf.
    """
    impossible = np.isneginf(batch.log_prob_behaviour)
    if impossible.any():
        step = int(impossible.argmax())
        i = int(np.searchsorted(batch.stop, step, side="right"))
        time = batch.time_start[i] + step - batch.start[i]
        raise ValueError(
            f"The action in episode {batch.episode[i]}, step {time} has probability 0 under the "
            "behaviour policy, which therefore cannot have taken it: its weight would be infinite. "
            "Record the probability of the action that was taken, exploration included."
        )
