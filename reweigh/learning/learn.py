"""Learning from a log alone: some episodes are learnt from, others choose, the rest test.

`learning` is a generator that yields the progress of each epoch and returns the outcome, so that
whoever iterates decides what to show; `learn` runs it to the end.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from reweigh.data.episodes import Shares, Unfinished
from reweigh.data.log import TrajectoryLog
from reweigh.data.schema import TrajectorySchema
from reweigh.data.trajectories import Trajectories
from reweigh.learning.config import EpochProgress, LearnConfig
from reweigh.learning.division import AT_ONCE, HELD, Division
from reweigh.learning.improvement import Comparison, Verdict, compare, judge
from reweigh.learning.learner import Distance, objective_of
from reweigh.learning.search import Search
from reweigh.learning.start import (
    Counts,
    Start,
    require_learnable,
    starting_policy,
    whole_episodes,
)
from reweigh.recipes import ValueRecipe

_SAME = 1e-4


@dataclass(frozen=True, eq=False)
class Learnt:
    """The outcome."""

    policy: nn.Module
    """The one to use: what was learnt if it is shown to be better, otherwise what it began with."""
    shown: bool
    """Whether an improvement was shown."""
    verdict: str
    """The test's outcome in a sentence."""
    comparison: Comparison | None
    """What the test saw; None if nothing was worth testing."""
    candidate: nn.Module | None
    """What was tested, whatever came of it."""
    start: Start
    """What it began with."""
    counts: Counts
    unfinished: Unfinished
    """Episodes without a start or an end, which were left out."""
    progress: tuple[EpochProgress, ...]
    notes: tuple[str, ...]
    """What the verdict rests on, and should be known beside it."""


def learn(
    log: TrajectoryLog | Trajectories | str | Path,
    behaviour: nn.Module | None = None,
    *,
    config: LearnConfig | None = None,
    estimator: ValueRecipe | None = None,
) -> Learnt:
    """Improves a policy from a log alone, and tests on episodes kept for it that it is better.

    Args:
        log: Episodes with the log-probabilities of the policy that took the actions; those without
            a start or an end are left out and counted.
        behaviour: That policy, or the oldest of several: later ones may have been trained on the
            log. It is not changed. Without it one is estimated from the episodes to learn from.
        config: Options.
        estimator: The value recipe that is maximised, in place of the one that `config` names; its
            inputs may be `values` and `action_values`.

    Returns:
        The policy to use, and why. The same log and seed give the same one, bit for bit.

    Raises:
        ValueError: The log is too small, or holds nothing to learn from; log-probabilities are
            missing; the policy is of another space, far from what sampled the log, or a later one
            of several that did.
    """
    steps = learning(log, behaviour, config=config, estimator=estimator)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def learning(
    log: TrajectoryLog | Trajectories | str | Path,
    behaviour: nn.Module | None = None,
    *,
    config: LearnConfig | None = None,
    estimator: ValueRecipe | None = None,
    description: str | None = None,
    at_once: int = AT_ONCE,
    held: int = HELD,
) -> Generator[EpochProgress, None, Learnt]:
    """The progress of `learn`, epoch by epoch; returns its outcome.

    Args:
        log: As there.
        behaviour: As there.
        config: As there.
        estimator: As there.
        description: Of the behaviour, as `acting.policy.build` reads it.
        at_once: Steps of the log that are read at once.
        held: Steps up to which a log is held in memory, which changes no number.

    Raises:
        ValueError: As there.
    """
    config = LearnConfig() if config is None else config
    config.validate()
    objective = objective_of(config.estimator if estimator is None else estimator)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        source, steps, unfinished = whole_episodes(log, at_once=at_once)
        shares = Shares(config.validation, config.test, config.seed)
        division = Division.of(source, shares, steps=steps, at_once=at_once, held=held)
        counts = require_learnable(division, discount=config.discount)
        start = starting_policy(behaviour, division, config, description)
        search = Search(start.policy, division, counts.test, config, objective)
        progress: list[EpochProgress] = []
        for epoch in search.epochs():
            progress.append(epoch)
            yield epoch
        comparison, verdict = _test(search, division, config)
        return Learnt(
            policy=search.candidate if verdict.shown and search.candidate else start.policy,
            shown=verdict.shown,
            verdict=verdict.words,
            comparison=comparison,
            candidate=search.candidate,
            start=start,
            counts=counts,
            unfinished=unfinished,
            progress=tuple(progress),
            notes=tuple(_notes(source.schema, start, search.began)),
        )
    finally:
        torch.set_num_threads(threads)


def _test(
    search: Search, division: Division, config: LearnConfig
) -> tuple[Comparison | None, Verdict]:
    """The comparison on the test episodes, if there is a candidate, and the verdict."""
    if search.candidate is None:
        level = f"{100 * config.level:g} %"
        return None, Verdict(False, f"no improvement shown at {level}: {search.why_nothing}")
    compared = compare(
        division.test,
        search.candidate,
        search.critic,
        discount=config.discount,
        level=config.level,
    )
    return compared, judge(compared, upper_bound=config.upper_bound)


def _notes(schema: TrajectorySchema | None, start: Start, began: Distance) -> Iterator[str]:
    if schema is not None and schema.estimated:
        yield (
            f"The log's log-probabilities are not recorded but {schema.behaviour}: the verdict is "
            "right if they are."
        )
    if start.estimated:
        yield (
            "No policy was given: learning began with one that was estimated from the episodes it "
            "learnt from."
        )
    if not start.unseen and start.estimated:
        yield (
            "Several policies sampled the log, and the estimate is of all of them: the verdict is "
            "right only if none of them has seen the rewards of the log's episodes, as those that "
            "were trained on earlier ones have."
        )
    if not start.unseen and not start.estimated:
        yield (
            "The policy that learning began with sampled no part of the log: the verdict is right "
            "only if it has not seen the rewards of the log's episodes, by training on them."
        )
    if began.kl > _SAME:
        yield (
            f"The policy that learning began with is not what sampled the log ({began.kl:.2g} nats "
            "per step apart): an improvement is one on what sampled it."
        )
