"""What a source holds: which of its columns means what, and its episodes, some at a time."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from reweigh.data.schema import MISSING, RECORDED, TrajectorySchema
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True)
class Layout:
    """How to read a source. A column that is not named is looked for under its usual names."""

    observations: tuple[str, ...] = ()
    """Column of the observation, or the columns that make it up; of a dict, its parts."""
    actions: tuple[str, ...] = ()
    """Column of the action, or the columns that make it up."""
    rewards: str | None = None
    """Column of the reward."""
    log_prob_behaviour: str | None = None
    """Column of the log-probability of the action, in nats; '' ignores the one that is there."""
    probabilities: str | None = None
    """Column of its probability (or density), instead."""
    episode: str | None = None
    """Column of the episode's number or name; '' for none: an episode ends where it is marked."""
    time: str | None = None
    """Column of the step within the episode; '' for none. It is only checked."""
    terminated: str | None = None
    """Column that is true where an episode reached a terminal state; '' for none."""
    truncated: str | None = None
    """Column that is true where an episode was cut from outside; '' for none."""
    next_observations: tuple[str, ...] = ()
    """Column, or columns, of the observation after the step; '' for none."""
    policy_version: str | None = None
    """Column of the number of the policy that acted, if there were several; '' for none."""
    environment: str | None = None
    """Name of the environment; by default the source's own name."""
    choices: tuple[int, ...] = ()
    """How many choices each number of an action has, from 0; by default those in the source."""
    observation_choices: tuple[int, ...] = ()
    """The same of observations that are choices, such as the number of a state."""


BY_USUAL_NAMES = Layout()
"""Every column under one of its usual names."""

USUAL: Mapping[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "actions": ("actions", "action", "act"),
    "rewards": ("rewards", "reward"),
    "log_prob_behaviour": (
        *("log_prob_behaviour", "log_probs", "log_prob", "logprobs", "logprob", "logp"),
        *("action_log_probs", "action_log_prob", "action_logp"),
    ),
    "probabilities": (
        *("probabilities", "probability", "prob", "propensities", "propensity", "pscore"),
        *("action_prob", "action_probability"),
    ),
    "episode": ("episode", "episode_id", "eps_id", "trajectory", "trajectory_id", "traj_id"),
    "time": ("time", "timestep", "time_step", "step", "t"),
    "terminated": (
        *("terminated", "terminations", "termination", "terminals", "terminal", "is_terminal"),
        *("dones", "done"),
    ),
    "truncated": ("truncated", "truncations", "truncation", "timeouts", "timeout"),
    "next_observations": (
        *("next_observations", "next_observation", "next_obs", "next_states", "next_state"),
        *("final_observations", "final_observation", "final_obs"),
    ),
    "policy_version": ("policy_version",),
}
"""The names that each column is looked for under, first come first; `infos/` before it or not."""

_WIDE = frozenset({"observations", "actions", "next_observations"})
_NEEDED = ("observations", "actions", "rewards")

Columns = Mapping[str, tuple[str, ...]]
"""The columns that each role of a `Layout` has in a source; a role without columns is absent."""


@dataclass(frozen=True)
class Source:
    """Episodes that can be read into a log."""

    format: str
    """What the source is, in words."""
    schema: TrajectorySchema
    read: Callable[[], Iterator[Trajectories]]
    """Whole episodes, their fragments together and in order, some at a time."""
    steps: int | None = None
    """How many steps there are, if that is known beforehand."""
    columns: Columns | None = None
    """Which column was read as what, where that had to be found out."""
    unread: tuple[str, ...] = ()
    """Columns that were not read."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was read, a sentence each."""


class Rows(Protocol):
    """Some rows of a source, in its order."""

    def __len__(self) -> int: ...

    def numbers(self, name: str, *, mend: bool = False) -> np.ndarray:
        """The entries of a column; if `mend`, only those that have the first entry's form."""
        ...

    def labels(self, name: str) -> np.ndarray:
        """The entries of a column that may hold names or times."""
        ...


Parts = Callable[[Sequence[str]], Iterator[Rows]]
"""All rows, with the columns that are asked for, some at a time."""


@dataclass(frozen=True)
class ArrayRows:
    """Rows of NumPy arrays."""

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return min((len(array) for array in self.arrays.values()), default=0)

    def numbers(self, name: str, *, mend: bool = False) -> np.ndarray:
        """The array as it is."""
        return self.arrays[name]

    labels = numbers


Reader = Callable[[Path, Layout], Source]
"""Opens a source of one format."""


