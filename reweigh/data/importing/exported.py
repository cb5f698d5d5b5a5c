"""What `export_log` wrote, and logs themselves: read back bit for bit."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reweigh.data.importing.arrays import h5py_module
from reweigh.data.importing.columns import RowError, list_lengths, numbers
from reweigh.data.importing.layout import Layout, Source
from reweigh.data.log import FORMAT, TrajectoryLog
from reweigh.data.schema import MAX_STEPS, MISSING, PER_STEP, TrajectorySchema
from reweigh.data.trajectories import Trajectories

SCHEMA = "reweigh.schema"
"""Key of the metadata under which an exported file says what its log holds."""
FORMAT_KEY = "reweigh.format"
"""Key of the metadata with the format of the log, `log.FORMAT`."""
FRAGMENTS = "reweigh"
"""Group of an episode of an exported Minari dataset that holds what Minari has no place for."""
PER_FRAGMENT = ("lengths", "policy_version", "seed")
"""What an exported episode lists, a whole number for each of its fragments."""

_EPISODES = 64


def log(path: Path, layout: Layout) -> Source:
    """A log of reweigh, or the folder of a run, which has one."""
    opened = TrajectoryLog.open(path if (path / "_delta_log").is_dir() else path / "log")
    budget = opened.schema.steps_at_a_time(MAX_STEPS)
    return _changed(
        "a log",
        layout,
        opened.schema,
        lambda: opened.stream_episodes(max_steps=budget),
        opened.summary().steps,
    )


def parquet(path: Path, raw_metadata: Mapping[bytes, bytes], layout: Layout) -> Source:
    """A Parquet file that was exported from a log."""
    metadata = {key.decode(): value.decode() for key, value in raw_metadata.items()}
    schema = _schema(path, metadata)
    steps = int(metadata["reweigh.steps"])
    kind = "Parquet, exported from a log"
    return _changed(kind, layout, schema, lambda: _parquet(path, schema), steps)


def minari(folder: Path, metadata: Mapping[str, Any], layout: Layout) -> Source:
    """A Minari dataset that was exported from a log."""
    schema = _schema(folder, metadata)

    def read() -> Iterator[Trajectories]:
        return _minari(folder / "main_data.hdf5", int(metadata["total_episodes"]), schema)

    steps = int(metadata["total_steps"])
    return _changed("Minari, exported from a log", layout, schema, read, steps)


def _schema(place: Path, metadata: Mapping[str, Any]) -> TrajectorySchema:
    """The schema that an export says it has.

    Raises:
        ValueError: The export is of a log of another format.
    """
    version = metadata.get(FORMAT_KEY, "1")
    if version != FORMAT:
        raise ValueError(
            f"{place} was exported from a log of format {version}, and this version of reweigh "
            f"reads format {FORMAT}. Import it with the version that exported it."
        )
    return TrajectorySchema.from_json(metadata[SCHEMA])


def _changed(
    kind: str,
    layout: Layout,
    schema: TrajectorySchema,
    read: Any,
    steps: int | None,
) -> Source:
    """The source as it is, or with another environment's name, or without its log-probs."""
    if layout != replace(
        Layout(), environment=layout.environment, log_prob_behaviour=layout.log_prob_behaviour
    ) or (layout.log_prob_behaviour):
        raise ValueError(
            f"The source is {kind}, which says itself what its columns are: leave out the options "
            "that name columns and choices (--log-prob-behaviour '' leaves out its log-probs)."
        )
    schema = replace(schema, environment=layout.environment or schema.environment)
    if layout.log_prob_behaviour is None:
        return Source(format=kind, schema=schema, read=read, steps=steps)

    def without() -> Iterator[Trajectories]:
        for batch in read():
            yield replace(batch, log_prob_behaviour=np.full(batch.steps, np.nan))

    return Source(format=kind, schema=replace(schema, behaviour=MISSING), read=without, steps=steps)


def _parquet(path: Path, schema: TrajectorySchema) -> Iterator[Trajectories]:
    try:
        # Pages were written with checksums, since a flipped bit would go unnoticed otherwise.
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_EPISODES, use_threads=False):
                yield _of_rows(batch, schema)
    except (pa.ArrowException, OSError, KeyError, RowError) as error:
        raise ValueError(f"{path} is damaged: {error}. Export it again.") from None


def _of_rows(batch: pa.RecordBatch, schema: TrajectorySchema) -> Trajectories:
    """Fragments of rows, each of which is an episode."""
    entries, counts = {}, {}
    for name, spec in schema.columns.items():
        array = batch.column(name)
        if name in (*PER_STEP, *PER_FRAGMENT, "final_observations"):
            counts[name] = list_lengths(array, name)
            entries[name] = numbers(array.flatten(), name).reshape(-1, *spec.shape)
        else:
            entries[name] = numbers(array, name)
    spans = counts["lengths"]
    steps = np.add.reduceat(entries["lengths"], np.cumsum(spans) - spans)
    for name, count in counts.items():
        if (count != (steps if name in PER_STEP else spans)).any():
            raise RowError(int((count != spans).argmax()), f"{name} is shorter or longer than it")
    return _spread(entries, spans)


def _spread(entries: dict[str, np.ndarray], spans: np.ndarray) -> Trajectories:
    """Fragments of episodes: `spans` fragments of each.

    Args:
        entries: the columns of `Trajectories`, but `episode`, `time_start`, `terminated` and
            `truncated` by episode.
        spans: `[E]` int64.
    """
    last = np.cumsum(spans) - 1
    lengths = entries["lengths"]
    before = np.cumsum(lengths) - lengths
    time = before - np.repeat(before[last - spans + 1], spans)
    marks = {name: np.zeros(len(lengths), dtype=bool) for name in ("terminated", "truncated")}
    for name, mark in marks.items():
        mark[last] = entries[name]
    return Trajectories(
        **{
            **entries,
            **marks,
            "episode": np.repeat(entries["episode"], spans),
            "time_start": np.repeat(entries["time_start"], spans) + time,
        }
    )


def _minari(file: Path, count: int, schema: TrajectorySchema) -> Iterator[Trajectories]:
    h5py = h5py_module()
    try:
        with h5py.File(file, "r") as content:
            for number in range(count):
                yield _of_group(content[f"episode_{number}"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{file} is damaged: {error}. Export it again.") from None


def _of_group(group: Any) -> Trajectories:
    """The fragments of one episode."""
    own = group[FRAGMENTS]
    fragments = own["fragments"][()]
    observations = group["observations"][()]
    final = observations[-1:]
    if len(fragments) > 1:
        final = np.concatenate([own["final_observations"][()], final])
    entries = {
        "observations": observations[:-1],
        "actions": group["actions"][()],
        "rewards": group["rewards"][()],
        "log_prob_behaviour": group["infos/log_prob_behaviour"][1:],
        "final_observations": final,
        "terminated": group["terminations"][-1],
        "truncated": group["truncations"][-1],
        "episode": own.attrs["episode"],
        "time_start": own.attrs["time_start"],
    }
    for i, name in enumerate(PER_FRAGMENT):
        entries[name] = fragments[:, i].copy()
    for name in ("terminated", "truncated", "episode", "time_start"):
        entries[name] = np.array([entries[name]])
    return _spread(entries, np.array([len(fragments)]))
