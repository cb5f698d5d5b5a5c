"""Trajectories in memory: fragments of episodes, packed end to end, and what a log expects of them.

Packed means that the steps of all fragments lie end to end on one axis, with `lengths` to say where
each ends. That is what an Arrow list column holds on disk, so a log is read without padding.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Self

import numpy as np

from reweigh.data.schema import MISSING, PER_STEP, ArraySpec, TrajectorySchema

_ABOVE_1 = (
    "the log-probability of a discrete action is at most 0: store log π(a|s) in nats, not π(a|s) "
    "and not a logit"
)
_PROBABILITY_0 = (
    "an action of probability 0 under the behaviour policy cannot have been taken by it: its "
    "weight would be infinite. Record the probability of the action that was taken, exploration "
    "included"
)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Fragments of episodes, packed end to end: S steps in N fragments.

    A fragment is a run of consecutive steps of one episode, sampled by one version of the policy. A
    whole episode is a fragment that starts at time 0 and is terminated or truncated.
    """

    observations: np.ndarray
    """`[S, *observation]`, what the policy saw before each action."""
    actions: np.ndarray
    """`[S, *action]`."""
    rewards: np.ndarray
    """`[S]` float64."""
    log_prob_behaviour: np.ndarray
    """`[S]` float64, log π_behaviour(action | observation) in nats; NaN where the log's schema says
    that it is missing."""
    lengths: np.ndarray
    """`[N]` int64, steps of each fragment."""
    final_observations: np.ndarray
    """`[N, *observation]`, after the last step of each fragment."""
    terminated: np.ndarray
    """`[N]` bool, the episode ended in a terminal state: its value is 0."""
    truncated: np.ndarray
    """`[N]` bool, the episode was cut from outside, by a time limit: its value is not 0. If
    neither, the episode went on, and the fragment was cut because the policy changed."""
    policy_version: np.ndarray
    """`[N]` int64, the policy that sampled the fragment."""
    episode: np.ndarray
    """`[N]` int64, the episode's number within the run."""
    seed: np.ndarray
    """`[N]` int64, the seed with which the episode was reset."""
    time_start: np.ndarray
    """`[N]` int64, the time within the episode of the fragment's first step."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """S, the number of steps in all fragments."""
        return len(self.rewards)

    @cached_property
    def stop(self) -> np.ndarray:
        """`[N]` int64, one past the last step of each fragment on the packed axis."""
        return np.cumsum(self.lengths)

    @cached_property
    def start(self) -> np.ndarray:
        """`[N]` int64, the first step of each fragment on the packed axis."""
        return self.stop - self.lengths

    @property
    def ended(self) -> np.ndarray:
        """`[N]` bool: the episode ended with the fragment, in a terminal state or from outside."""
        return self.terminated | self.truncated

    @classmethod
    def empty(cls, schema: TrajectorySchema) -> Self:
        """No fragments, with the dtypes and shapes of `schema`."""
        return cls(**{name: np.empty((0, *s.shape), s.dtype) for name, s in schema.columns.items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The fragments of all parts, in order.

        Raises:
            ValueError: No parts, or shapes differ.
        """
        if not parts:
            raise ValueError("Nothing to concatenate; Trajectories.empty(schema) has no fragments.")
        return cls(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )

    def select(self, which: np.ndarray) -> Self:
        """Chosen fragments.

        Args:
            which: Indices of fragments, or an `[N]` bool mask over them.
        """
        fragment = np.arange(len(self))[which]
        step = packed_steps(self.start[fragment], self.lengths[fragment])
        return type(self)(
            **{
                f.name: getattr(self, f.name)[step if f.name in PER_STEP else fragment]
                for f in fields(self)
            }
        )

    def in_episode_order(self) -> Self:
        """The same fragments sorted by episode, then time."""
        return self.select(np.lexsort((self.time_start, self.episode)))

    def pieces(self, max_steps: int) -> Iterator[Self]:
        """The same fragments in pieces of at most `max_steps` steps; a longer episode is alone.

        Fragments of one episode that follow each other stay together.
        """
        for first, stop in cuts(self.episode[:, None], self.lengths, max_steps):
            yield self.select(np.arange(first, stop)) if stop - first < len(self) else self

    def place(self, step: int) -> str:
        """Where a packed step is, in words: its episode, and its time in the episode."""
        fragment = int(np.searchsorted(self.stop, step, side="right"))
        time = self.time_start[fragment] + step - self.start[fragment]
        return f"episode {self.episode[fragment]}, step {time}"

    def episode_spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Runs of fragments that follow one another in one episode, so as to be read as one.

        A fragment continues the one before it if both belong to one episode, the earlier had not
        ended and the later starts at the time the earlier stopped. Sort with `in_episode_order`
        first.

        Returns:
            `first` and `last`, both `[E]` int64: run e is made of fragments first[e] to last[e],
            both included, and of the packed steps start[first[e]] to stop[last[e]].
        """
        continues = (
            ~self.ended[:-1]
            & (self.episode[1:] == self.episode[:-1])
            & (self.time_start[1:] == self.time_start[:-1] + self.lengths[:-1])
        )
        begins = np.ones(len(self), dtype=bool)
        begins[1:] = ~continues
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(self))[: len(first)] - 1
        return first, last

    def require_sound(self) -> None:
        """Requires what needs no schema: columns as long as `lengths` says.

        Raises:
            ValueError: A column is too long or too short; a fragment has no steps; a discrete
                action has a probability above 1.
        """
        self._validate_lengths()
        if np.issubdtype(self.actions.dtype, np.integer):
            self._refuse("log_prob_behaviour", self.log_prob_behaviour > 0, _ABOVE_1)

    def validate(self, schema: TrajectorySchema) -> None:
        """Requires everything that a log promises to its readers.

        Raises:
            ValueError: A column has another dtype or shape than the schema's; the lengths do not
                add up; a value is NaN, infinite, a probability above 1, or a time before 0. The
                message names column, episode, step and value.
        """
        self._validate_shapes(schema)
        self._validate_values(schema)

    def _validate_lengths(self) -> None:
        if len(self.lengths) and self.lengths.min() < 1:
            fragment = int(self.lengths.argmin())
            raise ValueError(
                f"lengths: fragment {fragment} has {self.lengths[fragment]} steps; every fragment "
                "needs at least one. Leave out fragments without steps."
            )
        for name in (f.name for f in fields(self)):
            entries, unit = (
                (int(self.lengths.sum()), "steps (the sum of lengths)")
                if name in PER_STEP
                else (len(self.lengths), "fragments")
            )
            if len(column := getattr(self, name)) != entries:
                raise ValueError(
                    f"{name}: {len(column)} entries for {entries} {unit}. Give one entry for each."
                )

    def _validate_shapes(self, schema: TrajectorySchema) -> None:
        for name, spec in schema.columns.items():
            column = getattr(self, name)
            if column.dtype != np.dtype(spec.dtype) or column.shape[1:] != spec.shape:
                raise ValueError(
                    f"{name}: an entry is {ArraySpec(str(column.dtype), column.shape[1:])}, but "
                    f"{schema.environment} needs {spec}. Convert it before it is logged."
                )
        self._validate_lengths()

    def _validate_values(self, schema: TrajectorySchema) -> None:
        self._refuse("log_prob_behaviour", np.isneginf(self.log_prob_behaviour), _PROBABILITY_0)
        for name in (*PER_STEP, "final_observations"):
            column = getattr(self, name)
            if name == "log_prob_behaviour" and schema.behaviour == MISSING:
                self._refuse(name, ~np.isnan(column), "this log holds none: NaN stands for each")
            elif np.issubdtype(column.dtype, np.inexact):
                finite = np.isfinite(column).all(axis=tuple(range(1, column.ndim)))
                self._refuse(name, ~finite, "only finite numbers can be learnt from")
        for name, spec in (
            ("observations", schema.observation),
            ("final_observations", schema.observation),
            ("actions", schema.action),
        ):
            if spec.choices:
                column = getattr(self, name)
                outside = (column < 0) | (column >= np.reshape(spec.choices, spec.shape))
                self._refuse(
                    name,
                    outside.any(axis=tuple(range(1, column.ndim))),
                    f"its choices count from 0, and there are {list(spec.choices)} of them",
                )
        if schema.discrete_actions:
            self._refuse("log_prob_behaviour", self.log_prob_behaviour > 0, _ABOVE_1)
        for name in ("policy_version", "episode", "time_start"):
            self._refuse(name, getattr(self, name) < 0, "it counts from 0")

    def _refuse(self, name: str, bad: np.ndarray, why: str) -> None:
        """Raises for the first bad entry of a column."""
        if bad.any():
            entry = int(bad.argmax())
            place = self.place(entry) if name in PER_STEP else f"episode {self.episode[entry]}"
            value = np.array2string(getattr(self, name)[entry], threshold=8)
            raise ValueError(f"{name}: {value} in {place}; {why}.")


def packed_steps(start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of the steps of chosen fragments, end to end: `start[i]`, `start[i] + 1`, ...

    Args:
        start: `[N]`, where each of them lies on the packed axis.
        lengths: `[N]`, steps of each.
    """
    # Step k of the result lies as far from its fragment's start as it does on the packed axis.
    shift = start - (np.cumsum(lengths) - lengths)
    return np.arange(lengths.sum()) + np.repeat(shift, lengths)


