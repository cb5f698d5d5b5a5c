"""Trajectories as the estimators take them: tensors, with the fragments of an episode joined."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from reweigh.core.segments import Segments
from reweigh.data.schema import PER_STEP
from reweigh.data.trajectories import Trajectories, packed_steps

_PER_STEP = (*PER_STEP, "policy_version")


@dataclass(frozen=True, eq=False)
class Batch:
    """Steps as tensors: `S` steps in `N` episodes, in the order of the episodes' numbers.

    Fragments that follow each other in an episode are joined. An episode starts after time 0 if the
    fragments before are missing.
    """

    observations: Tensor
    """`[S, *observation]`."""
    actions: Tensor
    """`[S, *action]`."""
    rewards: Tensor
    """`[S]` float64."""
    log_prob_behaviour: Tensor
    """`[S]` float64, of the policy that took the step; NaN where nobody recorded it."""
    policy_version: Tensor
    """`[S]` int64: the policy that took the step."""
    segments: Segments
    final_observations: Tensor
    """`[N, *observation]`: after each episode's last step."""
    terminated: Tensor
    """`[N]` bool: the episode ended in a terminal state, whose value is 0."""
    truncated: Tensor
    """`[N]` bool: the episode was cut from outside. If neither, its end is not in the log."""
    episode: Tensor
    """`[N]` int64: the episodes' numbers."""

    @classmethod
    def of(cls, trajectories: Trajectories) -> Self:
        """The steps of trajectories, fragments that follow each other in an episode joined.

        Raises:
            ValueError: No fragments.
        """
        t = trajectories.in_episode_order()
        first, last = t.episode_spans()
        return cls(
            observations=torch.from_numpy(t.observations),
            actions=torch.from_numpy(t.actions),
            rewards=torch.from_numpy(t.rewards),
            log_prob_behaviour=torch.from_numpy(t.log_prob_behaviour),
            policy_version=torch.from_numpy(np.repeat(t.policy_version, t.lengths)),
            segments=Segments.packed(
                torch.from_numpy(t.stop[last] - t.start[first]),
                time_start=torch.from_numpy(t.time_start[first]),
            ),
            final_observations=torch.from_numpy(t.final_observations[last]),
            terminated=torch.from_numpy(t.terminated[last]),
            truncated=torch.from_numpy(t.truncated[last]),
            episode=torch.from_numpy(t.episode[first]),
        )

    def select(self, episodes: Tensor) -> Self:
        """The given episodes (int64 indices `[K]`, repetitions allowed), in the given order."""
        segments = Segments.packed(
            self.segments.lengths[episodes], time_start=self.segments.time_start[episodes]
        )
        return self.take(steps_of(self.segments, episodes), episodes, segments)

    def take(self, steps: Tensor, episodes: Tensor, segments: Segments) -> Self:
        """The given steps of the given episodes, which lie as `segments` says."""
        columns = {
            f.name: getattr(self, f.name)[steps if f.name in _PER_STEP else episodes]
            for f in fields(self)
            if f.name != "segments"
        }
        return replace(self, segments=segments, **columns)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def goes_on(self) -> Tensor:
        """`[N]` bool: the episode did not terminate there, so that its future has a value."""
        return ~self.terminated


def steps_of(segments: Segments, episodes: Tensor) -> Tensor:
    """The packed steps of the given episodes, int64, one episode after the other."""
    start, lengths = segments.start[episodes], segments.lengths[episodes]
    return torch.from_numpy(packed_steps(start.numpy(), lengths.numpy()))
