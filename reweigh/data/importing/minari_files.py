"""The files of a Minari dataset: the arrays of an episode, whatever holds them."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from reweigh.data.importing.arrays import h5py_module
from reweigh.data.importing.entries import RowError, numbers

Arrays = dict[str, np.ndarray]
"""The arrays of an episode by name: `observations`, or `observations/part` for each part of a dict;
`infos/name`; `actions`, `rewards`, `terminations`, `truncations`; `seed`, if it is known.
"""

COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations")
"""What every episode has."""
_PADDED = COLUMNS[1:]
"""What Arrow's rows, of which there is one more than the steps, hold once too often."""


def hdf5_episodes(file: Path, count: int, infos: Collection[str] | None) -> Iterator[Arrays]:
    """The episodes of an HDF5 file, one at a time.

    Args:
        file: the file.
        count: how many episodes it has.
        infos: the infos to read; None for all.

    Raises:
        ValueError: it is no such file.
    """
    h5py = h5py_module()

    def leaves(item: Any, name: str) -> Arrays:
        if isinstance(item, h5py.Dataset):
            wanted = infos is None or not name.startswith("infos/") or name in infos
            text = h5py.check_string_dtype(item.dtype) is not None
            return {name: item[()]} if wanted and not text else {}
        return {k: v for key in item for k, v in leaves(item[key], f"{name}/{key}").items()}

    try:
        with h5py.File(file, "r") as content:
            for number in range(count):
                group = content[f"episode_{number}"]
                arrays = {name: group[name][()] for name in _PADDED}
                arrays |= leaves(group["observations"], "observations")
                if "infos" in group:
                    arrays |= leaves(group["infos"], "infos")
                if group.attrs.get("seed") is not None:
                    arrays["seed"] = group.attrs["seed"]
                yield arrays
    except (OSError, KeyError) as error:
        raise ValueError(f"{file} cannot be read as a Minari dataset: {error}.") from None


def arrow_episode(folder: Path, kind: str, infos: Collection[str] | None) -> Arrays:
    """The episode in a folder of Parquet or Arrow files; of the infos those named, or all.

    Raises:
        ValueError: there are none, or they are damaged, or a value is missing.
    """
    files = sorted(str(file) for file in folder.glob(f"*.{kind}"))
    if not files:
        raise ValueError(f"{folder} holds no .{kind} files: an episode is missing.")
    try:
        table = ds.dataset(files, format=kind).to_table().combine_chunks()
        arrays: Arrays = {}
        for name in table.column_names if infos is None or infos else COLUMNS:
            arrays |= _leaves(table.column(name).combine_chunks(), name)
    except pa.ArrowException as error:
        raise ValueError(f"{folder} cannot be read as {kind}: {error}.") from None
    except RowError as error:
        raise ValueError(f"{error.text}, in episode {folder.name}, step {error.row}.") from None
    arrays |= {name: arrays[name][:-1] for name in _PADDED}
    metadata = json.loads((folder / "metadata.json").read_text())
    if metadata.get("seed") is not None:
        arrays["seed"] = np.array(metadata["seed"])
    return arrays


def _leaves(array: pa.Array, name: str) -> Arrays:
    """The arrays of a column, those of a struct by the path that leads to them."""
    if pa.types.is_struct(array.type):
        fields = [array.type.field(i).name for i in range(array.type.num_fields)]
        return {
            k: v
            for field in fields
            for k, v in _leaves(array.field(field), f"{name}/{field}").items()
        }
    if pa.types.is_binary(array.type):
        return {name: np.array([*array.to_pylist(), None], dtype=object)[:-1]}
    if pa.types.is_string(array.type) or (
        name.startswith("infos/") and pa.types.is_list(array.type)
    ):
        return {}
    return {name: numbers(array, name)}
