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

_FILE_BYTES = 16 << 20  # also the most that one run writes a second time
_ROWS = WriterProperties(max_row_group_size=1024, compression="ZSTD")
"""Rows that are read together; `stream` and `last_policies` skip the groups they do not need."""


def run(path: Path) -> None:
    """Merge small files and remove what no reader needs, unless another process is at it.

    It is only ever useful, never needed: whatever stops it (a full disk, another process) leaves
    the table as it was, and the next run does the work.
    """
    with suppress(OSError, DeltaError), (path / "_maintenance.lock").open("w") as lock:
        # Two compactions at once double the rows that both of them merge (seen with deltalake 1.6:
        # the second commits although its files are gone), so that the lock is for correctness.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clean(DeltaTable(str(path)))


def _clean(table: DeltaTable) -> None:
    table.optimize.compact(
        target_size=_FILE_BYTES,
        max_concurrent_tasks=1,
        writer_properties=_ROWS,
        commit_properties=CommitProperties(max_commit_retries=1000),
    )
    table.vacuum(dry_run=False)
    table.create_checkpoint()  # and remove the commits before it that have expired
