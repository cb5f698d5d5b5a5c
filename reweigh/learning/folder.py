"""The folder that learning leaves behind.

    config.json      the options, and what was learnt from
    metrics.jsonl    one line an epoch
    policies/        0, what learning began with; 1, what was learnt, if it is shown to be better
    candidate/       1, what was tested, whatever came of it

The newest of `policies` is the one to use: `load_policy(folder)`.
"""

import json
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

from torch import nn

from reweigh.acting.stored import load_policy, policies_of
from reweigh.data.files import write_whole
from reweigh.data.log import TrajectoryLog
from reweigh.data.policies import PolicyStore
from reweigh.learning.config import LearnConfig
from reweigh.learning.learn import Learnt, learning
from reweigh.learning.progress import EpochProgress


def learning_in(
    folder: str | Path,
    log: TrajectoryLog,
    behaviour: nn.Module | None = None,
    *,
    config: LearnConfig,
    description: str | None = None,
) -> Generator[EpochProgress, None, Learnt]:
    """As `learn.learning`, and keep what comes of it in a folder.

    The folder is made with the first epoch: where there is nothing to learn, nothing is written.

    Args:
        folder: A new one.
        log: What to learn from.
        behaviour: The policy that sampled it.
        config: Options.
        description: Of the behaviour, as `acting.policy.build` reads it. Without it the parameters
            are kept, and whoever made the module can load them.

    Raises:
        ValueError: As `learn.learning`; there is something in the folder, or it cannot be written.
        OSError: The disk is full.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already; choose another folder with --out")
    steps = learning(log, behaviour, config=config, description=description)
    while True:
        try:
            progress = next(steps)
        except StopIteration as done:
            _keep(folder, done.value)
            return done.value
        if progress.epoch == 1:
            _begin(folder, log, config)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(asdict(progress)) + "\n")
        yield progress


def described_policy(
    source: str | Path, version: int | None = None
) -> tuple[nn.Module, str | None]:
    """A policy as `acting.stored.load_policy` finds it, and its description if it has one.

    Raises:
        ValueError: As there.
    """
    policy = load_policy(source, version)
    if not Path(source).is_dir():
        return policy, None
    store = policies_of(Path(source))
    version = store.latest() if version is None else version
    return policy, store.metadata(version)["description"]


def _begin(folder: Path, log: TrajectoryLog, config: LearnConfig) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror}); choose another folder with --out"
        ) from None
    written = {"learn": asdict(config), "log": str(log.path)}
    write_whole(folder / "config.json", json.dumps(written, indent=2).encode())


def _keep(folder: Path, learnt: Learnt) -> None:
    """Write the policies: what was learnt where it will be taken for the one to use, or aside."""
    # A module of somebody else's: what builds policies from descriptions says that it cannot.
    unknown = json.dumps({"kind": type(learnt.start.policy).__qualname__})
    metadata = {"description": learnt.start.description or unknown}
    policies = PolicyStore(folder / "policies")
    policies.save(0, learnt.start.policy.state_dict(), metadata=metadata)
    if learnt.candidate is None:
        return
    state = learnt.candidate.state_dict()
    PolicyStore(folder / "candidate").save(1, state, metadata=metadata)
    if learnt.shown:
        policies.save(1, state, metadata=metadata)
