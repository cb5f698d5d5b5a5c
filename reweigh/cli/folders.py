"""Folders that commands read from and write to."""

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reweigh.data.log import TrajectoryLog


def open_log(path: Path) -> "TrajectoryLog":
    """The log in a folder, or that of the run in a folder.

    Raises:
        ValueError: The folder has no log, or the log is damaged.
    """
    from reweigh.data.log import TrajectoryLog

    inside = path / "log"
    return TrajectoryLog.open(inside if (inside / "_delta_log").is_dir() else path)


def next_free(folder: Path, environment: str) -> Path:
    """The first of folder/environment-1, -2, ... that does not exist."""
    name = environment.rpartition(":")[2].replace("/", "-")
    return next(p for n in count(1) if not (p := folder / f"{name}-{n}").exists())
