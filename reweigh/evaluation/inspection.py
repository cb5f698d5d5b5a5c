"""What a log holds, what it lacks, and how old its steps are to a policy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from reweigh.core.diagnostics import (
    WeightHealth,
    WeightReading,
    read,
    step_health,
    weight_health,
)
from reweigh.core.ratios import log_ratios
from reweigh.data.batch import Batch
from reweigh.data.log import TrajectoryLog
from reweigh.data.schema import MISSING, TrajectorySchema
from reweigh.evaluation.policies import log_prob, require_choices


@dataclass(frozen=True)
class Spread:
    """How a number is spread over episodes."""

    mean: float
    standard_deviation: float
    """Of the sample; NaN for one episode."""
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """The spread of `[N]` values, `N` at least 1; quartiles lie between values linearly."""
        deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
        return cls(float(values.mean()), deviation, *quartiles)


@dataclass(frozen=True)
class Age:
    """How likely a policy is to act as logged: the weights that its steps and episodes would have.

    An effective sample size near the number of weights says that the log is as good as new.
    """

    steps: WeightReading
    """Of each step's own ratio, over all steps."""
    steps_by_version: Mapping[int, WeightReading]
    """The same of the steps of each policy in the log."""
    episodes: WeightReading
    """Of the product of all ratios of an episode, over whole episodes."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a log holds. An episode with steps missing counts once for each part that is there."""

    schema: TrajectorySchema
    """Environment, spaces, and where the behaviour's log-probabilities come from."""
    steps: int
    episodes: int
    fragments: int
    """Rows of the log: an episode has one for each policy that took steps of it."""
    steps_by_version: Mapping[int, int]
    """Steps of each policy, the oldest first."""
    terminated: int
    """Episodes that ended in a terminal state."""
    truncated: int
    """Episodes that were cut from outside, by a time limit."""
    unfinished: int
    """Episodes without an end."""
    unfinished_steps: int
    without_start: int
    """Episodes whose first steps are missing."""
    whole: int
    """Episodes with start and end."""
    returns: Spread | None
    """Sums of rewards, without discount, of whole episodes; None if there are none."""
    lengths: Spread | None
    """Steps of whole episodes; None if there are none."""
    age: Age | None
    """None if no policy was given."""


def inspection(
    log: TrajectoryLog, policy: nn.Module | None = None, *, steps_at_once: int = 500_000
) -> Inspection:
    """What a log holds, and how old it is to a policy.

    Memory holds a part of the log, and a few numbers an episode.

    Args:
        log: Any log; what is appended meanwhile is not read.
        policy: A module from observations to a distribution over actions.
        steps_at_once: Steps of a part, unless a single episode has more.

    Raises:
        ValueError: The policy is of another space, or the log is empty or lacks the behaviour's
            log-probabilities, so that a policy cannot be held against it.
    """
    log = log.at_present()
    summary = log.summary()
    versions = torch.tensor(list(summary.steps_by_policy), dtype=torch.int64)
    if policy is not None:
        _require_weighable(log, summary.steps)
        require_choices(policy, log.schema)
    parts: list[_Episodes] = []
    weights: _Weights | None = None
    for trajectories in log.stream_episodes(max_steps=steps_at_once):
        batch = Batch.of(trajectories)
        parts.append(_episodes(batch))
        if policy is not None:
            part = _weights(batch, policy, versions, whole=parts[-1].whole)
            weights = part if weights is None else _Weights(*map(WeightHealth.merge, weights, part))
    e = _Episodes(*map(np.concatenate, zip(_NO_EPISODES, *parts, strict=True)))
    unfinished = ~(e.terminated | e.truncated)
    return Inspection(
        schema=log.schema,
        steps=summary.steps,
        episodes=len(e.lengths),
        fragments=summary.fragments,
        steps_by_version=summary.steps_by_policy,
        terminated=int(e.terminated.sum()),
        truncated=int((e.truncated & ~e.terminated).sum()),
        unfinished=int(unfinished.sum()),
        unfinished_steps=int(e.lengths[unfinished].sum()),
        without_start=int((e.time_start > 0).sum()),
        whole=int(e.whole.sum()),
        returns=Spread.of(e.returns[e.whole]) if e.whole.any() else None,
        lengths=Spread.of(e.lengths[e.whole]) if e.whole.any() else None,
        age=None if weights is None else _age(weights, summary.steps_by_policy),
    )


class _Episodes(NamedTuple):
    """A few numbers of each episode."""

    returns: np.ndarray
    lengths: np.ndarray
    time_start: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        return (self.time_start == 0) & (self.terminated | self.truncated)


_NO_EPISODES = _Episodes(
    *(np.zeros(0, dtype) for dtype in (np.float64, np.int64, np.int64, np.bool_, np.bool_))
)


def _episodes(batch: Batch) -> _Episodes:
    segments = batch.segments
    return _Episodes(
        segments.total(batch.rewards).numpy(),
        (segments.stop - segments.start).numpy(),
        segments.time_start.numpy(),
        batch.terminated.numpy(),
        batch.truncated.numpy(),
    )


class _Weights(NamedTuple):
    """Records of weights, which merge over parts of the log."""

    steps: WeightHealth
    """By the policy that took them."""
    episodes: WeightHealth
    """Of whole episodes."""


def _weights(batch: Batch, policy: nn.Module, versions: Tensor, *, whole: np.ndarray) -> _Weights:
    ratios = log_ratios(log_prob(policy, batch), batch.log_prob_behaviour, batch.segments)
    group = torch.searchsorted(versions, batch.policy_version)
    return _Weights(
        step_health(ratios, batch.segments, group=group, groups=len(versions)),
        weight_health(batch.segments.total(ratios), counted=torch.from_numpy(whole)),
    )


def _age(weights: _Weights, versions: Iterable[int]) -> Age:
    steps = read(weights.steps)
    by_version = dict(zip(versions, steps.groups, strict=True))
    return Age(steps.total, by_version, read(weights.episodes).total)


def _require_weighable(log: TrajectoryLog, steps: int) -> None:
    """Requires steps, and the behaviour's log-probabilities of their actions."""
    if steps == 0:
        raise ValueError(f"{log.path} is empty: there is nothing to hold a policy against")
    if log.schema.behaviour == MISSING:
        raise ValueError(
            f"{log.path} does not hold the behaviour's log-probabilities, and without them it "
            "cannot be told how old the log is to a policy: estimate them by `reweigh import LOG "
            "NEW_LOG --estimate-behaviour`"
        )
