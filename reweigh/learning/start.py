"""Where learning begins: what the log must hold, and the policy that is to be improved.

A policy that was trained on episodes of the log takes the actions that were lucky in them, also in
those that are to test it, and a test would show an improvement that is chance. So the policy to
begin with must be the oldest that sampled the log, or be said to be unknown.
"""

from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from reweigh.behaviour import estimate_behaviour
from reweigh.core.returns import reward_to_go
from reweigh.core.weights.psis import LEAST_COUNT
from reweigh.data.batch import Batch
from reweigh.data.episodes import (
    Chosen,
    Episodes,
    InMemory,
    Unfinished,
    is_whole,
    leave_out_unfinished,
)
from reweigh.data.log import TrajectoryLog
from reweigh.data.trajectories import Trajectories
from reweigh.evaluation.logged import no_whole_episode
from reweigh.evaluation.policies import log_prob
from reweigh.learning.config import LearnConfig
from reweigh.learning.critic import ROUNDING
from reweigh.learning.division import AT_ONCE, Division

LEAST_TEST = 50
"""Test episodes below which no improvement is believed: the least effective sample size."""

_FOLDS = 2
_SAME = 1e-3
"""Nats per step up to which log-probabilities are of one policy: float32, or a few decimals."""
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Counts:
    """How many episodes there are in each part of a log."""

    training: int
    validation: int
    test: int


@dataclass(frozen=True, eq=False)
class Start:
    """The policy that learning begins with, and falls back on."""

    policy: nn.Module
    description: str | None
    """As `acting.policy.build` reads it; None for a module that it cannot make."""
    estimated: bool
    """Whether the policy was estimated from the episodes that are learnt from."""
    unseen: bool
    """Whether it is known that the policy has not seen the rewards of the log's episodes."""


def require_learnable(division: Division, *, discount: float) -> Counts:
    """Requires enough to learn from, to choose on and to test on, and counts it.

    Raises:
        ValueError: Too few episodes; log-probabilities are missing; a number is NaN or infinite;
            all episodes have the same return.
    """
    returns: list[float] = []
    counts = []
    for part in (division.training, division.validation, division.test):
        counts.append(0)
        for batch in part.batches():
            counts[-1] += len(batch.segments)
            _require_finite(batch)
            if part is division.training:
                returns += _range_of_returns(batch, discount)
    if min(counts) < LEAST_COUNT or counts[2] < LEAST_TEST:
        raise ValueError(
            f"the log has {sum(counts)} whole episodes, of which {counts[0]} would be learnt from, "
            f"{counts[1]} choose and {counts[2]} test, and it takes at least {LEAST_COUNT}, "
            f"{LEAST_COUNT} and {LEAST_TEST}: collect more episodes, or give other shares with "
            "--validation and --test"
        )
    lowest, highest = min(returns), max(returns)
    if highest - lowest <= ROUNDING * max(-lowest, highest):
        raise ValueError(
            f"all {counts[0]} episodes to learn from return {returns[0]:g}: nothing tells a better "
            "action from a worse one; log the rewards, or episodes in which they differ"
        )
    return Counts(*counts)


def _range_of_returns(batch: Batch, discount: float) -> list[float]:
    to_go = reward_to_go(batch.rewards, batch.segments, discount=discount)
    first = to_go[batch.segments.is_first]
    return [float(first.min()), float(first.max())]


def _require_finite(batch: Batch) -> None:
    if bool(batch.log_prob_behaviour.isnan().all()):
        raise ValueError(
            "the log does not hold the behaviour's log-probabilities, and without them nothing can "
            "be weighed: estimate them by `reweigh import LOG NEW_LOG --estimate-behaviour`"
        )
    for name in ("rewards", "observations", "actions", "log_prob_behaviour"):
        entries = getattr(batch, name).reshape(len(batch), -1)
        bad = ~entries.isfinite().all(1)
        if bool(bad.any()):
            step = int(bad.nonzero()[0])
            raise ValueError(
                f"{name}: {entries[step].tolist()} in episode "
                f"{int(batch.episode[batch.segments.episode[step]])}, step "
                f"{int(batch.segments.time[step])}; only finite numbers can be learnt from"
            )


