"""A log as models of the behaviour take it, and the policies that a model fits to the log."""

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
    """A log that policies are fitted to."""

    source: Episodes
    folds: Folds
    survey: Survey

    @classmethod
    def of(cls, source: Episodes, folds: Folds) -> "Material":
        """A log with its survey.

        Raises:
            ValueError: See `Survey.of`.
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
"""From observations to nats `[S]`, added to the log-probabilities that weights divide by."""


class Fitted(NamedTuple):
    """Policies of one kind, one fitted to all episodes and one to all but each fold."""

    policies: tuple[nn.Module, ...]
    """`[folds + 1]`: policy k is fitted without the episodes of fold k, the last one to all."""
    description: str
    """Description of each policy, as `policy.build` reads it."""
    words: str
    """Name of the model, such as "counts"."""
    corrections: tuple[Correction, ...] = ()
    """`[folds]`: what makes the inverse of an estimate right on average; () if unknown."""

    def log_prob(self, k: int, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Log-probability `[S]` by policy k, corrected so that its inverse is right on average."""
        estimate = log_prob(distribution(self.policies[k], observations), actions)
        if not self.corrections:
            return estimate
        # A choice that was always taken has probability 1, but for rounding.
        return np.minimum(estimate + self.corrections[k](observations), 0.0)


Model = Callable[[Material], Fitted]
"""Fits policies to a log, one without each fold and one with all."""


@torch.no_grad()
def distribution(policy: nn.Module, observations: np.ndarray) -> Distribution:
    """The policy's distribution at each observation."""
    return policy(torch.tensor(observations))


def log_prob(given: Distribution, actions: np.ndarray) -> np.ndarray:
    """Log-probability of each action, `[S]` float64."""
    return given.log_prob(torch.tensor(actions)).double().numpy()


def require_known(log_prob: np.ndarray, bad: np.ndarray, trajectories: Trajectories) -> None:
    """Requires that no step `[S]` is marked as bad.

    Raises:
        ValueError: A bad log-probability; names the first, its episode and step.
    """
    if bad.any():
        step = int(bad.argmax())
        raise ValueError(
            f"the estimated log-probability of action {trajectories.actions[step].tolist()} in "
            f"{trajectories.place(step)} is {log_prob[step]}: no other fold holds anything like "
            "it; leave that episode out, or count with smoothing above 0"
        )
