"""From samples to estimates: totals in one pass over the parts, contributions in a second."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from itertools import chain, islice
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from reweigh.core.diagnostics import WeightHealth, WeightReading, doubts, read, weight_health
from reweigh.core.terms import Terms, Totals, influence, merge, totals
from reweigh.evaluation.estimates import Estimate
from reweigh.evaluation.intervals import ConfidenceInterval, Evidence

MODELLED = (
    "It rests on a model that was fitted to the log, and no weight tells whether that is right."
)
"""The doubt about every estimate with a model of states."""

_AT_ONCE = 100_000
"""Weights whose health is read at once, since the record takes many numbers a weight."""

P = TypeVar("P", bound=Sized)
"""A part: `Logged`, a `Sample`, or whatever else estimators read. Its length is in episodes."""
T = TypeVar("T")
R = TypeVar("R")


class Answers(NamedTuple):
    """What came of asking estimators."""

    estimates: dict[str, Estimate]
    refusals: dict[str, str]
    """Why an estimator does not apply, by its name."""
    episodes: int
    """How many episodes there are."""


def estimate(
    parts: Callable[[], Iterator[P]],
    estimators: Mapping[str, Callable[[P], Terms]],
    *,
    interval: ConfidenceInterval,
    level: float,
) -> Answers:
    """Estimates from episodes that come in parts.

    Memory holds a part, and a few numbers an episode. Parts or not, the numbers are the same.

    Args:
        parts: Gives the parts, the same ones each time. A single part is passed over once, several
            are twice.
        estimators: By name. Those that fit something to all episodes take a single part alone.
        interval: Makes the confidence intervals.
        level: Their level.
    """
    questions = {name: _Question(estimator) for name, estimator in estimators.items()}
    workers, episodes = torch.get_num_threads(), 0
    first_pass = ordered_map(partial(_first_look, questions), parts(), workers=workers)
    for outcomes, length in first_pass:
        for question, outcome in zip(questions.values(), outcomes, strict=True):
            question.add(outcome)
        episodes += length
    if not episodes:
        return Answers({}, {}, 0)
    open_ones = {name: q for name, q in questions.items() if q.refusal is None}
    if any(question.only is None for question in open_ones.values()):
        second_pass = ordered_map(partial(_influences, open_ones), parts(), workers=workers)
        for influences in second_pass:
            for question, influence_of_part in zip(open_ones.values(), influences, strict=True):
                question.influences.append(influence_of_part)
    estimates = {}
    for name, question in open_ones.items():
        try:
            estimates[name] = question.estimate(name, parts, interval, level, episodes)
        except ValueError as error:
            question.refusal = str(error)
    refusals = {name: q.refusal for name, q in questions.items() if q.refusal is not None}
    return Answers(estimates, refusals, episodes)


class _Look(NamedTuple):
    """An estimator's terms and totals of a part."""

    terms: Terms
    totals: Totals


def _first_look(questions: "Mapping[str, _Question[P]]", part: P) -> tuple[list[_Look | str], int]:
    """Each estimator's look at a part or its refusal, and the part's episodes."""
    return [question.look(part) for question in questions.values()], len(part)


def _influences(questions: "Mapping[str, _Question[P]]", part: P) -> list[Tensor]:
    return [question.influence(question.estimator(part)) for question in questions.values()]


class _Question(Generic[P]):
    """One estimator on its way through the parts."""

    def __init__(self, estimator: Callable[[P], Terms]):
        self.estimator = estimator
        self.refusal: str | None = None
        self.whole: Totals | None = None
        self.only: Terms | None = None  # of the first part, until there is a second
        self.refitted = False
        self.maximum_weight = math.inf
        self.diagnosed: list[Tensor] = []
        self.influences: list[Tensor] = []

    def look(self, part: P) -> _Look | str:
        """Terms and totals of a part, or why the estimator does not apply."""
        if self.refusal is not None:
            return self.refusal
        try:
            terms = self.estimator(part)
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
        parts: Callable[[], Iterator[P]],
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
        """The doubt about an interval whose weights were cut."""
        cut = int((log_weights > math.log(self.maximum_weight)).sum())
        if not cut:
            return ()
        return (
            f"{cut} of {len(log_weights)} weights were cut to {self.maximum_weight:g}: the "
            "estimate leans low, and only its lower end bounds the value.",
        )


def _reading(log_weights: Tensor) -> WeightReading:
    return read(reduce(WeightHealth.merge, map(weight_health, log_weights.split(_AT_ONCE)))).total


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[R]:
    """`map`, in as many threads as there are workers, the results in the order of the items.

    No more items are held than there are workers, and one that waits. With a single worker or a
    single item all is done in the calling thread.

    Args:
        function: What is done with each item; it must be safe to call from several threads.
        items: Taken in the calling thread.
        workers: At least 1.
    """
    remaining = iter(items)
    begun = list(islice(remaining, 2))
    if workers == 1 or len(begun) < 2:
        yield from map(function, chain(begun, remaining))
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        waiting.extend(pool.submit(function, begun.pop(0)) for _ in range(2))
        for item in remaining:
            waiting.append(pool.submit(function, item))
            del item  # its memory is the worker's to free
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
