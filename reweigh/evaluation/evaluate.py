"""Evaluation of a policy from a log.

A log that is larger than memory is read twice, part by part: once for the totals that estimates and
normalisers come from, once for what each episode contributes. Both ways give the same numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from reweigh.data.batch import Batch
from reweigh.data.episodes import Unfinished, leave_out_unfinished
from reweigh.data.log import TrajectoryLog
from reweigh.data.schema import RECORDED
from reweigh.data.trajectories import Trajectories
from reweigh.evaluation.estimates import Evaluation, WeightProfile, merge_profiles
from reweigh.evaluation.estimating import estimate
from reweigh.evaluation.intervals import ConfidenceInterval, student_t
from reweigh.evaluation.logged import Logged, no_whole_episode
from reweigh.evaluation.methods import (
    BY_PARTS,
    ON_THE_WHOLE,
    Estimator,
    estimator_of,
    mixtures,
    takes_parts,
)
from reweigh.evaluation.policies import require_choices
from reweigh.recipes import ValueRecipe

HELD = 2_000_000
"""Steps up to which a log is held in memory, and methods are asked that need it there."""


def evaluate(
    log: Trajectories | TrajectoryLog,
    policy: nn.Module,
    *,
    discount: float = 1.0,
    methods: Mapping[str, ValueRecipe | Estimator] | None = None,
    interval: ConfidenceInterval = student_t,
    level: float = 0.95,
    held: int = HELD,
) -> Evaluation:
    """What a policy is worth, `J = E_θ[Σ_t γ^t r_t]`, from episodes that others sampled.

    Args:
        log: Episodes; those without a start or an end are left out and counted.
        policy: A module from observations to a distribution over actions.
        discount: γ in [0, 1].
        methods: Value recipes, or functions of `Logged` to `Terms`, by the name to report; by
            default `default_methods`.
        interval: Makes the confidence intervals.
        level: Their level.
        held: Steps up to which a log is held in memory. A larger one is read in parts of a
            quarter as many steps, and by default asked `BY_PARTS` alone.

    Returns:
        An estimate from each method that applies, and why the others do not. With the behaviour
        itself as the policy, all that weigh give its mean return.

    Raises:
        ValueError: The log has no whole episode; the policy is of another space; no method applies;
            a recipe needs what a log does not have.
    """
    if isinstance(log, TrajectoryLog):
        log = log.at_present()  # both passes
        steps = log.summary().steps
        require_choices(policy, log.schema)
    else:
        log.require_sound()
        steps = log.steps
    asked = default_methods(log, held=held) if methods is None else methods
    estimators = {name: estimator_of(method) for name, method in asked.items()}
    streamed = steps > held and all(map(takes_parts, asked.values()))
    parts = _Parts(
        _source(log, at_once=max(held // 4, 1) if streamed else None),
        lambda whole: Logged.of(Batch.of(whole), policy, discount=discount),
    )
    answers = estimate(parts, estimators, interval=interval, level=level)
    if not answers.episodes:
        raise no_whole_episode(parts.unfinished)
    if not answers.estimates:
        name, why = next(iter(answers.refusals.items()), ("methods", "none was given"))
        raise ValueError(f"{name}: {why}")
    schema = log.schema if isinstance(log, TrajectoryLog) else None
    profile = parts.profile
    return Evaluation(
        estimates=answers.estimates,
        left_out=answers.refusals,
        unfinished=parts.unfinished,
        environment=None if schema is None else schema.environment,
        episodes=answers.episodes,
        steps=steps - parts.unfinished.steps,
        discount=discount,
        level=level,
        interval=_name(interval),
        behaviour=RECORDED if schema is None else schema.behaviour,
        weight_histogram=() if profile is None else tuple(profile.histogram.tolist()),
        ess_by_time=() if profile is None else tuple(profile.ess_by_time.tolist()),
    )


def default_methods(
    log: Trajectories | TrajectoryLog, *, held: int = HELD
) -> Mapping[str, ValueRecipe | Estimator]:
    """The methods that a log is asked by default: beyond `held` steps, only `BY_PARTS`."""
    steps = log.steps if isinstance(log, Trajectories) else log.summary().steps
    return BY_PARTS if steps > held else all_methods(log)


def all_methods(log: Trajectories | TrajectoryLog) -> Mapping[str, ValueRecipe | Estimator]:
    """The methods that a log can be asked, whatever its size."""
    return {**BY_PARTS, **ON_THE_WHOLE, **mixtures(log)}


def _source(
    log: Trajectories | TrajectoryLog, *, at_once: int | None
) -> Callable[[], Iterable[Trajectories]]:
    """The log in memory; or, `at_once` steps at a time, read anew in each pass."""
    if isinstance(log, TrajectoryLog) and at_once is not None:
        return lambda: log.stream_episodes(max_steps=at_once)
    return lambda: [log if isinstance(log, Trajectories) else log.read()]


class _Parts:
    """The whole episodes of a log, part by part, and what a pass over them shows."""

    def __init__(self, source: Callable[[], Iterable[Trajectories]], read: Callable[..., Logged]):
        self._source, self._read = source, read
        self.unfinished = Unfinished(0, 0)
        self.profile: WeightProfile | None = None

    def __call__(self) -> Iterator[Logged]:
        self.unfinished, self.profile, number = Unfinished(0, 0), None, 0
        for trajectories in self._source():
            whole, (episodes, steps) = leave_out_unfinished(trajectories)
            so_far = self.unfinished
            self.unfinished = Unfinished(so_far.episodes + episodes, so_far.steps + steps)
            if len(whole):
                part = self._read(whole)
                profile = WeightProfile.of(part.sample)
                self.profile = merge_profiles(self.profile, profile) if number else profile
                number += 1
                yield part


def _name(function: Callable[..., Any]) -> str:
    """The name of a function, or of the one whose arguments were fixed."""
    return _name(function.func) if isinstance(function, partial) else function.__name__
