"""Every problem, distance and horizon of `which_weight.py`, and the rule judged on batches."""

import itertools
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from which_weight_estimators import (
    COMPOSITIONS,
    MARGINAL,
    SELF_NORMALISED,
    TWO_SOURCES,
    WALKS,
    WITH_CRITIC,
    action_value,
    at,
    plain,
    self_normalised_moments,
    state_marginal,
    weighted,
)
from which_weight_problem import (
    BATCHES,
    ENUMERATED,
    LONGER,
    Moments,
    Problem,
    enumerated_moments,
    everything,
    problem,
    trajectory_gradients,
)
from which_weight_recurrence import UNIT, marginal_moments, recurrence_moments

import reweigh as rw


@dataclass(frozen=True)
class Cell:
    """A problem, a distance and a horizon, and what every estimator is there."""

    seed: int
    problem: Problem
    horizon: int
    moments: dict[str, Moments]
    """By the estimator's name."""

    @property
    def second_moment(self) -> float:
        """`E_φ[W²]`: episodes over effective sample size."""
        return self.problem.second_moment(self.horizon)

    def fresh(self) -> float:
        """Relative deviation of one trajectory's gradient, were it the target's own."""
        p = self.problem
        on_policy = replace(p, behaviour=p.target, steps=torch.zeros_like(p.steps), distance=0.0)
        return recurrence_moments(on_policy, UNIT, (self.horizon,))[self.horizon].deviation


def cells(seed: int, distance: float) -> list[Cell]:
    """Everything that is known of one problem at one distance, by horizon."""
    p = problem(seed, distance)
    walks = {
        name: recurrence_moments(p, walk, (*ENUMERATED, *LONGER))
        for name, (walk, _) in WALKS.items()
    }
    result = []
    for horizon in (*ENUMERATED, *LONGER):
        moments = {name: by_horizon[horizon] for name, by_horizon in walks.items()}
        moments[MARGINAL] = marginal_moments(p, horizon)
        if horizon in ENUMERATED:
            exact = enumerated(p, horizon)
            for name in moments:
                check(name, moments[name], exact[name])
            moments = exact
        result.append(Cell(seed, p, horizon, moments))
    return result


def enumerated(p: Problem, horizon: int) -> dict[str, Moments]:
    """The moments of every estimator, from every trajectory."""
    e = everything(p, horizon, p.behaviour.unsqueeze(0))
    marginal = {MARGINAL: weighted(plain(state_marginal), action_value)}
    moments = {
        name: enumerated_moments(e, trajectory_gradients(e, objective(e)))
        for name, objective in (COMPOSITIONS | marginal | WITH_CRITIC).items()
    }
    moments[SELF_NORMALISED] = self_normalised_moments(e)
    nearer = (p.behaviour * p.target).sqrt()
    nearer = nearer / nearer.sum(1, keepdim=True)
    e = everything(p, horizon, torch.stack([p.behaviour, nearer]))
    for name, objective in TWO_SOURCES.items():
        moments[name] = enumerated_moments(e, trajectory_gradients(e, objective(e)))
    return moments


def check(name: str, recurrence: Moments, enumeration: Moments) -> None:
    """Requires that both agree to 1e-9."""
    for x, y in zip(recurrence, enumeration, strict=True):
        if abs(x - y) > 1e-9 * max(1.0, abs(y)):
            raise AssertionError(f"{name}: recurrence {recurrence}, enumeration {enumeration}")


def mean(numbers: Iterable[float]) -> float:
    """Geometric: of numbers over orders of magnitude. Below 1e-9 it is rounding, and so 0."""
    numbers = list(numbers)
    return 0.0 if min(numbers) < 1e-9 else statistics.geometric_mean(numbers)


