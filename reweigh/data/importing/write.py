"""From a source to a log: opened, read, checked and appended a few episodes at a time."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from reweigh.data.episodes import leave_out_unfinished
from reweigh.data.importing import copying, exported
from reweigh.data.importing.arrays import hdf5, npz
from reweigh.data.importing.jsonl import jsonl
from reweigh.data.importing.layout import BY_USUAL_NAMES, ImportReport, Layout, Reader, Source
from reweigh.data.importing.minari import is_dataset, local_dataset, minari
from reweigh.data.importing.parquet import parquet
from reweigh.data.importing.tables import csv
from reweigh.data.log import TrajectoryLog
from reweigh.data.schema import MAX_STEPS, MISSING, TrajectorySchema
from reweigh.data.trajectories import Trajectories, rebatched

READERS: Mapping[str, Reader] = {
    "log": exported.log,
    "minari": minari,
    "parquet": parquet,
    "csv": csv,
    "jsonl": jsonl,
    "hdf5": hdf5,
    "npz": npz,
}
"""What opens a source of each format."""

_SUFFIXES = {
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".csv", ".csv.gz"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".hdf5", ".h5"), "hdf5"),
    ".npz": "npz",
}

Progress = Callable[[int, int | None], None]
"""Is told how many steps are done, and how many there are, if that is known."""

# What to do with episodes without an end: neither terminated nor truncated. Each rule takes whole
# episodes, fragments in order, and gives those that the log shall hold.
Unfinished = Callable[[Trajectories], Trajectories]


def open_ends(trajectories: Trajectories) -> np.ndarray:
    """`[E]` indices of the last fragments of episodes without an end."""
    _, last = trajectories.episode_spans()
    return last[~trajectories.ended[last]]


def refuse(trajectories: Trajectories) -> Trajectories:
    """Requires that every episode has an end."""
    endless = open_ends(trajectories)
    if len(endless):
        episode, step = trajectories.place(int(trajectories.stop[endless[0]]) - 1).split(", ")
        raise ValueError(
            f"{episode.capitalize()} has no end: {step} is its last, neither terminated nor "
            "truncated. Mark the ends in the source; or, if a time limit cut episodes there, say "
            "so by --unfinished truncated; or leave them out by --unfinished drop."
        )
    return trajectories


def truncated(trajectories: Trajectories) -> Trajectories:
    """The episodes, those without an end truncated where they stop."""
    marks = trajectories.truncated.copy()
    marks[open_ends(trajectories)] = True
    return replace(trajectories, truncated=marks)


def drop(trajectories: Trajectories) -> Trajectories:
    """The whole episodes alone."""
    return leave_out_unfinished(trajectories)[0]


def keep(trajectories: Trajectories) -> Trajectories:
    """The episodes as they are, as in a log that a run trains from; estimators refuse them."""
    return trajectories


def open_source(source: str | Path, layout: Layout, *, format: str | None = None) -> Source:
    """A source: a log, a Minari dataset, a table, or arrays.

    Args:
        source: A file or folder, or the name of a local Minari dataset.
        layout: What its columns mean.
        format: One of `READERS`; by default what the source looks like.

    Raises:
        ValueError: There is nothing of that name, or nothing of a known format.
    """
    if format is not None and format not in READERS:
        raise ValueError(f"There is no format {format!r}: {', '.join(READERS)}.")
    path = Path(source)
    if not path.exists():
        path = local_dataset(str(source))
        if path is None:
            raise ValueError(f"There is no file or folder {source}.")
    return READERS[format or _format(path)](path, layout)


def _format(path: Path) -> str:
    if path.is_dir():
        if any((folder / "_delta_log").is_dir() for folder in (path, path / "log")):
            return "log"
        if is_dataset(path):
            return "minari"
        for suffix in ("parquet", "npz"):
            if any(path.glob(f"*.{suffix}")):
                return suffix
        raise ValueError(
            f"{path} is a folder, but no log, no Minari dataset, and it has no .parquet or .npz "
            "files."
        )
    for suffix, format in _SUFFIXES.items():
        if path.name.endswith(suffix):
            return format
    hint = " Unpickling runs code." if path.suffix in (".pkl", ".pickle") else ""
    raise ValueError(
        f"{path.name} is of no known kind ({', '.join(_SUFFIXES)}).{hint} Convert it, or say what "
        "it is by --format."
    )


def import_log(
    source: str | Path,
    path: str | Path,
    *,
    layout: Layout = BY_USUAL_NAMES,
    reader: Callable[[str | Path, Layout], Source] = open_source,
    unfinished: Unfinished = refuse,
    estimate: copying.BehaviourEstimator | None = None,
    progress: Progress | None = None,
    max_steps: int = MAX_STEPS,
) -> ImportReport:
    """Reads trajectories that others recorded into a new log.

    Memory holds `max_steps` steps, or the longest episode. The log appears when all of it is
    written; whatever goes wrong before leaves nothing behind.

    Args:
        source: A file or folder, or the name of a local Minari dataset.
        path: The folder of the new log.
        layout: What the source's columns mean; looked for under their usual names by default.
        reader: Opens the source; by default by what it looks like.
        unfinished: What to do with episodes that neither terminated nor were truncated: `refuse`,
            `truncated`, `drop` or `keep`.
        estimate: Learns the log-probabilities if the source has none. They are marked in the log.
        progress: Called with the steps done, and how many there are if that is known.
        max_steps: The most steps in memory and in one append.

    Raises:
        ValueError: The path exists; the source cannot be read, or holds what cannot be: no column
            for a role, lists of different lengths, steps out of order, an episode without end, a
            value that is not finite, an action of probability 0 or above 1. Says in which episode
            and step.
        OSError: The disk is full or cannot be written.
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
        counts: Counter[str] = Counter()
        for batch in rebatched(opened.read(), log.schema.steps_at_a_time(max_steps)):
            chosen = unfinished(batch)
            batch.validate(log.schema)  # what is dropped, too, tells of a source that is broken
            log.append(chosen)
            counts += _counts(batch, chosen)
            if progress:
                progress(counts["steps"], opened.steps)
        notes = _notes(counts, log.schema)
        if not counts["steps"]:
            raise ValueError(f"Nothing is left of {source}: {notes[0]}")
        if estimate:
            log = copying.copied(log, temporary, *estimate(log), max_steps=max_steps)
    return ImportReport(
        log=path,
        format=opened.format,
        schema=log.schema,
        episodes=counts["episodes"],
        steps=counts["steps"],
        terminated=counts["terminated"],
        truncated=counts["truncated"],
        columns=opened.columns or {},
        unread=opened.unread,
        notes=(*opened.notes, *notes, *log.schema.behaviour_notes),
    )


