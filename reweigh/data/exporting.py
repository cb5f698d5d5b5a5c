"""Logs for other tools: one Parquet file, or a dataset that Minari opens.

Either holds all that the log holds, so that `import_log` gives the same log back, bit for bit.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reweigh.data.importing.arrays import h5py_module
from reweigh.data.importing.exported import FORMAT_KEY, FRAGMENTS, PER_FRAGMENT, SCHEMA
from reweigh.data.importing.minari import datasets_folder
from reweigh.data.importing.spaces import space_of
from reweigh.data.importing.write import Progress, new_path
from reweigh.data.log import FORMAT, TrajectoryLog
from reweigh.data.rows import UNITS
from reweigh.data.schema import MAX_STEPS, PER_STEP, ArraySpec, TrajectorySchema
from reweigh.data.trajectories import Trajectories

_MINARI = "0.5.0"
"""The version of Minari from which on datasets have this layout."""


def export_log(log: TrajectoryLog, target: str | Path, *, progress: Progress | None = None) -> Path:
    """Write a log for other tools to read.

    `import_log` of the target gives the same log, bit for bit. The fragments of an episode are
    joined; what each of them was is kept beside.

    Args:
        log: the log.
        target: `*.parquet` for a file with one row an episode; a folder, such as `name-v0`, for a
            Minari dataset.
        progress: called with the steps done and all there are.

    Returns:
        The target, absolute.

    Raises:
        ValueError: the target exists, or has another suffix; h5py is not installed; the log is
            empty.
        OSError: the disk is full or cannot be written.
    """
    target = Path(target).absolute()
    as_table = target.suffix == ".parquet"
    if not as_table and target.suffix and not re.search(r"-v\d+$", target.name):
        raise ValueError(
            f"{target.name} is neither *.parquet nor a folder for a Minari dataset, name-v0."
        )
    steps = log.summary().steps
    if not steps:
        raise ValueError(f"{log.path} is empty: there is nothing to export.")
    with new_path(target) as temporary:
        batches = _batches(log, steps, progress)
        if as_table:
            _write_parquet(temporary, log.schema, batches, steps)
        else:
            _write_minari(temporary, log.schema, batches, _dataset_id(target))
    return target


def _batches(log: TrajectoryLog, steps: int, progress: Progress | None) -> Iterator[Trajectories]:
    """All episodes, whole and in order."""
    done = 0
    for batch in log.stream_episodes(max_steps=log.schema.steps_at_a_time(MAX_STEPS)):
        yield batch
        done += batch.steps
        if progress:
            progress(done, steps)


# Parquet: one row an episode


def _write_parquet(
    file: Path, schema: TrajectorySchema, batches: Iterator[Trajectories], steps: int
) -> None:
    arrow = _arrow_schema(schema, steps)
    # Pages with checksums: nothing else would notice a flipped bit.
    with pq.ParquetWriter(file, arrow, compression="zstd", write_page_checksum=True) as writer:
        for batch in batches:
            writer.write_table(_table(batch, schema, arrow))


def _arrow_schema(schema: TrajectorySchema, steps: int) -> pa.Schema:
    """The columns, with the schema of the log in the metadata."""
    metadata = {SCHEMA: schema.to_json(), FORMAT_KEY: FORMAT, "reweigh.steps": str(steps)}
    fields = [
        pa.field(name, _list_type(name, spec), nullable=False, metadata={"unit": UNITS[name]})
        for name, spec in schema.columns.items()
    ]
    return pa.schema(fields, metadata=metadata)


def _is_list(name: str) -> bool:
    return name in (*PER_STEP, *PER_FRAGMENT, "final_observations")


def _list_type(name: str, spec: ArraySpec) -> pa.DataType:
    number = pa.from_numpy_dtype(np.dtype(spec.dtype))
    entry = pa.list_(number, spec.size) if spec.shape else number
    return pa.list_(entry) if _is_list(name) else number


def _table(batch: Trajectories, schema: TrajectorySchema, arrow: pa.Schema) -> pa.Table:
    first, last = batch.episode_spans()
    steps = np.append(0, batch.stop[last])
    fragments = np.append(0, last + 1)
    arrays = []
    for name, spec in schema.columns.items():
        column = np.ascontiguousarray(getattr(batch, name))
        if not _is_list(name):
            at = last if name in ("terminated", "truncated") else first
            arrays.append(pa.array(column[at]))
            continue
        values = pa.array(column.reshape(-1))
        if spec.shape:
            values = pa.FixedSizeListArray.from_arrays(values, spec.size)
        offsets = steps if name in PER_STEP else fragments
        arrays.append(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values))
    return pa.Table.from_arrays(
        [a.cast(f.type) for a, f in zip(arrays, arrow, strict=True)], schema=arrow
    )


# Minari: a group an episode


def _dataset_id(target: Path) -> str:
    """The dataset's name: where Minari keeps its datasets, its place there."""
    folder = datasets_folder().absolute()
    name = str(target.relative_to(folder)) if target.is_relative_to(folder) else target.name
    name = re.sub(r"[^-\w/]", "-", name)
    return name if re.search(r"-v\d+$", name) else f"{name}-v0"


