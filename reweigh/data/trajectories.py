"""Trajectories in memory: fragments of episodes, packed end to end, and what a log expects of them.

Packed means that the steps of all fragments lie end to end on one axis, with `lengths` to say where
each ends. That is what an Arrow list column holds on disk, so a log is read without padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np

from reweigh.data.schema import MISSING, ArraySpec, TrajectorySchema

PER_STEP = ("observations", "actions", "rewards", "log_probs")
"""The columns that hold one entry a step; all others hold one entry a fragment."""

_ABOVE_1 = (
    "the log-probability of a discrete action is at most 0: store log π(a|s) in nats, not π(a|s) "
    "and not a logit"
)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Fragments of episodes, packed end to end: S steps in N fragments.

    A fragment is a run of consecutive steps of one episode, sampled by one version of the policy. A
    whole episode is a fragment that starts at time 0 and is terminated or truncated.

    Attributes:
        observations: [S, *observation], what the policy saw before each action.
        actions: [S, *action].
        rewards: [S] float64.
        log_probs: [S] float64, log π_behaviour(action | observation) in nats; NaN where the log's
            schema says that they are missing.
        lengths: [N] int64, steps of each fragment.
        final_observations: [N, *observation], after the last step of each fragment.
        terminated: [N] bool, the episode ended in a terminal state: its value is 0.
        truncated: [N] bool, the episode was cut from outside, by a time limit: its value is not 0.
            Neither: it went on, and the fragment was cut because the policy changed.
        policy_version: [N] int64, the policy that sampled the fragment.
        episode: [N] int64, the episode's number within the run.
        seed: [N] int64, the seed with which the episode was reset.
        time_start: [N] int64, the time within the episode of the fragment's first step.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    log_probs: np.ndarray
    lengths: np.ndarray
    final_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    policy_version: np.ndarray
    episode: np.ndarray
    seed: np.ndarray
    time_start: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """S, the number of steps in all fragments."""
        return len(self.rewards)

    @cached_property
    def stop(self) -> np.ndarray:
        """[N] int64, one past the last step of each fragment on the packed axis."""
        return np.cumsum(self.lengths)

    @cached_property
    def start(self) -> np.ndarray:
        """[N] int64, the first step of each fragment on the packed axis."""
        return self.stop - self.lengths

    @classmethod
    def empty(cls, schema: TrajectorySchema) -> Self:
        """No fragments, with the dtypes and shapes of `schema`."""
        return cls(**{name: np.empty((0, *s.shape), s.dtype) for name, s in columns(schema)})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The fragments of all parts, in order.

        Raises:
            ValueError: there are no parts, or their shapes differ.
        """
        if not parts:
            raise ValueError("Nothing to concatenate; Trajectories.empty(schema) has no fragments.")
        return cls(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )

    def select(self, which: np.ndarray) -> Self:
        """Some of the fragments.

        Args:
            which: indices of fragments, or a [N] bool mask over them.
        """
        fragment = np.arange(len(self))[which]
        lengths = self.lengths[fragment]
        # The k-th step kept lies as far from its fragment's start here as it does there.
        shift = self.start[fragment] - (np.cumsum(lengths) - lengths)
        step = np.arange(lengths.sum()) + np.repeat(shift, lengths)
        return type(self)(
            **{
                f.name: getattr(self, f.name)[step if f.name in PER_STEP else fragment]
                for f in fields(self)
            }
        )

    def in_episode_order(self) -> Self:
        """The same fragments sorted by episode, then time."""
        return self.select(np.lexsort((self.time_start, self.episode)))

    def episode_spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Runs of fragments that follow one another in one episode, so as to be read as one.

        A fragment continues the one before it if both belong to one episode, the earlier had not
        ended and the later starts at the time the earlier stopped. Sort with `in_episode_order`
        first.

        Returns:
            `first` and `last`, both [E] int64: run e is made of fragments first[e] to last[e], the
            latter included, and of the packed steps start[first[e]] to stop[last[e]].
        """
        ended = self.terminated | self.truncated
        continues = (
            ~ended[:-1]
            & (self.episode[1:] == self.episode[:-1])
            & (self.time_start[1:] == self.time_start[:-1] + self.lengths[:-1])
        )
        begins = np.ones(len(self), dtype=bool)
        begins[1:] = ~continues
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(self))[: len(first)] - 1
        return first, last

    def require_sound(self) -> None:
        """Check what can be checked without a schema: that all columns are as long as they say.

        Raises:
            ValueError: a column is too long or too short; a fragment has no steps; a discrete
                action has a probability above 1.
        """
        self._validate_lengths()
        if np.issubdtype(self.actions.dtype, np.integer):
            self._refuse("log_probs", self.log_probs > 0, _ABOVE_1)

    def validate(self, schema: TrajectorySchema) -> None:
        """Check everything a log promises to its readers.

        Raises:
            ValueError: a column has another dtype or shape than the schema's, the lengths do not
                add up, or a value cannot be (NaN, infinite, a probability above 1, time before 0).
                The message names column, episode, step and value.
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
        for name, spec in columns(schema):
            column = getattr(self, name)
            if column.dtype != np.dtype(spec.dtype) or column.shape[1:] != spec.shape:
                raise ValueError(
                    f"{name}: an entry is {ArraySpec(str(column.dtype), column.shape[1:])}, but "
                    f"{schema.environment} needs {spec}. Convert it before it is logged."
                )
        self._validate_lengths()

    def _validate_values(self, schema: TrajectorySchema) -> None:
        for name in (*PER_STEP, "final_observations"):
            column = getattr(self, name)
            if name == "log_probs" and schema.behaviour == MISSING:
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
            self._refuse("log_probs", self.log_probs > 0, _ABOVE_1)
        for name in ("policy_version", "episode", "time_start"):
            self._refuse(name, getattr(self, name) < 0, "it counts from 0")

    def _refuse(self, name: str, bad: np.ndarray, why: str) -> None:
        """Raise for the first bad entry of a column, if there is one."""
        if not bad.any():
            return
        entry = int(bad.argmax())
        fragment = entry
        place = ""
        if name in PER_STEP:
            fragment = int(np.searchsorted(self.stop, entry, side="right"))
            place = f", step {self.time_start[fragment] + entry - self.start[fragment]}"
        value = np.array2string(getattr(self, name)[entry], threshold=8)
        raise ValueError(f"{name}: {value} in episode {self.episode[fragment]}{place}; {why}.")


def columns(schema: TrajectorySchema) -> list[tuple[str, ArraySpec]]:
    """The columns of `Trajectories` in order, each with the dtype and shape of one entry."""
    scalar = {
        **dict.fromkeys(("rewards", "log_probs"), "float64"),
        **dict.fromkeys(("terminated", "truncated"), "bool"),
    }
    arrays = {
        "observations": schema.observation,
        "final_observations": schema.observation,
        "actions": schema.action,
    }
    return [
        (f.name, arrays.get(f.name) or ArraySpec(scalar.get(f.name, "int64"), ()))
        for f in fields(Trajectories)
    ]
