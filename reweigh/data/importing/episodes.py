"""Whole episodes as a log keeps them, out of the columns of their steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from reweigh.data.importing.entries import RowError, fitted, flags, log_of, side_by_side
from reweigh.data.importing.layout import DONE, Found
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories

NO_SEED = -1
"""The seed of an episode of which nobody knows how it was reset."""

Steps = Mapping[str, np.ndarray]
"""Columns of `Trajectories`, with an entry for each step."""


def steps_of(entries: Callable[[str], np.ndarray], found: Found, schema: TrajectorySchema) -> Steps:
    """What a source says of some steps, as the log keeps it.

    Args:
        entries: the entries of a column, by its name.
        found: the columns that there are.
        schema: of the log.

    Raises:
        RowError: something that cannot be.
    """

    def joined(role: str) -> np.ndarray:
        return side_by_side([entries(name) for name in found[role]])

    def single(role: str) -> np.ndarray:
        values = joined(role)
        if values.size != len(values):
            raise RowError(0, f"{role}: {values[0].size} numbers a step, where one is needed")
        return values.reshape(len(values))

    rewards = single("rewards").astype(np.float64)
    steps = {
        "observations": fitted(joined("observations"), schema.observation, "observations"),
        "actions": fitted(joined("actions"), schema.action, "actions"),
        "rewards": rewards,
        "log_prob_behaviour": np.full(len(rewards), np.nan),
        "policy_version": np.zeros(len(rewards), dtype=np.int64),
    }
    if "next_observations" in found:
        steps["next_observations"] = fitted(
            joined("next_observations"), schema.observation, "next_observations"
        )
    if "log_prob_behaviour" in found:
        steps["log_prob_behaviour"] = single("log_prob_behaviour").astype(np.float64)
    elif "probabilities" in found:
        name = found["probabilities"][0]
        steps["log_prob_behaviour"] = log_of(
            single("probabilities"), name, discrete=schema.discrete_actions
        )
    if "policy_version" in found:
        steps["policy_version"] = whole(single("policy_version"), found["policy_version"][0])
    return steps


def ends(entries: Callable[[str], np.ndarray], found: Found, rows: int) -> Steps:
    """`terminated` and `truncated` of each row, all false if the source says nothing of it.

    A column named done means the end, whatever its reason: it is taken as terminal unless another
    column says that it was a truncation.

    Raises:
        RowError: a value that is neither true nor false.
    """
    marks = {
        role: flags(entries(found[role][0]), found[role][0])
        if role in found
        else np.zeros(rows, dtype=bool)
        for role in ("terminated", "truncated")
    }
    if found.get("terminated", ("",))[0].lower().removeprefix("infos/") in DONE:
        marks["terminated"] &= ~marks["truncated"]
    return marks


def whole(values: np.ndarray, name: str) -> np.ndarray:
    """Whole numbers as int64.

    Raises:
        RowError: there are others.
    """
    if values.dtype.kind not in "iubf" or (values != np.floor(values)).any():
        row = int((values != np.floor(values)).argmax()) if values.dtype.kind == "f" else 0
        raise RowError(row, f"{name}: {values[row]!r} is not a whole number")
    return values.astype(np.int64)


def fragments(
    steps: Steps,
    *,
    final_observations: np.ndarray | None = None,
    seeds: np.ndarray | None = None,
) -> Trajectories:
    """Whole episodes, cut where the policy changed.

    Args:
        steps: columns of S steps, `episode` and `time` among them: an episode's steps in order.
        final_observations: `[E, *observation]`, after each episode's last step; by default from
            `next_observations`, and if there are none the last observation once more.
        seeds: `[E]`, of each episode; by default unknown.

    Raises:
        ValueError: an episode goes on after its end.
    """
    begins, time = np.flatnonzero(steps["time"] == 0), steps["time"]
    last_of_episode = np.append(begins[1:], len(time))[: len(begins)] - 1
    is_last = np.zeros(len(time), dtype=bool)
    is_last[last_of_episode] = True
    early = (steps["terminated"] | steps["truncated"]) & ~is_last
    if early.any():
        step = int(early.argmax())
        raise ValueError(
            f"Episode {steps['episode'][step]} goes on after step {time[step]}, where it ended. "
            "If the column of the episode means something else, leave it out: --episode ''."
        )
    version = steps["policy_version"]
    cut = time == 0
    cut[1:] |= version[1:] != version[:-1]
    start = np.flatnonzero(cut)
    last = np.append(start[1:], len(time))[: len(start)] - 1
    # After a cut within an episode comes its next observation; only the ends are not there.
    final = steps["observations"][np.minimum(last + 1, len(time) - 1)]
    if final_observations is None:
        after = steps.get("next_observations", steps["observations"])
        final_observations = after[last_of_episode]
    final[is_last[last]] = final_observations
    which = np.cumsum(time == 0)[start] - 1
    return Trajectories(
        observations=steps["observations"],
        actions=steps["actions"],
        rewards=steps["rewards"],
        log_prob_behaviour=steps["log_prob_behaviour"],
        lengths=last - start + 1,
        final_observations=final,
        terminated=steps["terminated"][last],
        truncated=steps["truncated"][last],
        policy_version=version[start],
        episode=steps["episode"][start],
        seed=np.full(len(start), NO_SEED) if seeds is None else seeds[which],
        time_start=time[start],
    )


@dataclass
class Labels:
    """Numbers of episodes from what a source calls them, none of which may come twice.

    Whole numbers stay what they are. Anything else is numbered in the order in which it comes.
    """

    _names: dict[str, int] = field(default_factory=dict)
    _ascending: list[np.ndarray] = field(default_factory=list)
    _highest: int = -1
    _seen: set[int] | None = None

    def number(self, labels: np.ndarray) -> np.ndarray:
        """`[N]` int64, of N episodes that follow each other.

        Raises:
            RowError: a label is missing, negative, or has been there before.
        """
        if labels.dtype.kind not in "iubf":
            return np.array([self._named(i, name) for i, name in enumerate(labels.tolist())], int)
        found = whole(labels, "episode")
        if (found < 0).any():
            row = int((found < 0).argmax())
            raise RowError(row, f"episode: {found[row]}; episodes count from 0")
        rising = np.diff(found, prepend=self._highest) > 0
        if self._seen is None and not rising.all():  # only now what was seen must be looked up
            self._seen = {int(x) for part in self._ascending for x in part}
            self._ascending = []
        if self._seen is None:
            self._ascending.append(found)
            self._highest = int(found[-1]) if len(found) else self._highest
            return found
        for row, label in enumerate(found.tolist()):
            if label in self._seen:
                raise _again(row, label)
            self._seen.add(label)
        return found

    def _named(self, row: int, name: str) -> int:
        if name is None:
            raise RowError(row, "episode: a name is missing")
        if name in self._names:
            raise _again(row, name)
        return self._names.setdefault(name, len(self._names))


def _again(row: int, label: object) -> RowError:
    return RowError(
        row,
        f"episode {label} begins a second time, after another one: sort the rows by episode, then "
        "by step",
    )