@dataclass(frozen=True)
class ImportReport:
    """What `import_log` made of a source; `str` of it is for a person to read."""

    log: Path
    format: str
    """What the source was, in words."""
    schema: TrajectorySchema
    episodes: int
    steps: int
    terminated: int
    """Episodes that ended in a terminal state."""
    truncated: int
    """Episodes that were cut from outside."""
    columns: Columns
    """Which column was read as what, where that had to be found out."""
    unread: tuple[str, ...]
    """Columns that were not read."""
    notes: tuple[str, ...]
    """What else should be known, a sentence or two each."""

    def __str__(self) -> str:
        lines = [
            f"{self.log}: {self.steps:,} steps in {self.episodes:,} episodes of "
            f"{self.schema.environment} ({self.terminated:,} terminated, {self.truncated:,} "
            f"truncated), from {self.format}",
            self.schema.in_words,
        ]
        if self.columns:
            read = [f"{role} from {', '.join(names)}" for role, names in self.columns.items()]
            lines.append("; ".join(read))
        if self.unread:
            lines.append(f"not read: {', '.join(self.unread)}")
        return "\n".join([*lines, *self.notes])


def columns_of(names: Sequence[str], layout: Layout, place: str) -> Columns:
    """Which of the columns `names` is what.

    Args:
        names: All columns of the source.
        layout: What the user says of them.
        place: The source, for messages.

    Raises:
        ValueError: A column that was named, or one that every source needs, is missing (the message
            lists all columns); both log-probabilities and probabilities were named.
    """
    if layout.log_prob_behaviour and layout.probabilities:
        raise ValueError(
            f"log_prob_behaviour is {layout.log_prob_behaviour!r} and probabilities "
            f"{layout.probabilities!r}: name one of them, the other follows from it."
        )
    every = f"{place} has the columns {', '.join(names) or '(none)'}"
    columns: dict[str, tuple[str, ...]] = {}
    for role, usual in USUAL.items():
        given = getattr(layout, role)
        if given is None or given == ():
            chosen = _usual(names, usual, wide=role in _WIDE)
        else:  # "" says that there is none
            chosen = tuple(filter(None, (given,) if isinstance(given, str) else given))
        missing = [name for name in chosen if name not in names]
        if missing:
            raise ValueError(f"No column {missing[0]!r} for {role}: {every}.")
        if chosen:
            columns[role] = chosen
        elif role in _NEEDED:
            raise ValueError(
                f"No column for {role} (looked for {', '.join(usual)}): {every}. "
                f"Name it by --{role.replace('_', '-')}."
            )
    # Of both, the column that the user named counts; a log-probability "" says that there are none.
    if layout.probabilities:
        columns.pop("log_prob_behaviour", None)
    elif "log_prob_behaviour" in columns or layout.log_prob_behaviour == "":
        columns.pop("probabilities", None)
    return columns


def _usual(names: Sequence[str], usual: Sequence[str], *, wide: bool) -> tuple[str, ...]:
    for prefix in ("", "infos/"):
        lower = {name.lower(): name for name in reversed(names)}
        for name in usual:
            if prefix + name in lower:
                return (lower[prefix + name],)
            if wide and (columns := _numbered(names, prefix + name)):
                return columns
    return ()


def _numbered(names: Sequence[str], stem: str) -> tuple[str, ...]:
    """The columns stem_0, stem_1, ... (or from 1; or with another sign between), if complete."""
    pattern = re.compile(rf"{stem}[_.\[]?(\d+)\]?", re.IGNORECASE)
    numbered = {int(m[1]): m[0] for name in names if (m := pattern.fullmatch(name))}
    for first in (0, 1):
        if numbered and sorted(numbered) == list(range(first, first + len(numbered))):
            return tuple(numbered[i] for i in sorted(numbered))
    return ()


def names_in(columns: Columns, *roles: str) -> list[str]:
    """The names of the columns of some roles, or of all, each once."""
    chosen = [columns.get(role, ()) for role in roles or columns]
    return list(dict.fromkeys(name for names in chosen for name in names))


def unread(names: Sequence[str], columns: Columns) -> tuple[str, ...]:
    """The columns that are not read."""
    read = set(names_in(columns))
    return tuple(name for name in names if name not in read)


def behaviour(columns: Columns) -> str:
    """What a schema says of where the log-probabilities come from."""
    return RECORDED if {"log_prob_behaviour", "probabilities"} & columns.keys() else MISSING


def is_done(columns: Columns) -> bool:
    """Whether the column of ends is named done: it says that an episode ended, not why."""
    name = columns.get("terminated", ("",))[0]
    return name.lower().removeprefix("infos/") in ("dones", "done")


def notes(columns: Columns, *, final: bool = False) -> tuple[str, ...]:
    """What is said of the ends of episodes, where the columns leave something open.

    Args:
        columns: The columns.
        final: Whether the observations go on to the one after the last step.
    """
    lines = []
    if not final and "next_observations" not in columns:
        lines.append(
            "The observation after the last step of an episode is not in the source: its last "
            "observation stands for it. Only the value of what follows a truncated episode is ever "
            "computed from it."
        )
    if is_done(columns) and "truncated" not in columns:
        lines.append(
            f"Column {columns['terminated'][0]!r} says that an episode ended, not why: each is "
            "taken as terminated."
        )
    return tuple(lines)
