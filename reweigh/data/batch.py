"""Trajectories as the estimators take them: tensors, with the fragments of an episode joined."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from reweigh.core.segments import Segments
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class Batch:
    """Steps as tensors: `S` steps in `N` episodes, in the order of the episodes' numbers.

    Fragments that follow each other in an episode are one stretch of the segments. A stretch starts
    after time 0 if the fragments before it are not there.
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
    """`[S]` int64: which policy that was."""
    segments: Segments
    final_observations: Tensor
    """`[N, *observation]`: after each episode's last step."""
    terminated: Tensor
    """`[N]` bool: the episode ended in a terminal state, whose value is 0."""
    truncated: Tensor
    """`[N]` bool: it was cut from outside. Neither: its end is not there."""
    episode: Tensor
    """`[N]` int64: the episodes' numbers."""

    @classmethod
    def of(cls, trajectories: Trajectories) -> Self:
        """The same steps, the fragments that follow each other in an episode joined.

        Raises:
            ValueError: there are no fragments.
        """
        t = trajectories.in_episode_order()
        first, last = t.episode_spans()
        return cls(
            observations=torch.from_numpy(t.observations),
            actions=torch.from_numpy(t.actions),
            rewards=torch.from_numpy(t.rewards),
            log_prob_behaviour=torch.from_numpy(t.log_probs),
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

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def goes_on(self) -> Tensor:
        """`[N]` bool: the episode did not terminate there, so that its future has a value."""
        return ~self.terminated
