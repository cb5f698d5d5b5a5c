"""Evaluate a policy from a log.

A log that is larger than memory is read twice, part by part: once for the totals that estimates and
normalisers come from, once for what each episode contributes. Both ways give the same numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from reweigh.data.batch import Batch
from reweigh.data.log import TrajectoryLog
from reweigh.data.schema import RECORDED
from reweigh.data.trajectories import Trajectories
from reweigh.evaluation import importance
from reweigh.evaluation.doubly_robust import (
    direct_method,
    doubly_robust,
    weighted_doubly_robust,
)
from reweigh.evaluation.estimates import Evaluation
from reweigh.evaluation.estimating import Estimator, Parts, estimate
from reweigh.evaluation.intervals import ConfidenceInterval, student_t
from reweigh.evaluation.policies import require_choices
from reweigh.evaluation.profile import WeightProfile, merge_profiles
from reweigh.evaluation.sample import Sample
from reweigh.evaluation.state_marginal import kernel_marginal, linear_marginal, tabular_marginal

BY_PARTS: Mapping[str, Estimator] = {
    f.__name__: f
    for f in (
        importance.behaviour,
        importance.importance_sampling,
        importance.per_decision,
        importance.weighted_importance_sampling,
        importance.weighted_per_decision,
        importance.truncated,
    )
}
"""Estimators whose terms of a part depend on that part alone: they take logs of any size."""

ON_THE_WHOLE: Mapping[str, Estimator] = {
    f.__name__: f
    for f in (
        importance.pareto_smoothed,
        doubly_robust,
        weighted_doubly_robust,
        direct_method,
        tabular_marginal,
        linear_marginal,
        kernel_marginal,
    )
}
"""Estimators that fit something to all episodes, and so hold the log in memory."""

IN_MEMORY = 2_000_000
"""Steps up to which a log is held in memory, and estimators are asked that need it there."""

_PART = 500_000


def evaluate(
    log: Trajectories | TrajectoryLog,
    policy: nn.Module,
    *,
    discount: float = 1.0,
    methods: Mapping[str, Estimator] | None = None,
    interval: ConfidenceInterval = student_t,
    level: float = 0.95,
) -> Evaluation:
    """What a policy is worth, `V = E_θ[Σ_t γ^t r_t]`, from episodes that others sampled.

    Args:
        log: Whole episodes, each ended by termination or truncation.
        policy: A module from observations to a distribution over actions.
        discount: γ in [0, 1].
        methods: Estimators to ask, by name; by default `default_methods`.
        interval: Makes the confidence intervals.
        level: Their level.

    Returns:
        An estimate from each estimator that applies, and why the others do not. With the behaviour
        itself as the policy, all that weigh give its mean return.

    Raises:
        ValueError: The log is empty, or holds episodes without start or end; the policy is of
            another space; no estimator applies.
    """
    if isinstance(log, TrajectoryLog):
        log = log.at_present()  # both passes
    steps = log.steps if isinstance(log, Trajectories) else log.summary().steps
    if steps == 0:
        raise ValueError("the log is empty: there are no episodes to evaluate from")
    if isinstance(log, TrajectoryLog):
        require_choices(policy, log.schema)
    asked = default_methods(steps) if methods is None else methods
    if isinstance(log, Trajectories):
        log.require_sound()
        parts = _Profiled(_held(log, policy, discount))
    elif steps <= IN_MEMORY or any(map(_needs_the_whole, asked.values())):
        parts = _Profiled(_held(log.read(), policy, discount))
    else:
        parts = _Profiled(_streamed(log, policy, discount))
    found = estimate(parts, asked, interval=interval, level=level)
    if not found.estimates:
        name, why = next(iter(found.refusals.items()), ("methods", "none was given"))
        raise ValueError(f"{name}: {why}")
    schema = None if isinstance(log, Trajectories) else log.schema
    return Evaluation(
        estimates=found.estimates,
        left_out=found.refusals,
        environment=None if schema is None else schema.environment,
        episodes=found.episodes,
        steps=steps,
        discount=discount,
        level=level,
        interval=_function(interval).__name__,
        behaviour=RECORDED if schema is None else schema.behaviour,
        weight_histogram=() if parts.profile is None else tuple(parts.profile.histogram.tolist()),
        ess_by_time=() if parts.profile is None else tuple(parts.profile.ess_by_time.tolist()),
    )


class _Profiled:
    """Parts of a sample, with the profile of its weights once all have been gone through."""

    def __init__(self, parts: Parts):
        self._parts = parts
        self._seen = False
        self.profile: WeightProfile | None = None

    def __call__(self) -> Iterator[Sample]:
        first, self._seen = not self._seen, True
        for number, sample in enumerate(self._parts()):
            if first:
                found = WeightProfile.of(sample) if sample.weighable else None
                self.profile = found if number == 0 else merge_profiles(self.profile, found)
            yield sample


def default_methods(steps: int) -> Mapping[str, Estimator]:
    """Estimators that a log of so many steps is asked: beyond `IN_MEMORY`, only `BY_PARTS`."""
    return {**BY_PARTS, **ON_THE_WHOLE} if steps <= IN_MEMORY else BY_PARTS


def _needs_the_whole(estimator: Estimator) -> bool:
    return _function(estimator) not in BY_PARTS.values()


def _function(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function that others were made of by fixing arguments."""
    return _function(f.func) if isinstance(f, partial) else f


def _held(trajectories: Trajectories, policy: nn.Module, discount: float) -> Parts:
    """A single part that stays in memory."""
    sample = Sample.of(Batch.of(trajectories), policy, discount=discount)
    return lambda: iter([sample])


def _streamed(log: TrajectoryLog, policy: nn.Module, discount: float) -> Parts:
    """Parts that are read from disk each time."""
    return lambda: (
        Sample.of(Batch.of(trajectories), policy, discount=discount)
        for trajectories in log.stream_episodes(max_steps=_PART)
    )
