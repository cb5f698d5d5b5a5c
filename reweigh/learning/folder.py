"""The folder that learning leaves behind.

    config.json      the options, and what was learnt from
    metrics.jsonl    one line an epoch
    policies/        0, what learning began with; 1, what was learnt, if it is shown to be better
    candidate/       1, what was tested, whatever came of it

The newest of `policies` is the one to use: `load_policy(folder)`.
"""

import json
import shutil
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from reweigh.acting.stored import load_policy, policies_of
from reweigh.data.log import TrajectoryLog
from reweigh.data.policies import PolicyStore
from reweigh.learning.config import EpochProgress, LearnConfig
from reweigh.learning.learn import Learnt, learning

_OURS = ("config.json", "metrics.jsonl", "policies", "candidate")


def learning_in(
    folder: str | Path,
    log: TrajectoryLog,
    behaviour: nn.Module | None = None,
    *,
    config: LearnConfig,
    description: str | None = None,
) -> Generator[EpochProgress, None, Learnt]:
    """`learn.learning`, whose outcome is kept in a folder.

    The folder is made before anything is read, and taken away again if nothing comes of it: where
    there is nothing to learn, or learning is interrupted, nothing is left.

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
    written = {"learn": asdict(config), "log": str(log.path)}
    made = _claim(folder, json.dumps(written, indent=2))
    kept = False
    try:
        steps = learning(log, behaviour, config=config, description=description)
        while True:
            try:
                progress = next(steps)
            except StopIteration as done:
                learnt = _keep(folder, done.value)
                kept = True
                return learnt
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(asdict(progress)) + "\n")
            yield progress
    finally:
        if not kept:
            _give_up(folder, made)


def described_policy(
    source: str | Path, version: int | None = None
) -> tuple[nn.Module, str | None]:
    """A policy as `acting.stored.load_policy` finds it, and its description if it has one.

    Raises:
        ValueError: As there; the folder holds several policies, and none is named.
    """
    if not Path(source).is_dir():
        return load_policy(source, version), None
    store = policies_of(Path(source))
    versions = store.versions()
    if version is None and len(versions) > 1:
        raise ValueError(
            f"{source} holds policies {versions[0]} to {versions[-1]}: say by --version which of "
            "them sampled the log, the oldest of several, since a later one may have been trained "
            "on it"
        )
    version = versions[0] if version is None else version
    return load_policy(source, version), store.metadata(version)["description"]


def _claim(folder: Path, config: str) -> list[Path]:
    """Makes a folder that no other run can take: the one that makes config.json has it.

    Returns:
        The folders that were made, the innermost first.

    Raises:
        ValueError: There is something in the folder, or it cannot be written.
    """
    made = []
    taken = ValueError(f"{folder} is there already; choose another folder with --out")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise taken
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "config.json").open("x") as file:
            file.write(config)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        _remove(made)
        raise ValueError(
            f"{folder} cannot be written ({error.strerror}); choose another folder with --out"
        ) from None
    except FileExistsError:
        raise taken from None
    return made


def _give_up(folder: Path, made: list[Path]) -> None:
    """Removes what was written, and the folders made for it unless others use them."""
    if any(path.name not in _OURS for path in folder.iterdir()):
        return
    for name in ("policies", "candidate"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("config.json", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)
    _remove(made)


def _remove(made: list[Path]) -> None:
    with suppress(OSError):  # not empty, or never made
        for path in made:
            path.rmdir()


def _keep(folder: Path, learnt: Learnt) -> Learnt:
    """Writes the policies: what was learnt where it will be taken for the one to use, or aside.

    Returns:
        The outcome, with a note if `load_policy` cannot make what was written.
    """
    description = learnt.start.description
    # A module of somebody else's: what builds policies from descriptions says that it cannot.
    unknown = json.dumps({"kind": type(learnt.start.policy).__qualname__})
    metadata = {"description": description or unknown}
    policies = PolicyStore(folder / "policies")
    policies.save(0, learnt.start.policy.state_dict(), metadata=metadata)
    if learnt.candidate is not None:
        state = learnt.candidate.state_dict()
        PolicyStore(folder / "candidate").save(1, state, metadata=metadata)
        if learnt.shown:
            policies.save(1, state, metadata=metadata)
    if description is not None:
        return learnt
    load = f'module.load_state_dict(PolicyStore("{policies.path}").load({policies.latest()}))'
    note = (
        "The policy is a module of your own, of which the folder keeps the state dict alone: "
        f"`{load}` loads it, with `PolicyStore` from reweigh.data.policies."
    )
    return replace(learnt, notes=(*learnt.notes, note))