def cuts(keys: np.ndarray, lengths: np.ndarray, max_steps: int) -> Iterator[tuple[int, int]]:
    """Batches `(first, stop)` of sorted rows, of at most `max_steps`, cut between unequal keys.

    Args:
        keys: `[R, k]`, sorted; rows of one key stay together.
        lengths: `[R]`, the steps of each row.
        max_steps: The most steps in a batch, unless a single key has more.
    """
    begins = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))[: len(keys)]
    bounds = np.append(begins, len(keys)).tolist()
    steps = np.append(0, np.cumsum(lengths)).tolist()
    first = 0
    for begin, stop in pairwise(bounds):
        if begin > first and steps[stop] - steps[first] > max_steps:
            yield first, begin
            first = begin
    if len(keys):
        yield first, len(keys)


def rebatched(parts: Iterable[Trajectories], max_steps: int) -> Iterator[Trajectories]:
    """The same episodes in batches of at most `max_steps` steps; a longer episode is alone.

    Args:
        parts: Whole episodes, the fragments of each together.
        max_steps: The most steps in a batch.
    """
    held: list[Trajectories] = []
    steps = 0
    for part in parts:
        for piece in part.pieces(max_steps):
            if held and steps + piece.steps > max_steps:
                yield Trajectories.concatenate(held)
                held, steps = [], 0
            held.append(piece)
            steps += piece.steps
    if held:
        yield Trajectories.concatenate(held)
