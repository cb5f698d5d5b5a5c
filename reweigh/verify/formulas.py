"""Published formulas of biased estimators, written out in loops: the independent path.

An estimator that equals no exact gradient is held to its paper instead: on a logged batch, to the
coefficient `c_t` of each step's score in `ĝ = Σ_i Σ_t c_t score_t`. Everything here is Python
numbers; nothing is shared with the recipes.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from reweigh.recipes import policy_weights
from reweigh.verify.answers import Answer
from reweigh.verify.cases import Case

CLIP = 0.2


Formula = Callable[..., list[list[float]]]
"""From the episodes of a batch, the discount and knobs to the coefficients of each episode's steps.

The defaults are the paper's.
"""


def _clipped(ratio: float, advantage: float, centre: float, low: float, high: float) -> float:
    """`∂/∂log ρ` of `min(ρ A, clip(ρ, c - low, c + high) A)`."""
    if (advantage > 0 and ratio > centre + high) or (advantage < 0 and ratio < centre - low):
        return 0.0
    return ratio * advantage


def _ppo(
    batch: list[Answer], discount: float, clip: float = CLIP, clip_high: float = CLIP
) -> list[list[float]]:
    return [
        [
            _clipped(r, a, 1.0, clip, clip_high) / len(batch)
            for r, a in zip(x.ratios, x.advantages, strict=True)
        ]
        for x in batch
    ]


def _geppo(
    batch: list[Answer], discount: float, policy_weights: Tensor | None = None
) -> list[list[float]]:
    """Weighted or not: with weights, steps are of two policies in turn, the mean age 1.25."""
    steps = _tokens(batch)
    newest = sum(-(-len(x.rewards) // 2) for x in batch)
    alpha = (0.75 * steps / newest, 0.25 * steps / (steps - newest))
    alpha = (1.0, 1.0) if policy_weights is None else alpha
    rows = []
    for x in batch:
        centres = [math.exp(p - b) for p, b in zip(x.proximal, x.behaviour, strict=True)]
        terms = enumerate(zip(x.ratios, x.advantages, centres, strict=True))
        rows.append(
            [alpha[t % 2] * _clipped(r, a, c, CLIP, CLIP) / len(batch) for t, (r, a, c) in terms]
        )
    return rows


def _two_policies(case: Case) -> Tensor:
    """The weights of that."""
    age = 1 + case.segments.time % 2
    counts = age[case.segments.existing].bincount()[1:].double()
    return policy_weights(age, shares=counts / counts.sum(), mean_age=1.25)


def _awr(
    batch: list[Answer], discount: float, temperature: float = 1.0, maximum: float = 20.0
) -> list[list[float]]:
    return [
        [min(math.exp(a / temperature), maximum) / len(batch) for a in x.advantages] for x in batch
    ]


def _impala(batch: list[Answer], discount: float) -> list[list[float]]:
    rows = []
    for x in batch:
        row, target_after, value_after = [0.0] * len(x.rewards), 0.0, 0.0
        for t in reversed(range(len(x.rewards))):
            rho = min(1.0, x.ratios[t])
            row[t] = rho * (x.rewards[t] + discount * target_after - x.values[t]) / len(batch)
            delta = rho * (x.rewards[t] + discount * value_after - x.values[t])
            target = x.values[t] + delta + discount * rho * (target_after - value_after)
            target_after, value_after = target, x.values[t]
        rows.append(row)
    return rows


def _truncated(
    batch: list[Answer], discount: float, lowest_return: float, maximum: float = 10.0
) -> list[list[float]]:
    rows = []
    for x in batch:
        weight = min(maximum, math.prod(x.ratios))
        rows.append([weight * (x.total - lowest_return) / len(batch)] * len(x.rewards))
    return rows


def _pareto_smoothed(batch: list[Answer], discount: float) -> list[list[float]]:
    logs = [sum(a - b for a, b in zip(x.target, x.behaviour, strict=True)) for x in batch]
    weights = [math.exp(x) for x in logs]
    order = sorted(range(len(logs)), key=lambda i: logs[i])
    tail, cutoff = order[-(len(logs) // 5) :], weights[order[-(len(logs) // 5) - 1]]
    shape, scale = _generalised_pareto([weights[i] - cutoff for i in tail])
    largest = max(weights)
    for j, i in enumerate(tail):
        quantile = ((1 - (j + 0.5) / len(tail)) ** -shape - 1) / shape
        weights[i] = min(cutoff + scale * quantile, largest)
    total = sum(weights)
    mean = sum(w * x.total for w, x in zip(weights, batch, strict=True)) / total
    return [
        [w * (x.total - mean) / total] * len(x.rewards) for w, x in zip(weights, batch, strict=True)
    ]


def _generalised_pareto(excess: list[float]) -> tuple[float, float]:
    """Shape and scale: Zhang and Stephens 2009, with the prior of Vehtari et al. 2024."""
    count, points = len(excess), 30 + math.isqrt(len(excess))
    quartile = excess[int(count / 4 + 0.5) - 1]
    grid = [
        1 / excess[-1] + (1 - math.sqrt(points / (j - 0.5))) / (3 * quartile)
        for j in range(1, points + 1)
    ]
    shapes = [sum(math.log1p(-b * x) for x in excess) / count for b in grid]
    fits = [count * (math.log(-b / k) - k - 1) for b, k in zip(grid, shapes, strict=True)]
    chances = [1 / sum(math.exp(other - fit) for other in fits) for fit in fits]
    b = sum(x * chance for x, chance in zip(grid, chances, strict=True))
    raw = sum(math.log1p(-b * x) for x in excess) / count
    return (count * raw + 5) / (count + 10), -raw / b


def _pairs(batch: list[Answer]) -> list[tuple[Answer, Answer]]:
    """Every answer with the other one of its group, which are neighbours."""
    return [(batch[i], batch[i + 1 - 2 * (i % 2)]) for i in range(len(batch))]


def _relative(answer: Answer, other: Answer) -> float:
    """`(R_i - mean) / (std + 1e-6)` in a group of two; the deviation has the divisor 1."""
    difference = answer.total - other.total
    return difference / 2 / (abs(difference) / math.sqrt(2) + 1e-6)


def _grpo(batch: list[Answer], discount: float, clip: float = CLIP) -> list[list[float]]:
    rows = []
    for x, other in _pairs(batch):
        scale = len(batch) * len(x.rewards)
        a = _relative(x, other)
        rows.append([_clipped(r, a, 1.0, clip, clip) / scale for r in x.ratios])
    return rows


def _dr_grpo(
    batch: list[Answer], discount: float, clip: float = CLIP, horizon: int = 1
) -> list[list[float]]:
    scale = len(batch) * horizon
    return [
        [_clipped(r, (x.total - y.total) / 2, 1.0, clip, clip) / scale for r in x.ratios]
        for x, y in _pairs(batch)
    ]


def _tokens(batch: list[Answer]) -> int:
    return sum(len(x.rewards) for x in batch)


def _dapo(
    batch: list[Answer], discount: float, clip: float = CLIP, clip_high: float = 0.28
) -> list[list[float]]:
    return [
        [_clipped(r, _relative(x, y), 1.0, clip, clip_high) / _tokens(batch) for r in x.ratios]
        for x, y in _pairs(batch)
    ]


def _gspo(
    batch: list[Answer], discount: float, clip: float = 3e-4, clip_high: float = 4e-4
) -> list[list[float]]:
    rows = []
    for x, other in _pairs(batch):
        length = len(x.rewards)
        sequence = math.prod(x.ratios) ** (1 / length)
        slope = _clipped(sequence, _relative(x, other), 1.0, clip, clip_high)
        rows.append([slope / length / len(batch)] * length)
    return rows


def _cispo(
    batch: list[Answer], discount: float, minimum: float = 0.0, maximum: float = 1.28
) -> list[list[float]]:
    return [
        [min(max(r, minimum), maximum) * _relative(x, y) / _tokens(batch) for r in x.ratios]
        for x, y in _pairs(batch)
    ]


def _rloo(batch: list[Answer], discount: float) -> list[list[float]]:
    return [[(x.total - y.total) / len(batch)] * len(x.rewards) for x, y in _pairs(batch)]


def _topr(batch: list[Answer], discount: float) -> list[list[float]]:
    rows = []
    for x, other in _pairs(batch):
        advantage = x.total - other.total
        taper = 1.0 if advantage >= 0 else min(1.0, math.prod(x.ratios))
        rows.append([taper * advantage / len(batch)] * len(x.rewards))
    return rows


def _proximal(bound: Callable[..., float]) -> Formula:
    def formula(
        batch: list[Answer], discount: float, clip: float = CLIP, **knobs: float
    ) -> list[list[float]]:
        rows = []
        for x in batch:
            steps = zip(x.target, x.proximal, x.behaviour, x.advantages, strict=True)
            rows.append(
                [
                    bound(math.exp(p - b), **knobs) * _clipped(math.exp(t - p), a, 1.0, clip, clip)
                    for t, p, b, a in steps
                ]
            )
        return [[c / _tokens(batch) for c in row] for row in rows]

    return formula


FORMULAS: dict[str, Formula] = {
    "ppo": _ppo,
    "geppo": _geppo,
    "awr": _awr,
    "impala": _impala,
    "truncated_importance_sampling": _truncated,
    "pareto_smoothed": _pareto_smoothed,
    "grpo": _grpo,
    "dr_grpo": _dr_grpo,
    "dapo": _dapo,
    "gspo": _gspo,
    "cispo": _cispo,
    "rloo": _rloo,
    "topr": _topr,
    "tis": _proximal(lambda w, maximum=2.0: min(w, maximum)),
    "decoupled_ppo": _proximal(lambda w: w),
    "icepop": _proximal(lambda w, minimum=0.5, maximum=5.0: w if minimum <= w <= maximum else 0.0),
}
"""By the recipe's name; an answer's group is its neighbour."""

OF_MANY = {"pareto_smoothed"}
"""Held to their formula on every trajectory of a small problem: a batch is too short for a tail."""

KNOBS: dict[str, list[dict[str, Any]]] = {
    # No problem of the golden file returns less.
    "truncated_importance_sampling": [
        {"lowest_return": -10.0},
        {"lowest_return": -10.0, "maximum": 1.2},
    ],
    "ppo": [{}, {"clip": 0.05, "clip_high": 0.5}],
    "geppo": [{}, {"policy_weights": _two_policies}],
    "awr": [{}, {"temperature": 0.5, "maximum": 2.0}],
    "grpo": [{}, {"clip": 0.05}],
    "dr_grpo": [{}, {"clip": 0.05, "horizon": 3}],
    "dapo": [{}, {"clip": 0.05, "clip_high": 0.5}],
    "gspo": [{}, {"clip": 0.05, "clip_high": 0.2}],
    "cispo": [{}, {"minimum": 0.9, "maximum": 1.1}],
    "tis": [{}, {"clip": 0.05, "maximum": 1.1}],
    "decoupled_ppo": [{}, {"clip": 0.05}],
    "icepop": [{}, {"clip": 0.05, "minimum": 0.9, "maximum": 1.1}],
}
"""Knobs with which a recipe is held to its formula, so that each of them matters somewhere; of a
function, what it gives for the case. Without an entry, the defaults."""


def knobs(name: str, case: Case) -> list[dict[str, Any]]:
    """The knobs with which a recipe is tried on a case."""
    return [
        {key: value(case) if callable(value) else value for key, value in given.items()}
        for given in KNOBS.get(name, [{}])
    ]