class Verdict(NamedTuple):
    """What `rw.recommend` said of a batch, and what that is worth."""

    cell: Cell
    episodes: int
    estimator: str
    collect: bool

    @property
    def error(self) -> float:
        """Of the estimator that was recommended."""
        return self.cell.moments[self.estimator].error(self.episodes)

    def factor(self, estimator: str) -> float:
        """Error of an estimator over that of the best one in the cell."""
        return self.cell.moments[estimator].error(self.episodes) / self.best

    @property
    def best(self) -> float:
        """The smallest error in the cell of what takes no critic."""
        moments = self.cell.moments
        return min(moments[x].error(self.episodes) for x in moments if x in COMPOSITIONS)

    @property
    def worth(self) -> float:
        """Episodes of the target's own that have the same error."""
        return (self.cell.fresh() / self.error) ** 2


def verdict(cell: Cell, episodes: int) -> Verdict:
    """What the rule says of a sampled batch."""
    g = torch.Generator().manual_seed(1000 * cell.horizon + cell.seed)
    p, state = cell.problem, None
    ratios, behaviour = [], []
    for _ in range(cell.horizon):
        if state is None:
            state = torch.multinomial(p.initial, episodes, replacement=True, generator=g)
        action = torch.multinomial(p.behaviour[state], 1, generator=g).squeeze(1)
        ratios.append(p.target.log()[state, action])
        behaviour.append(p.behaviour.log()[state, action])
        state = torch.multinomial(p.transition[state, action], 1, generator=g).squeeze(1)
    segments = rw.Segments.padded([cell.horizon] * episodes, cell.horizon)
    advice = rw.recommend(rw.Sample(torch.stack(ratios, 1), torch.stack(behaviour, 1), segments))
    assert advice.recipe is not None
    name = advice.recipe.name.removeprefix("truncated_")
    name = at(name, advice.maximum) if advice.maximum < math.inf else name
    return Verdict(cell, episodes, name, advice.collect)


def print_rule(verdicts: list[Verdict]) -> None:
    """Prints how far the rule, and simpler ones, are from the best choice in hindsight."""

    def half_root(v: Verdict) -> float:
        return max(1.0, math.sqrt(v.episodes) / 2)

    print(f"\nError over that of the best of {len(COMPOSITIONS)}, on {len(verdicts)} batches")
    arms: dict[str, Callable[[Verdict], float]] = {
        "rw.recommend": lambda v: v.factor(v.estimator),
        "truncated at max(1, √N / 2)": lambda v: v.factor(at("per_decision", half_root(v))),
        **{
            name: partial(Verdict.factor, estimator=name)
            for name in ("step", at("per_decision", 5), at("per_decision", 1), "per_decision")
        },
    }
    for name, factor in arms.items():
        print_factors(name, [factor(v) for v in verdicts])
    print("the same with a critic (Q of φ), over the best with it, enumerated horizons")
    robust = "doubly_robust, Q of φ"
    with_critic = [v for v in verdicts if v.cell.horizon in ENUMERATED]
    for name, choice in {
        "truncated at max(1, √N / 2)": lambda v: at(robust, half_root(v)),
        robust: lambda _: robust,
        "rw.recommend without critic": lambda v: v.estimator,
    }.items():
        print_factors(
            name,
            [
                v.cell.moments[choice(v)].error(v.episodes)
                / min(
                    v.best,
                    *(v.cell.moments[x].error(v.episodes) for x in v.cell.moments if robust in x),
                )
                for v in with_critic
            ],
        )
    for episodes, flag in itertools.product(BATCHES, (False, True)):
        batches = [v for v in verdicts if v.collect == flag and v.episodes == episodes]
        if batches:
            worth = statistics.median(v.worth / v.episodes for v in batches)
            error = statistics.median(v.error for v in batches)
            print(
                f"N={episodes:<6} {'collect' if flag else 'use it':8} {len(batches):4} batches: an "
                f"old episode is worth {worth:.3f} fresh ones, relative error {error:.2f} (medians)"
            )


def print_factors(name: str, factors: list[float]) -> None:
    """Prints the distribution of errors over those of the best choice."""
    x = sorted(factors)
    tenth = x[math.ceil(0.9 * len(x)) - 1]
    print(
        f"{name:32} geometric mean {statistics.geometric_mean(x):6.2f}, median "
        f"{statistics.median(x):5.2f}, 90 % {tenth:6.2f}, worst {x[-1]:.3g}"
    )
