"""Which episodes are learnt from, which choose, which test: decided before any is looked at."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reweigh.core.segments import Segments
from reweigh.data import selection
from reweigh.data.batch import Batch
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories

AT_ONCE = 500_000
"""Steps of the log that are read at once."""
HELD = 2_000_000
"""Steps up to which a log is held in memory; a larger one is read again in each pass."""

_PER_STEP = {"observations", "actions", "rewards", "log_prob_behaviour", "policy_version"}
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Source(Protocol):
    """A log, or trajectories in memory."""

    @property
    def schema(self) -> TrajectorySchema | None:
        """What the fragments look like; None if nobody says."""
        ...

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """Whole episodes, about so many steps at a time: the same ones at each call."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """Trajectories as a source."""

    trajectories: Trajectories
    schema: TrajectorySchema | None = None

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """The fragments in the order of (episode, time_start), a few at a time."""
        ordered = self.trajectories.in_episode_order()
        keys = ordered.episode[:, None]
        for first, stop in selection.batches(keys, ordered.lengths, max_steps):
            yield ordered.select(np.arange(first, stop))


@dataclass(frozen=True)
class Shares:
    """How the episodes are divided: by their numbers and a seed, whatever they hold."""

    validation: float
    test: float
    seed: int

    def part_of(self, episode: np.ndarray) -> np.ndarray:
        """The part of each episode: 0 to learn from, 1 to choose, 2 to test.

        A hash of its number (the finaliser of SplitMix64: Steele et al. 2014, figure 17), so that
        an episode stays in its part however the log grows.

        Args:
            episode: `[N]` int64.
        """
        # Another stream of numbers than the folds by which a behaviour is estimated.
        key = np.random.SeedSequence([self.seed, 3]).generate_state(1, np.uint64)
        z = episode.astype(np.uint64) + key
        z = (z ^ (z >> np.uint64(30))) * _MULTIPLIERS[0]
        z = (z ^ (z >> np.uint64(27))) * _MULTIPLIERS[1]
        draw = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / 2.0**53
        return np.digitize(draw, [1 - self.validation - self.test, 1 - self.test])


@dataclass(frozen=True, eq=False)
class Part:
    """Some of a log's episodes, as often as they are asked for."""

    source: Source
    shares: Shares
    number: int
    held: list[Batch] = field(default_factory=list)
    """All of them, if they are held in memory."""

    @property
    def schema(self) -> TrajectorySchema:
        """Of the log.

        Raises:
            ValueError: It has none.
        """
        if self.source.schema is None:
            raise ValueError(
                "trajectories in memory do not say what actions there are: give the policy that "
                "sampled them, or a TrajectoryLog"
            )
        return self.source.schema

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """These episodes of each piece of the log."""
        for piece in self.source.stream_episodes(max_steps=max_steps):
            mine = self.shares.part_of(piece.episode) == self.number
            if mine.any():
                yield piece.select(mine)

    def batches(self) -> Iterator[Batch]:
        """These episodes of each `AT_ONCE` steps of the log."""
        if self.held:
            return iter(self.held)
        return map(Batch.of, self.stream_episodes(max_steps=AT_ONCE))


@dataclass(frozen=True, eq=False)
class Division:
    """A log's episodes in three parts."""

    training: Part
    validation: Part
    test: Part

    @classmethod
    def of(cls, source: Source, shares: Shares, *, steps: int) -> "Division":
        """Divide the episodes of a log.

        Memory holds `AT_ONCE` steps, or all of a log of up to `HELD`, which changes no number.

        Args:
            source: Whole episodes.
            shares: How.
            steps: How many steps there are.
        """
        parts = [Part(source, shares, number) for number in range(3)]
        if steps <= HELD:
            for part in parts:
                part.held.extend(part.batches())
        return cls(*parts)


def minibatches(batch: Batch, count: int, generator: torch.Generator) -> Iterator[Batch]:
    """The episodes of a batch in random order, in as many minibatches, none of them empty."""
    order = torch.randperm(len(batch.segments), generator=generator)
    for episodes in order.tensor_split(min(count, len(order))):
        yield pick(batch, episodes)


def pick(batch: Batch, episodes: Tensor) -> Batch:
    """Some of the episodes of a batch, in the given order."""
    segments = batch.segments
    lengths = segments.lengths[episodes]
    shift = segments.start[episodes] - (lengths.cumsum(0) - lengths)
    step = torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)
    chosen = {
        f.name: getattr(batch, f.name)[step if f.name in _PER_STEP else episodes]
        for f in fields(Batch)
        if f.name != "segments"
    }
    starts = segments.time_start[episodes]
    return replace(batch, segments=Segments.packed(lengths, time_start=starts), **chosen)
