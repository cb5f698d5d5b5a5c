"""Coverage of 95 % intervals, measured on simulated logs of problems whose value is known.

`benchmarks/coverage.py` makes the table of docs/evaluation.md from it.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from problems import ending, model_fail, model_win
from simulated import Problem
from torch import Tensor

from reweigh import recipes
from reweigh.core.diagnostics import doubts, read, weight_health
from reweigh.core.terms import Terms, influence, totals
from reweigh.data import Batch
from reweigh.evaluation import intervals
from reweigh.evaluation.intervals import ConfidenceInterval, Evidence
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.methods import Estimator, direct_method, estimator_of
from reweigh.evaluation.state_marginal import tabular_marginal

LEVEL = 0.95
SLACK = 1e-9
"""By which sums in another order may differ."""

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "Ending": ending,
    "ModelWin": partial(model_win, horizon=6),
    "ModelFail": model_fail,
}
"""Mean squared trajectory weights: 1.2, 8.9 and 42."""


@dataclass(frozen=True)
class Coverage:
    """One row of the table."""

    problem: str
    episodes: int
    estimator: str
    interval: str
    logs: int
    covered: float
    """Share of the logs whose interval holds the value."""
    above: float
    """Share whose interval lies above the value."""
    below: float
    """Share whose interval lies below it."""
    width: float
    """Median width of an interval."""
    warned: float
    """Share of the logs whose weights speak against the estimate."""
    covered_unwarned: float
    """Share of the others whose interval holds the value; NaN if there are none."""


def estimators(problem: Problem, episodes: int) -> dict[str, Estimator]:
    """Those whose intervals are asked; what truncates does so at the largest possible weight."""
    lowest, _ = return_range(problem)
    bounded = recipes.truncated_importance_sampling.bind(
        maximum=largest_weight(problem), lowest_return=lowest
    )
    asked = (
        recipes.behaviour,
        recipes.importance_sampling,
        recipes.per_decision,
        recipes.weighted_importance_sampling,
        recipes.weighted_per_decision,
        recipes.pareto_smoothed,
        bounded,
        recipes.doubly_robust,
        recipes.weighted_doubly_robust,
    )
    named = {recipe.name: estimator_of(recipe) for recipe in asked}
    if problem.states_are_seen and episodes <= 500:
        named["direct_method"] = direct_method
        named["tabular_marginal"] = tabular_marginal
    return named


def intervals_of(
    estimator: str, problem: Problem, *, resamples: int
) -> dict[str, ConfidenceInterval]:
    """Those that apply to an estimator."""
    lowest, highest = return_range(problem)
    if estimator == "truncated_importance_sampling":
        known = {
            "lowest": lowest,
            "highest": lowest + largest_weight(problem) * (highest - lowest),
        }
        return {
            "hoeffding": partial(intervals.hoeffding, **known),
            "empirical_bernstein": partial(intervals.empirical_bernstein, **known),
        }
    applicable = {"normal": intervals.normal, "student_t": intervals.student_t}
    if estimator == "weighted_per_decision":
        for f in (intervals.bootstrap, intervals.bias_corrected_bootstrap):
            applicable[f.__name__] = partial(f, resamples=resamples)
    return applicable


def return_range(problem: Problem) -> tuple[float, float]:
    """The least and the largest return that any episode can have, a rounding error apart."""
    least = -_extreme(problem, -problem.rewards, problem.discount)
    most = _extreme(problem, problem.rewards, problem.discount)
    return least - SLACK * (most - least), most + SLACK * (most - least)


def largest_weight(problem: Problem) -> float:
    """The largest product of ratios that any episode can have, a rounding error apart."""
    log_ratios = np.log(problem.target / problem.behaviour)[problem.observed[:-1]]
    by_outcome = np.broadcast_to(log_ratios[:, :, None], problem.rewards.shape)
    return math.exp(_extreme(problem, by_outcome, 1.0)) * (1 + SLACK)


def _extreme(problem: Problem, gains: np.ndarray, discount: float) -> float:
    """The most that the gains `[S, A, K]` of an episode can add up to."""
    value = np.zeros(len(problem.start) + 1)
    for _ in range(problem.horizon):
        future = np.where(problem.chances > 0, gains + discount * value[problem.outcomes], -np.inf)
        value[:-1] = future.max(axis=(1, 2))
    return float(value[:-1][problem.start > 0].max())


def samples(problem: Problem, episodes: int, logs: range) -> Iterator[Logged]:
    """Independent logs of the problem's behaviour, by their numbers."""
    log = problem.sample(len(logs) * episodes, seed=1_000_003 * episodes + logs.start)
    whole = Logged.of(Batch.of(log), problem.policy(), discount=problem.discount)
    for part in torch.arange(len(whole)).split(episodes):
        yield whole.select(part)


def evidence(terms: Terms) -> Evidence:
    """What the intervals are made from."""
    whole = totals(terms)
    return Evidence(float(whole.value), influence(terms, whole), lambda: [terms])


def warned(terms: Terms) -> bool:
    """Whether the weights speak against the estimate."""
    if terms.diagnosed is None:
        return False
    return bool(doubts(read(weight_health(terms.diagnosed)).total, unit="episodes"))


def measure(
    name: str,
    episodes: int,
    logs: range,
    *,
    chosen: Collection[str] = (),
    resamples: int = 500,
) -> dict[tuple[str, str], np.ndarray]:
    """Of each interval of each log `[logs, 3]`: its bounds less the exact value; any warning.

    Args:
        name: Of the problem.
        episodes: Of a log.
        logs: Their numbers.
        chosen: Names of estimators, if not all.
        resamples: Of a bootstrap.
    """
    torch.set_num_threads(1)
    problem = PROBLEMS[name]()
    rows_by_key: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    truths = {"behaviour": problem.behaviour_value()}
    asked = {
        key: (f, intervals_of(key, problem, resamples=resamples), truths.get(key, problem.value()))
        for key, f in estimators(problem, episodes).items()
        if not chosen or key in chosen
    }
    for sample in samples(problem, episodes, logs):
        seen: dict[int, tuple[Tensor | None, bool]] = {}  # the weights of most are the same
        for key, (estimator, its_intervals, truth) in asked.items():
            terms = estimator(sample)
            weights = terms.diagnosed
            if id(weights) not in seen:
                seen[id(weights)] = weights, warned(terms)
            rests_on, doubtful = evidence(terms), seen[id(weights)][1]
            for kind, interval in its_intervals.items():
                low, high = interval(rests_on, LEVEL)
                rows_by_key.setdefault((key, kind), []).append(
                    (low - truth, high - truth, doubtful)
                )
    return {key: np.array(rows) for key, rows in rows_by_key.items()}


def summary(name: str, episodes: int, estimator: str, kind: str, rows: np.ndarray) -> Coverage:
    """A row of the table, from `measure`."""
    low, high, doubtful = rows.T
    holds, believed = (low <= 0) & (high >= 0), doubtful == 0
    return Coverage(
        name,
        episodes,
        estimator,
        kind,
        len(rows),
        float(holds.mean()),
        float((low > 0).mean()),
        float((high < 0).mean()),
        float(np.median(high - low)),
        float(doubtful.mean()),
        float(holds[believed].mean()) if believed.any() else math.nan,
    )
