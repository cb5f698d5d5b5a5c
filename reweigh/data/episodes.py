"""Whole episodes, some at a time: of a log, of memory, or chosen of either by their numbers.

What an episode is used for (a fold, a test) is drawn from a hash of its number, so that it stays
the same however the log grows, is ordered, or is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from reweigh import contracts
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories

FOLDS = 1
"""Stream of the hash that decides which fold of a cross-fit an episode is in."""
DRAWS = 2
"""Stream that decides which episodes of a fold are held out."""
SHARES = 3
"""Stream that decides which episodes are learnt from, which choose, and which test."""

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Episodes(Protocol):
    """Whole episodes: a `TrajectoryLog`, `InMemory`, or `Chosen` of either."""

    @property
    def schema(self) -> TrajectorySchema | None:
        """What each fragment looks like; None if nobody says."""
        ...

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """Whole episodes, about `max_steps` steps at a time: the same ones at each call."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """Trajectories in memory, as a log gives them.

    Raises:
        ValueError: The trajectories are not as the schema says; names column, episode and step.
    """

    trajectories: Trajectories
    schema: TrajectorySchema | None = None

    def __post_init__(self):
        if self.schema is not None:
            self.trajectories.validate(self.schema)

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """The fragments in the order of (episode, time_start), some at a time."""
        return self.trajectories.in_episode_order().pieces(max_steps)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The episodes of a source that a rule chooses."""

    source: Episodes
    rule: Callable[[Trajectories], np.ndarray]
    """From whole episodes to the fragments that are chosen, `[N]` bool."""

    @property
    def schema(self) -> TrajectorySchema | None:
        """The source's."""
        return self.source.schema

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """The chosen episodes of each piece of the source that has some."""
        for piece in self.source.stream_episodes(max_steps=max_steps):
            fragments = self.rule(piece)
            if fragments.any():
                yield piece.select(fragments)


def require_schema(source: Episodes) -> TrajectorySchema:
    """Requires that a source says what its fragments look like, and returns that.

    Raises:
        ValueError: The source is trajectories without a schema.
    """
    if source.schema is None:
        raise ValueError(
            "trajectories in memory do not say what actions there are: give the policy that "
            "sampled them, or a TrajectoryLog"
        )
    return source.schema


# Episodes without an end


class Unfinished(NamedTuple):
    """How much was left out because it is not whole."""

    episodes: int
    steps: int


def is_whole(trajectories: Trajectories) -> np.ndarray:
    """`[N]` bool: whether each fragment belongs to a whole episode.

    An episode is whole if its fragments follow each other from time 0 to one that terminated or
    was truncated.

    Args:
        trajectories: All fragments of some episodes, in any order.
    """
    order = np.lexsort((trajectories.time_start, trajectories.episode))
    ordered = trajectories.select(order)
    first, last = ordered.episode_spans()
    whole = (ordered.time_start[first] == 0) & ordered.ended[last]
    mask = np.empty(len(trajectories), dtype=bool)
    mask[order] = np.repeat(whole, last - first + 1)
    return mask


def leave_out_unfinished(trajectories: Trajectories) -> tuple[Trajectories, Unfinished]:
    """The whole episodes, and how many others there were.

    A long log is streamed: `Chosen(log, is_whole)` gives its whole episodes, and the counts of the
    pieces of `stream_episodes` add up.

    Args:
        trajectories: All fragments of some episodes, in any order.
    """
    whole = is_whole(trajectories)
    if whole.all():
        return trajectories, Unfinished(0, 0)
    episodes = len(np.unique(trajectories.episode[~whole]))
    return trajectories.select(whole), Unfinished(episodes, int(trajectories.lengths[~whole].sum()))


# What an episode is used for


def hashed(episode: np.ndarray, *, seed: int, stream: int) -> np.ndarray:
    """A hash of each episode's number, `[N]` uint64; streams of one seed are independent.

    The finaliser of SplitMix64 (Steele et al. 2014, figure 17).

    Args:
        episode: `[N]` int64.
        seed: At least 0.
        stream: `FOLDS`, `DRAWS` or `SHARES`.
    """
    z = episode.astype(np.uint64)
    z = z + np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLIERS[0]
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLIERS[1]
    return z ^ (z >> np.uint64(31))


def uniform(episode: np.ndarray, *, seed: int, stream: int) -> np.ndarray:
    """A number in [0, 1) for each episode, `[N]` float64, from its hash."""
    return (hashed(episode, seed=seed, stream=stream) >> np.uint64(11)) / 2.0**53


@dataclass(frozen=True)
class Folds:
    """Which fold of a cross-fit an episode is in."""

    count: int
    seed: int

    def __post_init__(self):
        contracts.require_at_least("folds", self.count, 2)
        contracts.require_at_least("seed", self.seed, 0)

    def of(self, episode: np.ndarray) -> np.ndarray:
        """The fold of each episode, `[N]` int64 in [0, count)."""
        hashes = hashed(episode, seed=self.seed, stream=FOLDS)
        return (hashes % np.uint64(self.count)).astype(np.int64)

    def of_steps(self, trajectories: Trajectories) -> np.ndarray:
        """The fold of each step, `[S]` int64."""
        return np.repeat(self.of(trajectories.episode), trajectories.lengths)

    def draw(self, episode: np.ndarray) -> np.ndarray:
        """A number in [0, 1) for each episode, `[N]` float64, independent of its fold."""
        return uniform(episode, seed=self.seed, stream=DRAWS)


@dataclass(frozen=True)
class Shares:
    """How episodes are divided: some to learn from, `validation` to choose, `test` to test."""

    validation: float
    test: float
    seed: int

    def part_of(self, episode: np.ndarray) -> np.ndarray:
        """The part of each episode, `[N]`: 0 to learn from, 1 to choose, 2 to test."""
        draw = uniform(episode, seed=self.seed, stream=SHARES)
        return np.digitize(draw, [1 - self.validation - self.test, 1 - self.test])
