"""The log: every trajectory ever sampled, in an append-only Delta Lake table on disk.

One row is a fragment of an episode, one append is one atomic commit, and any number of processes
may append and read at once. Any reader of Delta tables (DuckDB, Polars, Spark) reads the log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import DeltaError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from reweigh.data import maintenance
from reweigh.data.damage import damaged_data, failed, refuse_empty_commits
from reweigh.data.rows import Range, arrow_schema, from_table, to_table
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories, cuts

FORMAT = "2"
"""Version of the table's layout; a reader refuses any other. In 1 a column had another name."""

_KEY = ("policy_version", "episode", "time_start")
_COMMIT = CommitProperties(max_commit_retries=10_000)  # each loss is another writer's success
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass(frozen=True)
class LogSummary:
    """Sizes of a log."""

    fragments: int
    """Rows."""
    episodes: int
    """Different episode numbers."""
    steps: int
    """Steps of the environment."""
    steps_by_policy: dict[int, int]
    """Steps by the version of the policy that took them, oldest first."""


class TrajectoryLog:
    """A folder of trajectories; made by `create` or `open`.

    Rows are read in the order of (policy_version, episode, time_start), which are unique in a run.
    A read takes the rows that are committed when it begins, and none that are appended meanwhile.

    Attributes:
        path: The folder, absolute.
        schema: Schema of each fragment.
    """

    def __init__(self, path: Path, schema: TrajectorySchema, table: DeltaTable):
        self.path = path
        self.schema = schema
        self._table = table
        self._pinned: ds.Dataset | None = None

    @classmethod
    def create(cls, path: str | Path, schema: TrajectorySchema) -> Self:
        """A new, empty log.

        Raises:
            ValueError: The folder is a log already, or the path holds a URL escape.
            OSError: The folder cannot be written.
        """
        path = Path(path).absolute()
        if (path / "_delta_log").exists():
            raise ValueError(f"{path} is a log already; open it, or choose another folder.")
        if unquote(str(path)) != str(path):
            # The table's library would decode it and look elsewhere.
            raise ValueError(f"{path} holds a URL escape such as %20; choose another folder.")
        path.mkdir(parents=True, exist_ok=True)
        try:
            table = DeltaTable.create(
                str(path),
                arrow_schema(schema),
                description=f"Trajectories of {schema.environment}, one fragment a row.",
                configuration={
                    "reweigh.format": FORMAT,
                    "reweigh.schema": schema.to_json(),
                    "delta.dataSkippingStatsColumns": ",".join(_KEY),
                    **maintenance.RETENTION,
                },
                raise_if_key_not_exists=False,
            )
        except DeltaError as error:
            raise failed(path, error) from None
        return cls(path, schema, table)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The log in a folder.

        Raises:
            ValueError: The folder is not a log, is of another format, or is damaged.
        """
        path = Path(path).absolute()
        if not (path / "_delta_log").is_dir():
            raise ValueError(f"{path} is not a trajectory log: it has no folder _delta_log.")
        refuse_empty_commits(path)
        try:
            table = DeltaTable(str(path))
        except DeltaError as error:
            raise failed(path, error) from None
        configuration = table.metadata().configuration
        if "reweigh.format" not in configuration:
            raise ValueError(f"{path} is a Delta table that reweigh did not make.")
        if configuration["reweigh.format"] != FORMAT:
            raise ValueError(
                f"{path} is a log of format {configuration['reweigh.format']}, and this version "
                f"of reweigh reads format {FORMAT}. Use the version that wrote it."
            )
        return cls(path, TrajectorySchema.from_json(configuration["reweigh.schema"]), table)

    def at_present(self) -> Self:
        """The log as it is now: no read of it has rows that are appended later."""
        pinned = type(self)(self.path, self.schema, self._table)
        pinned._pinned = self._snapshot()
        return pinned

    def require(self, schema: TrajectorySchema) -> None:
        """Requires that the log has a schema, such as that of the environment to be used.

        Raises:
            ValueError: The log has another schema.
        """
        if schema != self.schema:
            raise ValueError(
                f"{self.path} holds {self.schema}, but {schema} is needed. "
                "Use the environment that was logged, or another folder."
            )

    def append(self, trajectories: Trajectories) -> None:
        """Adds fragments in one commit: all of them are in the log, or none.

        Raises:
            ValueError: A fragment is not as `schema` says, or not finite; see
                `Trajectories.validate`.
            OSError: The disk is full or cannot be written.
        """
        trajectories.validate(self.schema)
        if not len(trajectories):
            return
        try:
            # A writer that slept through a clean-up could not commit on the version it remembers.
            self._table.update_incremental()
            write_deltalake(
                self._table,
                to_table(trajectories, self.schema),
                mode="append",
                commit_properties=_COMMIT,
                post_commithook_properties=_NO_HOOKS,
            )
        except DeltaError as error:
            raise failed(self.path, error) from None
        if self._table.version() % maintenance.EVERY == 0:
            maintenance.run(self.path)

    def read(self, *, first_version: int = 0) -> Trajectories:
        """All fragments that policies from `first_version` on sampled.

        Raises:
            ValueError: A file is missing or damaged.
        """
        return self._read(self._snapshot(), _versions_from(first_version))

    def last_policies(self, count: int) -> Trajectories:
        """All fragments of the `count` newest policies in the log.

        Raises:
            ValueError: `count` is below 1, or a file is missing or damaged.
        """
        if count < 1:
            raise ValueError(f"count is {count}; ask for the last policy, or for more.")
        snapshot = self._snapshot()
        versions = np.unique(self._index(snapshot)["policy_version"])
        first = int(versions[-count:][0]) if len(versions) else 0
        return self._read(snapshot, _versions_from(first))

    def stream(self, *, max_steps: int) -> Iterator[Trajectories]:
        """The fragments that `read` gives, in the same order and in pieces.

        Memory holds one piece and one file of the log, however long the log is.

        Args:
            max_steps: The most steps in a piece; a longer fragment is a piece of its own.

        Raises:
            ValueError: `max_steps` is below 1, or a file is missing or damaged.
        """
        yield from self._stream(_KEY, max_steps)

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """The fragments that `read` gives, in the order of (episode, time_start) and in pieces.

        The fragments of an episode are in one piece, whichever policies sampled them. Memory holds
        one piece, and the files of the log that hold rows of the piece.

        Args:
            max_steps: The most steps in a piece; a longer episode is a piece of its own.

        Raises:
            ValueError: `max_steps` is below 1, or a file is missing or damaged.
        """
        for batch in self._stream(("episode",), max_steps):
            yield batch.in_episode_order()

    def _stream(self, key: tuple[str, ...], max_steps: int) -> Iterator[Trajectories]:
        """All fragments in pieces sorted by a key; fragments of one key are in one piece."""
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}; a batch needs at least one step.")
        snapshot = self._snapshot()
        index = self._index(snapshot)
        order = np.lexsort([index[name] for name in reversed(key)])
        keys = np.stack([index[name][order] for name in key], axis=1)
        for first, stop in cuts(keys, index["lengths"][order], max_steps):
            where = Range(key, keys[first].tolist(), keys[stop - 1].tolist())
            batch = self._read(snapshot, where)
            if len(batch) != stop - first:
                raise ValueError(
                    f"{self.path} is damaged: rows with {where} are missing. "
                    "Restore the log from a backup."
                )
            yield batch

    def summary(self) -> LogSummary:
        """Sizes of the log, from its small columns alone.

        Raises:
            ValueError: A file is missing or damaged.
        """
        index = self._index(self._snapshot())
        versions, which = np.unique(index["policy_version"], return_inverse=True)
        steps = np.zeros(len(versions), dtype=np.int64)
        np.add.at(steps, which, index["lengths"])
        return LogSummary(
            fragments=len(index["lengths"]),
            episodes=len(np.unique(index["episode"])),
            steps=int(index["lengths"].sum()),
            steps_by_policy=dict(zip(versions.tolist(), steps.tolist(), strict=True)),
        )

    def _snapshot(self) -> ds.Dataset:
        """The files of the newest commit. They outlive the commit by `maintenance.RETENTION`."""
        if self._pinned is not None:
            return self._pinned
        filesystem = SubTreeFileSystem(str(self.path), LocalFileSystem())
        try:
            self._table.update_incremental()
            return self._table.to_pyarrow_dataset(filesystem=filesystem)
        except DeltaError as error:
            raise failed(self.path, error) from None

    def _read(self, snapshot: ds.Dataset, where: Range) -> Trajectories:
        """The rows in a range, in order."""
        parts = [Trajectories.empty(self.schema)]
        for file in snapshot.get_fragments(filter=where.leading):
            with _opened(self.path / file.path) as opened:
                # Checked before chosen: a flipped bit in a key must not hide its row.
                groups = where.groups(opened.metadata)
                table = opened.read_row_groups(groups, use_threads=False).cast(snapshot.schema)
                rows = from_table(table, self.schema)
                parts.append(rows.select(where.rows(table)))
        rows = Trajectories.concatenate(parts)
        return rows.select(np.lexsort([getattr(rows, name) for name in reversed(_KEY)]))

    def _index(self, snapshot: ds.Dataset) -> dict[str, np.ndarray]:
        """Key and length of every row, from columns that are cheap to read."""
        names = [*_KEY, "lengths"]
        parts = [snapshot.schema.empty_table().select(names)]
        for file in snapshot.get_fragments():
            with _opened(self.path / file.path) as opened:
                table = opened.read(names, use_threads=False).select(names)
                parts.append(table.cast(parts[0].schema))
        table = pa.concat_tables(parts)
        return {name: table.column(name).to_numpy() for name in names}


def _versions_from(first: int) -> Range:
    return Range(("policy_version",), [first], [np.iinfo(np.int64).max])


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A data file, read without Arrow's threads, which may hang, or abort the process at exit."""
    with damaged_data(path), pq.ParquetFile(path, pre_buffer=False) as file:
        yield file
