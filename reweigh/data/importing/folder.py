"""Files and folders that are there whole, or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Progress = Callable[[int, int | None], None]
"""Is told how many steps are done, and how many there are, if that is known."""


@contextmanager
def new_path(target: Path) -> Iterator[Path]:
    """A path beside the target to write to; at the end it becomes the target, or is removed.

    Raises:
        ValueError: the target exists, other than as an empty folder.
        OSError: the disk is full or cannot be written.
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
