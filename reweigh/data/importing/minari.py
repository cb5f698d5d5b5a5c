"""Minari datasets: HDF5, Parquet and Arrow, read as they lie on disk (Younis et al. 2024).

A dataset is a folder with `data/metadata.json`. Its HDF5 has a group an episode, its Parquet or
Arrow a folder an episode; observations are one more than the steps.
"""

import io
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from reweigh.data.importing import exported
from reweigh.data.importing.columns import side_by_side
from reweigh.data.importing.layout import (
    Columns,
    Layout,
    Source,
    behaviour,
    columns_of,
    names_in,
    unread,
)
from reweigh.data.importing.lists import Lists, read_episodes
from reweigh.data.importing.minari_files import (
    COLUMNS,
    Arrays,
    arrow_episode,
    hdf5_episodes,
    read_metadata,
    refuse_metadata,
)
from reweigh.data.importing.spaces import (
    Kinds,
    Space,
    first_choice,
    lack,
    observation_parts,
    observation_spec,
    read_space,
    spec_of,
)
from reweigh.data.importing.steps import NO_SEED
from reweigh.data.schema import ArraySpec, TrajectorySchema
from reweigh.data.trajectories import Trajectories

_METADATA: Kinds = {
    "total_episodes": (int,),
    "total_steps": (int,),
    "data_format": (str,),
    "dataset_id": (str,),
    "observation_space": (str,),
    "action_space": (str,),
    "env_spec": (str, NoneType),
}
_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")


def datasets_folder() -> Path:
    """Where Minari keeps its datasets."""
    given = os.environ.get("MINARI_DATASETS_PATH")
    return Path(given) if given else Path.home() / ".minari" / "datasets"


def local_dataset(name: str) -> Path | None:
    """The folder of a dataset such as "D4RL/pen/human-v2"; None if this is no dataset's name.

    Raises:
        ValueError: Minari has no such dataset here.
    """
    if not _ID.fullmatch(name):
        return None
    folder = datasets_folder() / name
    if not folder.exists():
        raise ValueError(
            f"There is no file or folder {name}, and no Minari dataset of that name in "
            f"{datasets_folder()}. Get it by `minari download {name}`."
        )
    return folder


def is_dataset(folder: Path) -> bool:
    """Whether a folder holds a Minari dataset."""
    return _metadata_file(folder).is_file()


def _metadata_file(folder: Path) -> Path:
    data = folder / "data"
    return (data if data.is_dir() else folder) / "metadata.json"


def minari(path: Path, layout: Layout) -> Source:
    """A dataset's folder."""
    dataset = _Dataset.open(path, layout)
    if exported.SCHEMA in dataset.metadata:
        return exported.minari(dataset.folder, dataset.metadata, layout)
    first = next(iter(dataset.episodes()))
    names = [*COLUMNS, *(name for name in first if name.startswith("infos/"))]
    columns = columns_of(names, _named(layout, names), str(path))
    schema = dataset.schema(layout, columns)
    notes = ()
    if dataset.lossy(first):
        notes = (
            "The dataset keeps images as JPEG, which are not those that the behaviour policy saw: "
            "log-probabilities computed from them differ a little from those it acted with.",
        )
    return Source(
        format=f"Minari, {dataset.metadata['data_format']}",
        schema=schema,
        read=lambda: dataset.read(columns, schema),
        steps=dataset.metadata["total_steps"],
        columns=columns,
        unread=unread(names, columns),
        notes=notes,
    )


def _named(layout: Layout, names: list[str]) -> Layout:
    """The layout of every dataset, and those of the infos that the user named."""

    def info(name: str | None) -> str | None:
        return f"infos/{name}" if name and f"infos/{name}" in names else name

    return replace(
        layout,
        observations=("observations",),
        actions=("actions",),
        rewards="rewards",
        terminated="terminations",
        truncated="truncations",
        log_prob_behaviour=info(layout.log_prob_behaviour),
        probabilities=info(layout.probabilities),
        policy_version=info(layout.policy_version),
        next_observations=("",),
        episode="",
        time="",
    )