def with_log_prob_behaviour(
    log: TrajectoryLog,
    path: str | Path,
    log_prob_behaviour: copying.LogProbBehaviour,
    *,
    behaviour: str,
    max_steps: int = MAX_STEPS,
) -> TrajectoryLog:
    """A copy of a log with other log-probabilities, such as estimated ones; the same otherwise.

    Args:
        log: The log, whose own log-probabilities may be missing.
        path: The folder of the copy.
        log_prob_behaviour: Those of whole episodes, `[S]` in nats.
        behaviour: Where they come from, in words, as the copy's schema will say.
        max_steps: The most steps in memory and in one append.

    Raises:
        ValueError: The path exists, or a log-probability cannot be; see `import_log`.
        OSError: The disk is full or cannot be written.
    """
    path = Path(path).absolute()
    with new_path(path) as temporary:
        copying.copied(log, temporary, log_prob_behaviour, behaviour, max_steps=max_steps)
    return TrajectoryLog.open(path)


def _counts(batch: Trajectories, logged: Trajectories) -> Counter[str]:
    """What has gone into a log, and what became of the episodes without an end."""
    _, last = logged.episode_spans()
    dropped = len(np.unique(batch.episode)) - len(np.unique(logged.episode))
    endless = len(open_ends(logged))
    return Counter(
        steps=logged.steps,
        episodes=len(last),
        terminated=int(logged.terminated[last].sum()),
        truncated=int(logged.truncated[last].sum()),
        dropped=dropped,
        cut=max(0, len(open_ends(batch)) - dropped - endless),
        endless=endless,
        uncertain=int(np.count_nonzero(batch.log_prob_behaviour)),
    )


def _notes(counts: Counter[str], schema: TrajectorySchema) -> tuple[str, ...]:
    """What became of the episodes without an end, and what is odd about the probabilities."""
    outcomes = {
        "dropped": "left out",
        "cut": "taken as truncated where the source stops",
        "endless": "kept so: nothing can be estimated from them",
    }
    notes = [
        f"{counts[name]:,} episodes without an end were {what}."
        for name, what in outcomes.items()
        if counts[name]
    ]
    if schema.discrete_actions and not counts["uncertain"]:
        notes.append(
            "Every action has probability 1: a policy that never explores tells nothing of one "
            "that acts otherwise. Was the probability of the action recorded?"
        )
    return tuple(notes)


@contextmanager
def new_path(target: Path) -> Iterator[Path]:
    """A path beside the target to write to; at the end it becomes the target, or is removed.

    Raises:
        ValueError: The target exists, other than as an empty folder.
        OSError: The disk is full or cannot be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target} exists already; choose another name, or remove it.")
    new = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir() and target.exists():
            target.rmdir()
        temporary.replace(target)
        parent = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(parent)  # the renaming itself
        finally:
            os.close(parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
        for folder in new:
            with suppress(OSError):  # where the target is now, its folders stay
                folder.rmdir()
