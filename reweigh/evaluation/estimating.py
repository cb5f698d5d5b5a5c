"""From samples to estimates: totals in one pass over the parts, contributions in a second."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh.core.diagnostics import WeightHealth, WeightReading, doubts, read, weight_health
from reweigh.core.terms import Terms, Totals, influence, merge, totals
from reweigh.evaluation.estimates import Estimate
from reweigh.evaluation.intervals import ConfidenceInterval, Evidence
from reweigh.evaluation.parallel import ordered_map
from reweigh.evaluation.sample import Sample

Estimator = Callable[[Sample], Terms]
"""Makes the terms of an estimate from a sample, or from a part of it."""

MODELLED = (
    "It rests on a model that was fitted to the log, and no weight tells whether that is right."
)
"""What speaks against every estimate that a model of states stands behind."""

_AT_ONCE = 100_000

Parts = Callable[[], Iterator[Sample]]
"""Gives the parts of a sample, the same ones each time it is called."""


class Answers(NamedTuple):
    """What the estimators said."""

    estimates: dict[str, Estimate]
    refusals: dict[str, str]
    """Why an estimator does not apply, by its name."""
    episodes: int
    """How many episodes the sample has."""


def estimate(
    parts: Parts,
    estimators: Mapping[str, Estimator],
    *,
    interval: ConfidenceInterval,
    level: float,
) -> Answers:
    """Asks estimators about a sample that comes in parts.

    Memory holds a part, and a few numbers an episode. Parts or not, the numbers are the same.

    Args:
        parts: The sample. A single part is looked at once, several are gone through twice.
        estimators: By name. Those that fit something to all episodes take a single part alone.
        interval: Makes the confidence intervals.
        level: Their level.
    """
    asked = {name: _Asked(estimator) for name, estimator in estimators.items()}
    workers = torch.get_num_threads()
    episodes = 0
    for seen in ordered_map(partial(_look_at_all, asked), parts(), workers=workers):
        for one, look in zip(asked.values(), seen.looks, strict=True):
            one.add(look)
        episodes += seen.episodes
    going = {name: one for name, one in asked.items() if one.refusal is None}
    if any(one.only is None for one in going.values()):
        for found in ordered_map(partial(_influences, going), parts(), workers=workers):
            for one, influence_of_part in zip(going.values(), found, strict=True):
                one.influences.append(influence_of_part)
    estimates = {}
    for name, one in going.items():
        try:
            estimates[name] = one.estimate(name, parts, interval, level, episodes)
        except ValueError as error:
            one.refusal = str(error)
    refusals = {name: one.refusal for name, one in asked.items() if one.refusal is not None}
    return Answers(estimates, refusals, episodes)


class _Look(NamedTuple):
    """What an estimator makes of a part."""

    terms: Terms
    totals: Totals


class _Seen(NamedTuple):
    """What a first look at a part shows."""

    looks: list[_Look | str]
    episodes: int


def _look_at_all(asked: Mapping[str, "_Asked"], sample: Sample) -> _Seen:
    looks = [one.look(sample) for one in asked.values()]
    return _Seen(looks, len(sample))


def _influences(asked: Mapping[str, "_Asked"], sample: Sample) -> list[Tensor]:
    return [one.influence(one.estimator(sample)) for one in asked.values()]


class _Asked:
    """One estimator on its way through the parts of a sample."""

    def __init__(self, estimator: Estimator):
        self.estimator = estimator
        self.refusal: str | None = None
        self.whole: Totals | None = None
        self.only: Terms | None = None  # of the first part, until there is a second
        self.refitted = False
        self.maximum_weight = math.inf
        self.diagnosed: list[Tensor] = []
        self.influences: list[Tensor] = []

    def look(self, sample: Sample) -> _Look | str:
        """What the estimator makes of a part, or why it does not apply."""
        if self.refusal is not None:
            return self.refusal
        try:
            terms = self.estimator(sample)
        except ValueError as error:
            return str(error)
        return _Look(terms, totals(terms))

    def add(self, look: _Look | str) -> None:
        if isinstance(look, str):
            self.refusal = look
            return
        self.only = look.terms if self.whole is None else None
        self.whole = look.totals if self.whole is None else merge(self.whole, look.totals)
        self.refitted = look.terms.refitted
        self.maximum_weight = look.terms.maximum_weight
        if look.terms.diagnosed is not None:
            self.diagnosed.append(look.terms.diagnosed)

    def influence(self, terms: Terms) -> Tensor:
        assert self.whole is not None, "there is at least one part"
        return influence(terms, self.whole)

    def estimate(
        self,
        name: str,
        parts: Parts,
        interval: ConfidenceInterval,
        level: float,
        episodes: int,
    ) -> Estimate:
        assert self.whole is not None, "there is at least one part"
        only = self.only
        if only is not None:
            self.influences.append(self.influence(only))
        evidence = Evidence(
            float(self.whole.value),
            torch.cat(self.influences),
            lambda: [only] if only is not None else map(self.estimator, parts()),
        )
        low, high = interval(evidence, level)
        weights = torch.cat(self.diagnosed) if self.diagnosed else None
        reading = None if weights is None else _reading(weights)
        return Estimate(
            method=name,
            value=evidence.value,
            standard_error=evidence.standard_error,
            low=low,
            high=high,
            level=level,
            episodes=episodes,
            effective_sample_size=math.nan if reading is None else reading.effective_sample_size,
            weights=0 if reading is None else reading.sample_size,
            k_hat=math.nan if reading is None else reading.k_hat,
            k_hat_threshold=math.nan if reading is None else reading.k_hat_threshold,
            warnings=self._warnings(weights, reading, episodes),
        )

    def _warnings(
        self, log_weights: Tensor | None, reading: WeightReading | None, episodes: int
    ) -> tuple[str, ...]:
        modelled = (MODELLED,) if self.refitted else ()
        if log_weights is None or reading is None:
            return modelled
        a_step_each = reading.sample_size + reading.undefined > episodes
        about_weights = doubts(reading, unit="steps" if a_step_each else "episodes")
        return (*about_weights, *self._cut(log_weights), *modelled)

    def _cut(self, log_weights: Tensor) -> tuple[str, ...]:
        """What the weights that exceed the largest one allowed do to the interval."""
        cut = int((log_weights > math.log(self.maximum_weight)).sum())
        if not cut:
            return ()
        return (
            f"{cut} of {len(log_weights)} weights were cut to {self.maximum_weight:g}: the "
            "estimate leans low, and only its lower end bounds the value.",
        )


def _reading(log_weights: Tensor) -> WeightReading:
    """Of all weights; records of some at a time, since one takes many numbers a weight."""
    return read(reduce(WeightHealth.merge, map(weight_health, log_weights.split(_AT_ONCE)))).total