def starting_policy(
    behaviour: nn.Module | None, division: Division, config: LearnConfig, description: str | None
) -> Start:
    """The policy that sampled the log, as given, or as the episodes to learn from show it.

    Args:
        behaviour: The given one; it is not changed.
        division: The episodes; those that test say nothing of an estimated one.
        config: The seed.
        description: Of the given one.

    Raises:
        ValueError: None is given, and none can be estimated; the given one may have been trained
            on the log, is of another space, or gives NaN.
    """
    if behaviour is not None:
        policy = deepcopy(behaviour).eval()
        unseen = is_oldest_policy(policy, division)
        return Start(policy, description, estimated=False, unseen=unseen)
    fitted = estimate_behaviour(division.training, folds=_FOLDS, seed=config.seed)
    # Of several policies, later ones may have been trained on the episodes of earlier ones.
    unseen = len(versions_of(division)) == 1
    return Start(fitted.policy.eval(), fitted.policy_description, estimated=True, unseen=unseen)


def whole_episodes(
    log: TrajectoryLog | Trajectories | str | Path, *, at_once: int = AT_ONCE
) -> tuple[Episodes, int, Unfinished]:
    """The whole episodes of a log as it is now, their steps, and what was left out.

    Args:
        log: Trajectories, a log, or the folder of one.
        at_once: Steps of the log that are read at once.

    Raises:
        ValueError: The log has no whole episode; the folder is no log.
    """
    if isinstance(log, Trajectories):
        whole, unfinished = leave_out_unfinished(log)
        source, steps = InMemory(whole), log.steps
    else:
        opened = (log if isinstance(log, TrajectoryLog) else TrajectoryLog.open(log)).at_present()
        source, steps = Chosen(opened, is_whole), opened.summary().steps
        pieces = opened.stream_episodes(max_steps=at_once)
        counts = [leave_out_unfinished(piece)[1] for piece in pieces]
        unfinished = Unfinished(sum(x.episodes for x in counts), sum(x.steps for x in counts))
    if steps == 0:
        raise ValueError("the log is empty: there are no episodes to learn from")
    if steps == unfinished.steps:
        raise no_whole_episode(unfinished)
    return source, steps - unfinished.steps, unfinished


def versions_of(division: Division) -> list[int]:
    """The versions of the policies that sampled a log, oldest first."""
    versions: set[int] = set()
    for batch in _batches(division):
        versions.update(batch.policy_version.unique().tolist())
    return sorted(versions)


def is_oldest_policy(policy: nn.Module, division: Division) -> bool:
    """Whether a policy sampled the log or its oldest part, by the recorded log-probabilities.

    Then it has seen no rewards of the log. Of the test episodes only observations and actions are
    read.

    Returns:
        False for a policy that sampled no part, of which nothing is known.

    Raises:
        ValueError: It sampled a later part, and may have been trained on what came before; it is of
            another space, or gives NaN.
    """
    totals: dict[int, float] = defaultdict(float)
    counts: dict[int, int] = defaultdict(int)
    for batch in _batches(division):
        difference = (log_prob(policy, batch) - batch.log_prob_behaviour).abs()
        for version in batch.policy_version.unique().tolist():
            mine = batch.policy_version == version
            totals[version] += float(difference[mine].sum())
            counts[version] += int(mine.sum())
    distances = {version: totals[version] / counts[version] for version in sorted(totals)}
    closest, oldest = min(distances, key=lambda v: distances[v]), min(distances)
    if not distances[closest] <= _SAME:
        return False
    # Versions that differ by rounding alone are one policy.
    if distances[oldest] <= 2 * distances[closest] + _ROUNDING:
        return True
    raise ValueError(
        f"the policy to begin with is the one that sampled the steps of version {closest} in the "
        f"log, and may have been trained on the log's episodes of version {oldest}, so that a test "
        f"on them would prove nothing: begin with version {oldest}, or learn from a log that holds "
        f"the episodes of version {closest} alone"
    )


def _batches(division: Division) -> Iterator[Batch]:
    for part in (division.training, division.validation, division.test):
        yield from part.batches()
