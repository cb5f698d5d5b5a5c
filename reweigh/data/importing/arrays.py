"""Arrays with one entry a step: D4RL's HDF5 files, and `.npz` files of the same arrays."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib import format as npy

from reweigh.data.importing.columns import survey
from reweigh.data.importing.layout import (
    ArrayRows,
    Layout,
    Rows,
    Source,
    columns_of,
    names_in,
    notes,
    unread,
)
from reweigh.data.importing.lists import Lists, read_episodes
from reweigh.data.importing.steps import step_source
from reweigh.data.schema import MAX_STEPS, rows_at_a_time
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True)
class Array:
    """An array in a file, read from its beginning on."""

    length: int
    entry_bytes: int
    read: Callable[[int], np.ndarray]
    """The next entries, as many as asked for."""


Opening = Callable[[], AbstractContextManager[dict[str, Array]]]
"""Opens a file anew, with all its arrays at their beginning."""


def hdf5(path: Path, layout: Layout, *, max_steps: int = MAX_STEPS) -> Source:
    """An HDF5 file of arrays, as D4RL writes them (Fu et al. 2020).

    That is observations, actions, rewards, terminals, timeouts, and infos/action_log_probs where
    the behaviour is known.
    """
    opening = partial(_open_hdf5, path)
    return _source(path, layout, opening, "HDF5 arrays, one entry a step", max_steps)


def npz(path: Path, layout: Layout, *, max_steps: int = MAX_STEPS) -> Source:
    """An `.npz` file of such arrays, or a folder of them with an episode in each."""
    if path.is_dir():
        return _episodes(path, layout)
    opening = partial(_open_npz, path)
    return _source(path, layout, opening, "NumPy arrays, one entry a step", max_steps)


def h5py_module() -> ModuleType:
    """The library that reads HDF5.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError('HDF5 needs h5py: pip install "reweigh[minari]"') from None
    return h5py


@contextmanager
def _open_hdf5(path: Path) -> Iterator[dict[str, Array]]:
    h5py = h5py_module()
    arrays: dict[str, Array] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "biuf":
            size = item.dtype.itemsize * int(np.prod(item.shape[1:]))
            arrays[name] = Array(len(item), size, _forward(item))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(add)
            yield arrays
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}.") from None


def _forward(dataset: np.ndarray) -> Callable[[int], np.ndarray]:
    """Reads slice after slice."""
    position = 0

    def read(count: int) -> np.ndarray:
        nonlocal position
        position += count
        return dataset[position - count : position]

    return read


@contextmanager
def _open_npz(path: Path) -> Iterator[dict[str, Array]]:
    """The arrays of a file, read out of it piece by piece, so that none is ever whole."""
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as opened:
            for member in archive.namelist():
                file = opened.enter_context(archive.open(member))
                name = member.removesuffix(".npy")
                headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                shape, fortran, dtype = headers[npy.read_magic(file)](file)
                if dtype.kind not in "biuf" or not shape:
                    continue
                length, *rest = shape
                size = dtype.itemsize * int(np.prod(rest))
                if fortran and len(shape) > 1:  # its columns come first: only as a whole
                    with np.load(path) as whole:
                        arrays[name] = Array(len(whole[name]), size, _forward(whole[name]))
                else:
                    read = partial(_from_bytes, file.read, dtype, tuple(rest), size)
                    arrays[name] = Array(length, size, read)
            yield arrays
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as .npz: {error}.") from None


def _from_bytes(
    read: Callable[[int], bytes], dtype: np.dtype, shape: tuple[int, ...], size: int, count: int
) -> np.ndarray:
    return np.frombuffer(read(count * size), dtype).reshape(count, *shape)


def _source(path: Path, layout: Layout, opening: Opening, kind: str, max_steps: int) -> Source:
    with opening() as arrays:
        columns = columns_of(list(arrays), layout, str(path))
        lengths = {name: arrays[name].length for name in names_in(columns)}
        steps = lengths[columns["rewards"][0]]
        names = [name for name in arrays if arrays[name].length == steps]
    for name, length in lengths.items():
        if length != steps:
            raise ValueError(
                f"{path}: {name} has {length} entries, and there are {steps} rewards; they part at "
                f"row {min(length, steps)}. Every step needs one of each."
            )

    def parts(names: Sequence[str]) -> Iterator[Rows]:
        with opening() as arrays:
            chosen = {name: arrays[name] for name in names}
            size = sum(array.entry_bytes for array in chosen.values())
            at_once = rows_at_a_time(size, max_steps)
            for first in range(0, steps, at_once):
                count = min(at_once, steps - first)
                yield ArrayRows({name: array.read(count) for name, array in chosen.items()})

    return step_source(
        kind,
        parts,
        columns,
        layout,
        names=names,
        environment=path.stem,
        fixed_types=True,
        steps=steps,
    )


def _episodes(folder: Path, layout: Layout) -> Source:
    """A folder of files, an episode in each, in the order of their names."""
    files = sorted(folder.glob("*.npz"))
    first = _load(files[0])
    columns = columns_of(list(first), layout, str(files[0]))
    observed, rewards = (first[columns[role][0]] for role in ("observations", "rewards"))
    columns = {role: c for role, c in columns.items() if role not in ("episode", "time")}

    def parts(names: Sequence[str]) -> Iterator[ArrayRows]:
        for file in files:
            arrays = _load(file)
            missing = [name for name in names if name not in arrays]
            if missing:
                raise ValueError(f"{file} has no array {missing[0]!r}, as {files[0]} has.")
            yield ArrayRows({name: np.atleast_1d(arrays[name]) for name in names})

    schema, _, doubts = survey(parts, columns, layout, folder.name, fixed_types=True)

    def read() -> Iterator[Trajectories]:
        for number, rows in enumerate(parts(names_in(columns))):
            lists = {n: Lists(array, np.array([len(array)])) for n, array in rows.arrays.items()}
            yield read_episodes(lists, columns, schema, np.array([number]))

    return Source(
        format="NumPy arrays, one file an episode",
        schema=schema,
        read=read,
        columns=columns,
        unread=unread(list(first), columns),
        notes=(*notes(columns, final=len(observed) > len(rewards)), *doubts),
    )


def _load(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as .npz: {error}.") from None