@dataclass(frozen=True)
class _Dataset:
    """A dataset on disk, and the spaces of what is read of it."""

    folder: Path
    metadata: Mapping[str, Any]
    observations: Mapping[str, Space]
    """The parts of the observation; a single one, "", if it has none."""
    actions: Space

    @classmethod
    def open(cls, path: Path, layout: Layout) -> "_Dataset":
        file = _metadata_file(path)
        metadata = read_metadata(file, _METADATA)
        try:
            spaces = [
                read_space(metadata[f"{name}_space"], f"the {name}s")
                for name in ("observation", "action")
            ]
            flaw = lack(json.loads(metadata.get("env_spec") or "{}"), {"id": (str, NoneType)})
        except ValueError as error:
            refuse_metadata(file, str(error))
        if flaw:
            refuse_metadata(file, f"of 'env_spec', {flaw}")
        if metadata["total_episodes"] < 1:
            raise ValueError(f"{path} has no episodes.")
        parts = observation_parts(spaces[0], layout.observations)
        observation_spec(parts)  # refused here, before anything else is read
        spec_of(spaces[1], "actions")
        return cls(file.parent, metadata, parts, spaces[1])

    def schema(self, layout: Layout, columns: Columns) -> TrajectorySchema:
        """What a log of it holds; the spaces say how many choices there are."""
        observation = observation_spec(self.observations)
        action = spec_of(self.actions, "actions")
        if layout.observation_choices:
            observation = ArraySpec("int64", observation.shape, layout.observation_choices)
        if layout.choices:
            action = ArraySpec("int64", action.shape, layout.choices)
        environment = json.loads(self.metadata.get("env_spec") or "{}").get("id")
        return TrajectorySchema(
            environment=layout.environment or environment or str(self.metadata["dataset_id"]),
            observation=observation,
            action=action,
            discrete_actions=bool(action.choices),
            behaviour=behaviour(columns),
        )

    def lossy(self, first: Arrays) -> bool:
        """Whether images were compressed."""
        return any(_compressed(_part(first, n), space) for n, space in self.observations.items())

    def read(self, columns: Columns, schema: TrajectorySchema) -> Iterator[Trajectories]:
        """Episode after episode."""
        others = set(names_in(columns)) - {"observations", "actions"}
        infos = [name for name in others if name.startswith("infos/")]
        for number, arrays in enumerate(self.episodes(infos)):
            observed = [
                _entries(_part(arrays, name), space, "observations")
                for name, space in self.observations.items()
            ]
            values = {
                "observations": side_by_side(observed),
                "actions": _entries(arrays["actions"], self.actions, "actions"),
            }
            for name in others:
                # The first of the infos may be that of the reset.
                after_reset = name in infos and len(arrays[name]) == len(arrays["rewards"]) + 1
                values[name] = arrays[name][1:] if after_reset else arrays[name]
            lists = {name: Lists(x, np.array([len(x)])) for name, x in values.items()}
            seed = np.array([arrays.get("seed", NO_SEED)], dtype=np.int64)
            yield read_episodes(lists, columns, schema, np.array([number]), seeds=seed)

    def episodes(self, infos: Collection[str] | None = None) -> Iterator[Arrays]:
        """The arrays of each episode, by their names; of the infos those named, or all."""
        kind = self.metadata["data_format"]
        count = self.metadata["total_episodes"]
        if kind == "hdf5":
            return hdf5_episodes(self.folder / "main_data.hdf5", count, infos)
        if kind in ("parquet", "arrow"):
            return (
                arrow_episode(self.folder / str(number), kind, infos) for number in range(count)
            )
        raise ValueError(f"{self.folder} is of Minari's format {kind!r}, which is not known.")


def _part(arrays: Arrays, name: str) -> np.ndarray:
    """A part of the observations; Arrow numbers those of a tuple, HDF5 names them _index_0 on."""
    path = f"observations/{name}" if name else "observations"
    return arrays[path if path in arrays else path.replace("_index_", "")]


def _compressed(values: np.ndarray, space: Space) -> bool:
    """Whether the entries are JPEG files, of one length or not."""
    return values.dtype.kind == "O" or values[0].size != spec_of(space, "observations").size


def _entries(values: np.ndarray, space: Space, role: str) -> np.ndarray:
    """`[T, ...]` entries of a space, choices counted from 0."""
    spec = spec_of(space, role)
    if _compressed(values, space):
        values = np.stack([_decoded(file) for file in values])
    values = values.reshape(len(values), *spec.shape)
    return values - first_choice(space) if spec.choices else values


def _decoded(file: np.ndarray | bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(bytes(file))))
