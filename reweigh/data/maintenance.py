"""Housekeeping: small files merged, merged files and old commits removed.

Every append leaves a data file and a commit of a few kilobytes. Without this a log of a million
steps would be 10,000 files, and each read would open all of them.
"""

import fcntl
from contextlib import suppress
from pathlib import Path

from deltalake import CommitProperties, DeltaTable, WriterProperties
from deltalake.exceptions import DeltaError

EVERY = 64
"""Commits between two runs: a read opens at most about this many small files (0.4 ms each)."""

RETENTION = {
    "delta.deletedFileRetentionDuration": "interval 10 minutes",
    "delta.logRetentionDuration": "interval 10 minutes",
}
"""How long a file that was merged away stays for the readers of older commits."""

FILE_BYTES = 16 << 20
"""Size of a merged file, and the most that one run writes a second time."""
GROUP_ROWS = 1024
"""Rows that are read together; `stream` and `last_policies` skip the groups they do not need."""


def run(path: Path, *, file_bytes: int = FILE_BYTES, group_rows: int = GROUP_ROWS) -> None:
    """Merges small files and removes those that no reader needs, unless another process does so.

    No reader or writer depends on it: if it is stopped (by a full disk, by another process), the
    table stays as it was, and the next run does the work.

    Args:
        path: The log's folder.
        file_bytes: Size up to which files are merged.
        group_rows: Rows in each row group of a merged file.
    """
    with suppress(OSError, DeltaError), (path / "_maintenance.lock").open("w") as lock:
        # Two compactions at once double the rows that both of them merge (seen with deltalake 1.6:
        # the second commits although its files are gone), so that the lock is for correctness.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clean(DeltaTable(str(path)), file_bytes, group_rows)


def _clean(table: DeltaTable, file_bytes: int, group_rows: int) -> None:
    table.optimize.compact(
        target_size=file_bytes,
        max_concurrent_tasks=1,
        writer_properties=WriterProperties(max_row_group_size=group_rows, compression="ZSTD"),
        commit_properties=CommitProperties(max_commit_retries=1000),
    )
    table.vacuum(dry_run=False)
    table.create_checkpoint()  # and remove the commits before it that have expired
