"""What a behaviour is estimated from: episodes, some at a time, and the fold that each is in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reweigh import contracts
from reweigh.data import selection
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories

_MOST_STEPS = 65_536
_MOST_NUMBERS = 1 << 24
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def at_once(schema: TrajectorySchema) -> int:
    """How many steps to hold at once: fewer if observations or choices of actions are many."""
    numbers = schema.observation.size + (sum(schema.action.choices) or schema.action.size)
    return max(1, min(_MOST_STEPS, _MOST_NUMBERS // max(numbers, 1)))


class Episodes(Protocol):
    """A `TrajectoryLog`, a part of one, or `Held`."""

    @property
    def schema(self) -> TrajectorySchema:
        """What each fragment looks like."""
        ...

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """Whole episodes, about so many steps at a time: the same ones at each call."""
        ...


@dataclass(frozen=True, eq=False)
class Held:
    """Trajectories in memory, with what a log would say of them.

    Raises:
        ValueError: They are not as the schema says; names column, episode and step.
    """

    trajectories: Trajectories
    schema: TrajectorySchema

    def __post_init__(self):
        self.trajectories.validate(self.schema)

    def stream_episodes(self, *, max_steps: int) -> Iterator[Trajectories]:
        """The fragments in the order of (episode, time_start), a few at a time."""
        ordered = self.trajectories.in_episode_order()
        keys = ordered.episode[:, None]
        for first, stop in selection.batches(keys, ordered.lengths, max_steps):
            yield ordered.select(np.arange(first, stop))


@dataclass(frozen=True)
class Folds:
    """Which fold an episode is in: a function of its number and the seed alone."""

    count: int
    seed: int

    def __post_init__(self):
        contracts.require_at_least("folds", self.count, 2)
        contracts.require_at_least("seed", self.seed, 0)

    def of(self, episode: np.ndarray) -> np.ndarray:
        """The fold of each episode, `[N]` int64 in [0, count)."""
        return (self._hashed(episode, 1) % np.uint64(self.count)).astype(np.int64)

    def of_steps(self, trajectories: Trajectories) -> np.ndarray:
        """The fold of each step, `[S]` int64."""
        return np.repeat(self.of(trajectories.episode), trajectories.lengths)

    def draw(self, episode: np.ndarray) -> np.ndarray:
        """A number in [0, 1) for each episode, `[N]` float64, which its fold says nothing of."""
        return (self._hashed(episode, 2) >> np.uint64(11)) / 2.0**53

    def _hashed(self, episode: np.ndarray, purpose: int) -> np.ndarray:
        """The finaliser of SplitMix64 (Steele et al. 2014, figure 17)."""
        z = episode.astype(np.uint64)
        z = z + np.random.SeedSequence([self.seed, purpose]).generate_state(1, np.uint64)
        z = (z ^ (z >> np.uint64(30))) * _MULTIPLIERS[0]
        z = (z ^ (z >> np.uint64(27))) * _MULTIPLIERS[1]
        return z ^ (z >> np.uint64(31))


def place(trajectories: Trajectories, step: int) -> str:
    """Where a packed step is, in words."""
    fragment = int(np.searchsorted(trajectories.stop, step, side="right"))
    time = trajectories.time_start[fragment] + step - trajectories.start[fragment]
    return f"episode {trajectories.episode[fragment]}, step {time}"
