"""Where learning begins: what the log must hold, and the policy that is to be improved."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from reweigh.behaviour import estimate_behaviour
from reweigh.core.returns import reward_to_go
from reweigh.core.weights.psis import LEAST_COUNT
from reweigh.data.batch import Batch
from reweigh.data.episodes import Episodes, InMemory
from reweigh.data.log import TrajectoryLog
from reweigh.data.trajectories import Trajectories
from reweigh.learning.config import LearnConfig
from reweigh.learning.division import Division
from reweigh.learning.origin import Origin, origin_of, versions_of
from reweigh.learning.units import ROUNDING

LEAST_TEST = 50
"""Test episodes below which no improvement is believed: the least effective sample size."""

_FOLDS = 2


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
    """Check that there is something to learn from, to choose on and to test on.

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
            f"the log has {sum(counts)} episodes, of which {counts[0]} would be learnt from, "
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
        unseen = origin_of(policy, division) is Origin.FIRST
        return Start(policy, description, estimated=False, unseen=unseen)
    found = estimate_behaviour(division.training, folds=_FOLDS, seed=config.seed)
    unseen = len(versions_of(division)) == 1  # later ones may have acted on what earlier ones saw
    return Start(found.policy.eval(), found.policy_description, estimated=True, unseen=unseen)


def source_of(log: TrajectoryLog | Trajectories | str | Path) -> tuple[Episodes, int]:
    """A log as a source, and how many steps it has; what is appended later is not in it.

    Raises:
        ValueError: It holds nothing; the folder is no log.
    """
    if isinstance(log, Trajectories):
        source, steps = InMemory(log), log.steps
    else:
        opened = log if isinstance(log, TrajectoryLog) else TrajectoryLog.open(log)
        source = opened.at_present()
        steps = source.summary().steps
    if steps == 0:
        raise ValueError("the log is empty: there are no episodes to learn from")
    return source, steps
