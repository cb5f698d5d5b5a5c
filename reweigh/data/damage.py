"""Errors of a log on disk, in one line that names the file and the next thing to do."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def failed(path: Path, error: Exception) -> OSError | ValueError:
    """The error to raise in place of one of the table's library: an OSError if the system's."""
    system = re.search(r"\(os error (\d+)\)", str(error))
    if system:
        number = int(system.group(1))
        return OSError(number, os.strerror(number), str(path))
    damaged = _damaged_commit(path / "_delta_log")
    if damaged:
        return ValueError(
            f"{damaged} is damaged, so that the log cannot be read. Restore it from a backup."
        )
    return ValueError(f"{path} cannot be read as a log: {str(error).splitlines()[0]}")


def refuse_empty_commits(path: Path) -> None:
    """Refuses commits of zero bytes, which a power cut leaves and which Delta reads as no rows.

    Raises:
        ValueError: A commit is empty.
    """
    for commit in sorted((path / "_delta_log").glob("*.json")):
        if commit.stat().st_size == 0:
            raise ValueError(
                f"{commit} is empty, so that its rows would be missing. Restore it from a backup; "
                "if no commit is newer, deleting it undoes the append that was interrupted."
            )


@contextmanager
def damaged_data(file: Path) -> Iterator[None]:
    """Names the data file in the errors of reading it."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(
            f"{file} is missing. Restore it from a backup; if the log was being written to, and "
            "this read took minutes, read again."
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged: {str(error).splitlines()[0]}. Restore it from a backup."
        ) from None


def _damaged_commit(commits: Path) -> Path | None:
    """The first file of the commit log that cannot be parsed or is missing; None if none is."""
    for file in sorted(commits.glob("*.checkpoint*.parquet")):
        try:
            pq.read_metadata(file)
        except (pa.ArrowException, OSError):
            return file
    expected = None
    for file in sorted(commits.glob("*.json")):
        number = int(file.stem)
        if expected is not None and number != expected:
            return commits / f"{expected:020d}.json"
        expected = number + 1
        try:
            for line in file.read_text().splitlines():
                json.loads(line)
        except (UnicodeDecodeError, json.JSONDecodeError):
            return file
    return None
