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

from reweigh.data.importing.layout import Layout, find, unread
from reweigh.data.importing.rows import Lists, read_episodes
from reweigh.data.importing.source import MAX_STEPS, Source, notes, rows_at_a_time
from reweigh.data.importing.steps import Rows, counts_steps, read_steps, survey
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True)
class Array:
    """An array in a file, read from its beginning on."""

    length: int
    entry_bytes: int
    read: Callable[[int], np.ndarray]
    """The next so many entries."""


Opening = Callable[[], AbstractContextManager[dict[str, Array]]]
"""Opens a file anew, with all its arrays at their beginning."""


def hdf5(path: Path, layout: Layout) -> Source:
    """An HDF5 file of arrays, as D4RL writes them (Fu et al. 2020).

    That is observations, actions, rewards, terminals, timeouts, and infos/action_log_probs where
    the behaviour is known.
    """
    return _source(path, layout, partial(_open_hdf5, path), "HDF5 arrays, one entry a step")


def npz(path: Path, layout: Layout) -> Source:
    """An `.npz` file of such arrays, or a folder of them with an episode in each."""
    if path.is_dir():
        return _episodes(path, layout)
    return _source(path, layout, partial(_open_npz, path), "NumPy arrays, one entry a step")


def h5py_module() -> ModuleType:
    """The library that reads HDF5.

    Raises:
        ValueError: it is not installed.
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
    """The arrays of a file are read out of it piece by piece, so that none is ever whole."""
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


def _source(path: Path, layout: Layout, opening: Opening, kind: str) -> Source:
    with opening() as arrays:
        found = find(list(arrays), layout, str(path))
        lengths = {name: arrays[name].length for names in found.values() for name in names}
        steps = lengths[found["rewards"][0]]
        ignored = unread([name for name in arrays if arrays[name].length == steps], found)
    for name, length in lengths.items():
        if length != steps:
            raise ValueError(
                f"{path}: {name} has {length} entries, and there are {steps} rewards; they part at "
                f"row {min(length, steps)}. Every step needs one of each."
            )
    parts = partial(_parts, opening)
    schema, _, said = survey(parts, found, layout, path.stem, fixed_types=True)

    def read() -> Iterator[Trajectories]:
        counted = counts_steps(parts, found)
        return read_steps(parts(list(lengths)), found, schema, counted=counted)

    return Source(
        format=kind,
        schema=schema,
        read=read,
        steps=steps,
        columns=found,
        unread=ignored,
        notes=(*notes(found), *said),
    )


def _parts(opening: Opening, columns: Sequence[str]) -> Iterator[Rows]:
    with opening() as arrays:
        chosen = {name: arrays[name] for name in columns}
        left = min((array.length for array in chosen.values()), default=0)
        size = rows_at_a_time(sum(array.entry_bytes for array in chosen.values()), MAX_STEPS)
        while left > 0:
            count = min(size, left)
            part = {name: array.read(count) for name, array in chosen.items()}
            yield Rows(count, *[part.__getitem__] * 3)
            left -= count


def _episodes(folder: Path, layout: Layout) -> Source:
    """A folder of files, an episode in each, in the order of their names."""
    files = sorted(folder.glob("*.npz"))
    first = _load(files[0])
    names = list(first)
    found = find(names, layout, str(files[0]))
    observed, rewards = (first[found[role][0]] for role in ("observations", "rewards"))
    found = {role: columns for role, columns in found.items() if role not in ("episode", "time")}

    def parts(columns: Sequence[str]) -> Iterator[Rows]:
        for file in files if columns else ():
            arrays = _load(file)
            missing = [name for name in columns if name not in arrays]
            if missing:
                raise ValueError(f"{file} has no array {missing[0]!r}, as {files[0]} has.")
            yield Rows(len(arrays[columns[0]]), *[arrays.__getitem__] * 3)

    schema, _, said = survey(parts, found, layout, folder.name, fixed_types=True)

    def read() -> Iterator[Trajectories]:
        for number, part in enumerate(parts([n for columns in found.values() for n in columns])):
            lists = {
                name: Lists(values, np.array([len(values)]))
                for columns in found.values()
                for name in columns
                for values in [np.atleast_1d(part.numbers(name))]
            }
            yield read_episodes(lists, found, schema, np.array([number]))

    return Source(
        format="NumPy arrays, one file an episode",
        schema=schema,
        read=read,
        columns=found,
        unread=unread(names, found),
        notes=(*notes(found, final=len(observed) > len(rewards)), *said),
    )


def _load(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as .npz: {error}.") from None
