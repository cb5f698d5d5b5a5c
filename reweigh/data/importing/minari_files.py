"""The files of a Minari dataset: the arrays of an episode, whatever holds them."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reweigh.data.importing.arrays import h5py_module
from reweigh.data.importing.columns import RowError, numbers
from reweigh.data.importing.spaces import Kinds, lack
from reweigh.data.importing.tables import readable

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
    files = sorted(folder.glob(f"*.{kind}"))
    if not files:
        raise ValueError(f"{folder} holds no .{kind} files: an episode is missing.")
    try:
        with readable(folder, kind):
            table = pa.concat_tables([_table(file, kind) for file in files]).combine_chunks()
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise ValueError(f"{files[0]} has no column {missing[0]!r}, which every episode needs.")
        arrays: Arrays = {}
        for name in table.column_names if infos is None or infos else COLUMNS:
            arrays |= _leaves(table.column(name).combine_chunks(), name)
    except RowError as error:
        raise ValueError(f"{error.text}, in episode {folder.name}, step {error.row}.") from None
    arrays |= {name: arrays[name][:-1] for name in _PADDED}
    seed = read_metadata(folder / "metadata.json", {"seed": (int, NoneType)}).get("seed")
    if seed is not None:
        arrays["seed"] = np.array(seed)
    return arrays


def _table(file: Path, kind: str) -> pa.Table:
    with readable(file, kind):
        if kind == "parquet":
            with pq.ParquetFile(file) as parquet:
                return parquet.read()
        with pa.OSFile(str(file)) as opened, pa.ipc.open_file(opened) as arrow:
            return arrow.read_all()


def read_metadata(file: Path, kinds: Kinds) -> dict[str, Any]:
    """The metadata in a JSON file, of a dataset or an episode.

    Args:
        file: the file.
        kinds: what of it is read, and of which types that is; None among them if it may be missing.

    Raises:
        ValueError: it has something else.
    """
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        refuse_metadata(file, "there is no such file")
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        refuse_metadata(file, str(error))
    if flaw := lack(metadata, kinds):
        refuse_metadata(file, flaw)
    return metadata


def refuse_metadata(file: Path, flaw: str) -> NoReturn:
    """Say that a file is no metadata of Minari's.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"{file} is not the metadata of a Minari dataset: {flaw}. Write the dataset again with "
        "Minari; or, if the folder holds something else, say what by --format."
    )


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
