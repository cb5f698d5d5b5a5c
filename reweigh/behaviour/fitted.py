"""What a model is given, and what it makes of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributions import Distribution

from reweigh.behaviour.survey import Survey, at_once
from reweigh.data.episodes import Episodes, Folds
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class Material:
    """A log to fit policies to."""

    source: Episodes
    folds: Folds
    survey: Survey

    @classmethod
    def of(cls, source: Episodes, folds: Folds) -> "Material":
        """Surveys the log.

        Raises:
            ValueError: see `Survey.of`.
        """
        return cls(source, folds, Survey.of(source, folds))

    @property
    def schema(self) -> TrajectorySchema:
        """What each fragment of the log looks like."""
        return self.survey.schema

    def stream(self) -> Iterator[Trajectories]:
        """Whole episodes of the log, as many at a time as memory should hold."""
        return self.source.stream_episodes(max_steps=at_once(self.schema))


Correction = Callable[[np.ndarray], np.ndarray]
"""From observations to nats `[S]` that are added to log-probabilities which weights divide by."""


class Fitted(NamedTuple):
    """Policies of one kind, each fitted to other episodes."""

    policies: tuple[nn.Module, ...]
    """`[folds + 1]`: policy k without the episodes of fold k, and the last one with all."""
    description: str
    """Of each of them, as `policy.build` reads it."""
    words: str
    """What they are, such as "counts"."""
    corrections: tuple[Correction, ...] = ()
    """`[folds]`, if it is known by how much the inverse of an estimate is too large on average."""

    def log_prob(self, k: int, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """What policy k says of actions, corrected so that its inverse is right on average."""
        found = log_prob(ask(self.policies[k], observations), actions)
        if not self.corrections:
            return found
        # A choice that was always taken has probability 1, but for rounding.
        return np.minimum(found + self.corrections[k](observations), 0.0)


Model = Callable[[Material], Fitted]
"""Fits policies to a log, one without each fold and one with all."""


@torch.no_grad()
def ask(policy: nn.Module, observations: np.ndarray) -> Distribution:
    """The policy's distribution at each observation."""
    return policy(torch.tensor(observations))


def log_prob(distribution: Distribution, actions: np.ndarray) -> np.ndarray:
    """Log-probability of each action, `[S]` float64."""
    return distribution.log_prob(torch.tensor(actions)).double().numpy()


def refuse(log_prob: np.ndarray, bad: np.ndarray, trajectories: Trajectories) -> None:
    """Raise for the first bad log-probability of packed steps, if there is one."""
    if bad.any():
        step = int(bad.argmax())
        raise ValueError(
            f"the estimated log-probability of action {trajectories.actions[step].tolist()} in "
            f"{trajectories.place(step)} is {log_prob[step]}: no other fold holds anything like "
            "it; leave that episode out, or count with smoothing above 0"
        )
