"""What the columns of a source mean: as the user says, or by their usual names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from reweigh.data.schema import MISSING, RECORDED


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
    """Column of the log-probability of the action, in nats; '' if what there is shall not count."""
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

DONE = frozenset({"dones", "done"})
"""Names of a column that says that an episode ended, not why."""

_WIDE = frozenset({"observations", "actions", "next_observations"})
_NEEDED = ("observations", "actions", "rewards")

Found = Mapping[str, tuple[str, ...]]
"""The columns of each part that a source has."""


def find(
    names: Sequence[str], layout: Layout, place: str, *, needed: Sequence[str] = _NEEDED
) -> Found:
    """Which of the columns `names` is what.

    Args:
        names: all columns of the source.
        layout: what the user says of them.
        place: the source, for messages.
        needed: what no source can do without.

    Raises:
        ValueError: a column that was named, or one that is needed, is not there; both log-probs
            and probabilities were named. Lists the columns that are there.
    """
    if layout.log_prob_behaviour and layout.probabilities:
        raise ValueError(
            f"log_prob_behaviour is {layout.log_prob_behaviour!r} and probabilities "
            f"{layout.probabilities!r}: name one of them, the other follows from it."
        )
    there = f"{place} has the columns {', '.join(names) or '(none)'}"
    found: dict[str, tuple[str, ...]] = {}
    for role, usual in USUAL.items():
        given = _given(layout, role)
        missing = [name for name in given or () if name not in names]
        if missing:
            raise ValueError(f"No column {missing[0]!r} for {role}: {there}.")
        columns = _usual(names, usual, wide=role in _WIDE) if given is None else given
        if columns:
            found[role] = columns
        elif role in needed:
            raise ValueError(
                f"No column for {role} (looked for {', '.join(usual)}): {there}. "
                f"Name it by --{role.replace('_', '-')}."
            )
    # Of both, the column that the user named counts; a log-prob "" says that there are none.
    if layout.probabilities:
        found.pop("log_prob_behaviour", None)
    elif "log_prob_behaviour" in found or layout.log_prob_behaviour == "":
        found.pop("probabilities", None)
    return found


def behaviour(found: Found) -> str:
    """What a schema says of where the log-probs come from."""
    return RECORDED if {"log_prob_behaviour", "probabilities"} & found.keys() else MISSING


def _given(layout: Layout, role: str) -> tuple[str, ...] | None:
    """The columns that the user named; () for "there is none"; None if nothing was said."""
    value = getattr(layout, role)
    if value is None or value == ():
        return None
    return tuple(name for name in ((value,) if isinstance(value, str) else value) if name)


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


def unread(names: Sequence[str], found: Found) -> tuple[str, ...]:
    """The columns that nothing was made of."""
    read = {name for columns in found.values() for name in columns}
    return tuple(name for name in names if name not in read)


assert set(USUAL) <= {field.name for field in fields(Layout)}
