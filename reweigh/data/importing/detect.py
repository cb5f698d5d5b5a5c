"""Which reader a source needs: told from what is there."""

from collections.abc import Mapping
from pathlib import Path

from reweigh.data.importing import exported, minari
from reweigh.data.importing.arrays import hdf5, npz
from reweigh.data.importing.layout import Layout
from reweigh.data.importing.source import Reader, Source
from reweigh.data.importing.tables import csv, jsonl, parquet


def table(path: Path, layout: Layout) -> Source:
    """A Parquet file: exported from a log, or any other; or a folder of others."""
    if path.is_file() and exported.is_exported(path):
        return exported.parquet(path, layout)
    return parquet(path, layout)


READERS: Mapping[str, Reader] = {
    "log": exported.log,
    "minari": minari.minari,
    "parquet": table,
    "csv": csv,
    "jsonl": jsonl,
    "hdf5": hdf5,
    "npz": npz,
}
"""What opens a source of each format."""

_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
    ".npz": "npz",
}


def detect(source: str | Path, layout: Layout) -> Source:
    """Open a source by what it is: a log, a Minari dataset, a table, or arrays.

    Raises:
        ValueError: there is nothing of that name, or nothing that is known.
    """
    return READERS[_kind(path := _path(source))](path, layout)


def open_as(kind: str, source: str | Path, layout: Layout) -> Source:
    """Open a source as one of `READERS`, whatever it looks like.

    Raises:
        ValueError: there is no reader of that name, or nothing of the source's.
    """
    if kind not in READERS:
        raise ValueError(f"There is no format {kind!r}: {', '.join(READERS)}.")
    return READERS[kind](_path(source), layout)


def _path(source: str | Path) -> Path:
    path = Path(source)
    if path.exists():
        return path
    dataset = minari.local_dataset(str(source))
    if dataset is None:
        raise ValueError(f"There is no file or folder {source}.")
    return dataset


def _kind(path: Path) -> str:
    if path.is_dir():
        if (path / "_delta_log").is_dir() or (path / "log" / "_delta_log").is_dir():
            return "log"
        if minari.is_dataset(path):
            return "minari"
        for suffix in ("parquet", "npz"):
            if any(path.glob(f"*.{suffix}")):
                return suffix
        raise ValueError(
            f"{path} is a folder, but no log, no Minari dataset, and it has no .parquet or .npz "
            "files."
        )
    kind = next((kind for end, kind in _SUFFIXES.items() if path.name.endswith(end)), None)
    if kind is None:
        hint = " Unpickling runs code." if path.suffix in (".pkl", ".pickle") else ""
        raise ValueError(
            f"{path.name} is of no known kind ({', '.join(_SUFFIXES)}).{hint} Convert it, or say "
            "what it is by --format."
        )
    return kind
