"""Policies from where they are kept: a run's folder, a folder of policies, or Python code."""

import re
from importlib import import_module
from pathlib import Path

from torch import nn

from reweigh.acting.policy import build
from reweigh.contracts import one_line
from reweigh.data.policies import PolicyStore


def load_policy(source: str | Path, version: int | None = None) -> nn.Module:
    """Load a policy: a module from observations to a distribution over actions.

    `load_policy(run)(observations).mode` are its greedy actions.

    Args:
        source: The folder of a run, or of policies by version; or `module:name`, a policy in
            Python, or a function without arguments that makes one.
        version: Which of the folder's policies; the newest by default.

    Raises:
        ValueError: There is no policy, no such version, or its file is damaged.
    """
    folder = Path(source)
    if folder.is_dir():
        return stored_policy(policies_of(folder), version)
    if version is not None:
        raise ValueError(f"{source} is no folder of policies, of which version {version} could be")
    named = re.fullmatch(r"([\w.]+):(\w+)", str(source))
    if named is None:
        raise ValueError(
            f"{source} is no policy: give the folder of a run, or module:name for one in Python"
        )
    return _named_policy(named[1], named[2])


def policies_of(folder: Path) -> PolicyStore:
    """The policies of a run, or those that lie in a folder.

    Raises:
        ValueError: There are none.
    """
    for path in (folder / "policies", folder):
        if (store := PolicyStore(path)).versions():
            return store
    raise ValueError(f"{folder} holds no policy: give the folder of a run that has one")


def stored_policy(store: PolicyStore, version: int | None = None) -> nn.Module:
    """Build the policy of a version, the newest by default.

    Raises:
        ValueError: There is no such version, or its file is damaged.
    """
    version = store.latest() if version is None else version
    policy = build(store.metadata(version)["description"])
    policy.load_state_dict(store.load(version))
    return policy.eval()


def _named_policy(module: str, name: str) -> nn.Module:
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{module}:{name}: no module named {error.name!r}; is it importable from this folder?"
        ) from None
    except Exception as error:  # foreign code: anything may come out of it
        raise ValueError(
            f"{module} cannot be imported: {one_line(error, typed=True, most=300)}"
        ) from error
    if not hasattr(imported, name):
        raise ValueError(f"{module}:{name}: {module} has no {name!r}")
    policy = getattr(imported, name)
    if callable(policy) and not isinstance(policy, nn.Module):
        try:
            policy = policy()
        except Exception as error:  # foreign code: anything may come out of it
            raise ValueError(
                f"{module}:{name} is neither a torch.nn.Module nor a function without arguments "
                f"that makes one: {one_line(error, typed=True, most=300)}"
            ) from error
    if not isinstance(policy, nn.Module):
        raise ValueError(
            f"{module}:{name} is {type(policy).__name__}; a policy is a torch.nn.Module from "
            "observations to a torch.distributions.Distribution"
        )
    return policy.eval()