def _write_minari(
    folder: Path, schema: TrajectorySchema, batches: Iterator[Trajectories], dataset_id: str
) -> None:
    h5py = h5py_module()
    data = folder / "data"
    data.mkdir(parents=True)
    episodes = steps = 0
    with h5py.File(data / "main_data.hdf5", "w", track_order=True) as file:
        for batch in batches:
            for first, last in zip(*batch.episode_spans(), strict=True):
                group = file.create_group(f"episode_{episodes}")
                group.attrs["id"] = episodes
                _write_episode(group, batch, int(first), int(last))
                episodes += 1
            steps += batch.steps
    size = (data / "main_data.hdf5").stat().st_size / 1e6
    metadata = {
        "dataset_id": dataset_id,
        "total_episodes": episodes,
        "total_steps": steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(space_of(schema.observation)),
        "action_space": json.dumps(space_of(schema.action)),
        "minari_version": _MINARI,
        "dataset_size": round(size, 1),
        "description": f"Trajectories of {schema.environment}, exported from a log of reweigh.",
        SCHEMA: schema.to_json(),
        FORMAT_KEY: FORMAT,
    }
    (data / "metadata.json").write_text(json.dumps(metadata))


def _write_episode(group: Any, batch: Trajectories, first: int, last: int) -> None:
    """An episode as Minari keeps it, and what it has no place for in a group of its own."""
    steps = slice(batch.start[first], batch.stop[last])
    length = int(batch.stop[last] - batch.start[first])
    ends = np.zeros((2, length), dtype=bool)
    ends[:, -1] = batch.terminated[last], batch.truncated[last]
    version = np.repeat(batch.policy_version[first : last + 1], batch.lengths[first : last + 1])
    group.attrs["seed"] = batch.seed[first]
    group.attrs["total_steps"] = length
    arrays = {
        "observations": np.concatenate(
            [batch.observations[steps], batch.final_observations[last : last + 1]]
        ),
        "actions": batch.actions[steps],
        "rewards": batch.rewards[steps],
        "terminations": ends[0],
        "truncations": ends[1],
        # The first of the infos is that of the reset, which no action led to.
        "infos/log_prob_behaviour": np.append(np.nan, batch.log_prob_behaviour[steps]),
        "infos/policy_version": np.append(version[0], version),
    }
    for name, values in arrays.items():
        group.create_dataset(name, data=values)
    own = group.create_group(FRAGMENTS)
    own.attrs["episode"] = batch.episode[first]
    own.attrs["time_start"] = batch.time_start[first]
    fragments = [getattr(batch, name)[first : last + 1] for name in PER_FRAGMENT]
    own.create_dataset("fragments", data=np.stack(fragments, axis=1))
    if last > first:
        own.create_dataset("final_observations", data=batch.final_observations[first:last])
