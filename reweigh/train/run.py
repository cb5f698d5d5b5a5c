"""The run folder: everything about one training run, and the only thing needed to go on with it.

    config.json              the options
    log/                     every step ever taken (a TrajectoryLog)
    policies/                every policy that took them, by version
    checkpoint.safetensors   what else the next iteration needs; replaced whole, so never half
    metrics.jsonl            one line an iteration
    tensorboard/             the same for TensorBoard
    summary.json             the outcome
    report.html              the outcome as a page

An iteration is over when its checkpoint is in place. Whatever a killed run wrote after its last
checkpoint is either repeated exactly or, if the log has committed it, taken from there.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from reweigh.acting.collect import Position
from reweigh.acting.stored import stored_policy
from reweigh.data.files import read_tensors, write_tensors, write_whole
from reweigh.data.log import TrajectoryLog
from reweigh.data.policies import PolicyStore
from reweigh.data.schema import TrajectorySchema
from reweigh.train.config import TrainConfig
from reweigh.train.progress import Progress


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands before the iteration with policy `version`."""

    version: int = 0
    steps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps_used: int = 0  # steps in all minibatches so far, a step counting each time
    steps_to_threshold: int | None = None
    recent_returns: tuple[float, ...] = ()
    positions: tuple[Position, ...] = ()  # of the environments; none before the first steps


class Run:
    """A run folder; made by `create` or `open`."""

    def __init__(self, path: Path, config: TrainConfig, log: TrajectoryLog, description: str):
        self.path = path
        self.config = config
        self.log = log
        self.description = description  # of the policy, as `policy.build` reads it
        self.policies = PolicyStore(path / "policies")

    @classmethod
    def create(
        cls, path: str | Path, config: TrainConfig, schema: TrajectorySchema, description: str
    ) -> "Run":
        """Make the folder of a new run.

        Raises:
            ValueError: there is a run already, or the folder cannot be written.
        """
        path = Path(path)
        if (path / "config.json").exists():
            raise ValueError(
                f"{path} is a run already; go on with it by `reweigh resume {path}`, "
                "or choose another folder with --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            log = TrajectoryLog.create(path / "log", schema)
        except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
            raise ValueError(
                f"{path} cannot be written ({error.strerror}); choose another folder with --out"
            ) from None
        run = cls(path, config, log, description)
        run._write_config()
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open the folder of a run.

        Raises:
            ValueError: it is not a run, or another version wrote it.
        """
        path = Path(path)
        try:
            written = json.loads((path / "config.json").read_text())
            config = TrainConfig.from_values(written["train"])
            config.validate()
            description = json.dumps(written["policy"])
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"{path} is not a run: it has no config.json") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path / 'config.json'} cannot be read: {error}") from None
        return cls(path, config, TrajectoryLog.open(path / "log"), description)

    def extend(self, *, steps: int | None, minutes: float | None, threshold: float | None) -> None:
        """Set new limits; None leaves a limit as it is.

        Raises:
            ValueError: a limit that cannot be, or a run that has reached its threshold and is given
                no other.
        """
        new = {"steps": steps, "minutes": minutes, "threshold": threshold}
        new = {name: limit for name, limit in new.items() if limit is not None}
        saved = self.load_checkpoint()
        if new and saved is not None and saved[0].steps_to_threshold is not None:
            if threshold is None:
                raise ValueError(
                    f"{self.path} has reached its threshold, {self.config.threshold:g}; go on with "
                    "--threshold and a higher return, or inf"
                )
            self.save_checkpoint(replace(saved[0], steps_to_threshold=None), saved[1])
        self.config = replace(self.config, **new).resolved()
        self.config.validate()
        self._write_config()

    def _write_config(self) -> None:
        written = {"train": asdict(self.config), "policy": json.loads(self.description)}
        write_whole(self.path / "config.json", json.dumps(written, indent=2).encode())

    def save_checkpoint(self, checkpoint: Checkpoint, state: dict[str, Tensor]) -> None:
        """Replace the checkpoint; `state` is what `Learner.state` returned."""
        metadata = {"checkpoint": json.dumps(asdict(checkpoint))}
        write_tensors(self.path / "checkpoint.safetensors", state, metadata)

    def load_checkpoint(self) -> tuple[Checkpoint, dict[str, Tensor]] | None:
        """Return the last checkpoint and the learner's state, or None before the first.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        state, metadata = read_tensors(path)
        values = json.loads(metadata["checkpoint"])
        positions = tuple(Position(**position) for position in values.pop("positions"))
        recent = tuple(values.pop("recent_returns"))
        return Checkpoint(**values, recent_returns=recent, positions=positions), state

    def add_metrics(self, progress: Progress) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(asdict(progress)) + "\n")

    def metrics(self) -> Iterator[Progress]:
        """Read what the iterations so far told; a line that a kill cut short is not one of them.

        Raises:
            ValueError: another line is damaged.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
            if not line.endswith("\n"):
                return
            try:
                yield Progress(**json.loads(line))
            except (json.JSONDecodeError, TypeError):
                raise ValueError(
                    f"{path} is damaged in line {number}; delete that line and what follows"
                ) from None

    def forget_metrics_from(self, version: int) -> None:
        """Drop the lines of iterations that will be done again, a torn last line included."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text().splitlines(keepends=True)[:version]
        write_whole(path, "".join(lines).encode())

    def load_policy(self, version: int | None = None) -> nn.Module:
        """Build the policy of a version, the newest by default.

        Raises:
            ValueError: there is no such version, or its file is damaged.
        """
        return stored_policy(self.policies, version)
