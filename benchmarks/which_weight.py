"""Bias and variance of every weight, exactly, as horizon and policy distance grow.

Five random problems of four states and two actions. In each, the ratio of target to behaviour is a
power of `e^ε`, with ε the distance between the policies, so that a weight takes few values. Up to
six steps every trajectory is enumerated, through the library's own functions. Up to 64, for weights
that are functions of the prefix or of the step, the first two moments follow from a recurrence over
state and log-weight; where both are at hand they agree to 1e-9, or this stops. Nothing is sampled,
but the batches that `rw.recommend` is asked about.

    python benchmarks/which_weight.py                             # a table, and the rule judged
    python benchmarks/which_weight.py --out docs                  # CSV and pictures too
    python benchmarks/which_weight.py --problems 10 11 12 13 14   # problems not looked at before
"""

import argparse
import csv
import itertools
import math
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

import reweigh as rw
from reweigh.report import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISCOUNT = 0.95
STATES, ACTIONS = 4, 2
DISTANCES = (0.05, 0.1, 0.2, 0.35, 0.6)
ENUMERATED = (1, 2, 4, 6)
LONGER = (8, 12, 16, 24, 32, 48, 64)
JUDGED = (*ENUMERATED, 8, 16, 32, 64)
BATCHES = (10, 100, 1_000, 10_000)


@dataclass(frozen=True)
class Problem:
    """A Markov decision process, a target and a behaviour."""

    initial: Tensor
    """`[states]`."""
    transition: Tensor
    """`[states, actions, states]`: two successors each."""
    reward: Tensor
    """`[states, actions]`."""
    target: Tensor
    """`[states, actions]`: probabilities."""
    behaviour: Tensor
    """`[states, actions]`."""
    steps: Tensor
    """`[states, actions]`: log-ratios in units of `distance`, whole numbers."""
    distance: float

    @property
    def ratio(self) -> Tensor:
        """`[states, actions]`: target over behaviour."""
        return self.target / self.behaviour

    @property
    def kl(self) -> float:
        """`KL(φ ‖ θ)` of a step, in nats, averaged over states."""
        return float(-(self.behaviour * self.ratio.log()).sum(1).mean())

    def second_moment(self, horizon: int) -> float:
        """`E_φ[w²]` of the last step: powers of `B[s, s'] = Σ_a π_θ²/π_φ P`."""
        growth = torch.einsum("sa,sat->st", self.target * self.ratio, self.transition)
        return float((self.initial @ torch.linalg.matrix_power(growth, horizon)).sum())


def problem(seed: int, distance: float) -> Problem:
    """Problem number `seed`; the target depends a little on the distance, its ratios exactly."""
    g = torch.Generator().manual_seed(seed)
    transition = torch.zeros(STATES, ACTIONS, STATES, dtype=torch.float64)
    for row in transition.flatten(0, 1):
        shares = 0.2 + torch.rand(2, generator=g, dtype=torch.float64)
        row[torch.randperm(STATES, generator=g)[:2]] = shares / shares.sum()
    reward = torch.randn(STATES, ACTIONS, generator=g, dtype=torch.float64)
    up, down = torch.randint(1, 4, (2, STATES), generator=g).double()
    # Probabilities that sum to 1 before and after they are multiplied by e^(ε up), e^(-ε down).
    first = -(-distance * down).expm1() / ((distance * up).exp() - (-distance * down).exp())
    behaviour = torch.stack([first, 1 - first], dim=1)
    steps = torch.stack([up, -down], dim=1)
    flip = torch.rand(STATES, 1, generator=g) < 0.5
    behaviour = torch.where(flip, behaviour.flip(1), behaviour)
    steps = torch.where(flip, steps.flip(1), steps)
    target = behaviour * (distance * steps).exp()
    initial = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    return Problem(initial, transition, reward, target, behaviour, steps, distance)


class Values(NamedTuple):
    """What a policy is worth and where it goes."""

    value: Tensor
    """`[horizon + 1, states]`."""
    action_value: Tensor
    """`[horizon, states, actions]`."""
    visits: Tensor
    """`[horizon, states]`: probability of being there."""


def values(p: Problem, policy: Tensor, horizon: int) -> Values:
    value, action_value, visits = [torch.zeros(STATES, dtype=torch.float64)], [], [p.initial]
    for _ in range(horizon):
        action_value.insert(0, p.reward + DISCOUNT * p.transition @ value[0])
        value.insert(0, (policy * action_value[0]).sum(1))
        visits.append(torch.einsum("s,sa,sat->t", visits[-1], policy, p.transition))
    return Values(torch.stack(value), torch.stack(action_value), torch.stack(visits[:-1]))


def gradient(p: Problem, horizon: int) -> Tensor:
    """`∇J_γ` with respect to the target's logits, `[states * actions]`."""
    exact = values(p, p.target, horizon)
    advantage = exact.action_value - exact.value[:-1].unsqueeze(2)
    discount = DISCOUNT ** torch.arange(horizon, dtype=torch.float64)
    return torch.einsum("t,ts,sa,tsa->sa", discount, exact.visits, p.target, advantage).flatten()


# Every trajectory, through the library.


@dataclass(frozen=True)
class Everything:
    """Every trajectory of a problem, as one batch (`[S]` unless said)."""

    problem: Problem
    horizon: int
    segments: rw.Segments
    states: Tensor
    actions: Tensor
    rewards: Tensor
    log_probs: Tensor
    """`[S, actions]`: of the target; what is differentiated."""
    behaviour: Tensor
    """Log-probability under the behaviour that sampled the trajectory."""
    sources: Tensor
    """`[J, S]`: log-probabilities under all that sampled."""
    probability: Tensor
    """`[N]`, of each trajectory."""

    @property
    def log_prob(self) -> Tensor:
        """Under the target."""
        return self.log_probs.gather(1, self.actions.unsqueeze(1)).squeeze(1)

    @property
    def ratios(self) -> Tensor:
        """Log-ratios, as everywhere in the library."""
        return rw.log_ratios(self.log_prob, self.behaviour, self.segments)

    def values(self, policy: Tensor) -> Values:
        """Of a policy, exact."""
        return values(self.problem, policy, self.horizon)

    def here(self, table: Tensor) -> Tensor:
        """`table [horizon, states, ...]` at every step."""
        return table[self.segments.time, self.states]


def everything(p: Problem, horizon: int, behaviours: Tensor) -> Everything:
    """Every trajectory, once for each of the behaviours `[J, states, actions]`, equally likely."""
    states = p.initial.nonzero()
    probability = p.initial[states[:, 0]]
    actions = states.new_zeros(len(states), 0)
    for t in range(horizon):
        states, probability = (x.repeat_interleave(ACTIONS, 0) for x in (states, probability))
        choice = torch.arange(ACTIONS).repeat(len(actions)).unsqueeze(1)
        actions = torch.cat([actions.repeat_interleave(ACTIONS, 0), choice], 1)
        if t < horizon - 1:
            row = p.transition[states[:, -1], actions[:, -1]]
            path, state = row.nonzero(as_tuple=True)
            probability = probability[path] * row[path, state]
            states = torch.cat([states[path], state.unsqueeze(1)], 1)
            actions = actions[path]
    count = len(behaviours)
    source = torch.arange(count).repeat_interleave(len(states))
    states, actions = states.repeat(count, 1).flatten(), actions.repeat(count, 1).flatten()
    segments = rw.Segments.padded([horizon] * len(source), horizon)
    sources = behaviours.log()[:, states, actions]
    own = rw.weights.select_behaviour(sources, source[segments.episode], segments)
    return Everything(
        problem=p,
        horizon=horizon,
        segments=segments,
        states=states,
        actions=actions,
        rewards=p.reward[states, actions],
        log_probs=p.target.log()[states].requires_grad_(),
        behaviour=own,
        sources=sources,
        probability=probability.repeat(count) * segments.total(own).exp() / count,
    )


Objective = Callable[[Everything], Tensor]


def trajectory_gradients(e: Everything, objective: Tensor) -> Tensor:
    """`[N, states * actions]`: each trajectory's gradient with respect to the target's logits."""
    (slope,) = torch.autograd.grad(objective.sum(), e.log_probs)
    slope = slope - e.log_probs.detach().exp() * slope.sum(1, keepdim=True)
    cell = e.segments.episode * STATES + e.states
    gradients = slope.new_zeros(len(e.segments) * STATES, ACTIONS).index_add(0, cell, slope)
    return gradients.reshape(len(e.segments), STATES * ACTIONS)


class Moments(NamedTuple):
    """Of one trajectory's gradient, relative to the norm of `∇J_γ`."""

    bias: float
    deviation: float

    def error(self, episodes: int) -> float:
        """Relative root mean square error of the mean over so many episodes."""
        return math.sqrt(self.bias**2 + self.deviation**2 / episodes)


def moments(mean: Tensor, second_moment: Tensor, want: Tensor) -> Moments:
    variance = float(second_moment - mean.square().sum())
    norm = float(want.norm())
    return Moments(float((mean - want).norm()) / norm, math.sqrt(max(variance, 0.0)) / norm)


def enumerated_moments(e: Everything, gradients: Tensor) -> Moments:
    mean = e.probability @ gradients
    return moments(mean, e.probability @ gradients.square().sum(1), gradient(e.problem, e.horizon))


# The estimators: each a composition.


def weighted(weight: Objective, continuation: Objective, *, from_start: bool = True) -> Objective:
    def objective(e: Everything) -> Tensor:
        factor = weight(e)
        if from_start:
            factor = factor * rw.returns.discount_from_start(e.segments, discount=DISCOUNT)
        return rw.surrogates.weighted_log_prob(e.log_prob, factor, continuation(e), e.segments)

    return objective


def step(e: Everything) -> Tensor:
    return rw.weights.step(e.ratios, e.segments)


def prefix(e: Everything) -> Tensor:
    return rw.weights.prefix(e.ratios, e.segments)


def trajectory(e: Everything) -> Tensor:
    return rw.weights.trajectory(e.ratios, e.segments)


def balance(e: Everything) -> Tensor:
    shares = torch.full((len(e.sources),), 1 / len(e.sources), dtype=torch.float64)
    return rw.weights.balance_heuristic(e.log_prob, e.sources, shares, e.segments)


def window(steps: int) -> Objective:
    return lambda e: rw.weights.window(e.ratios, e.segments, steps=steps)


def truncated(log_weights: Objective, maximum: float) -> Objective:
    return lambda e: rw.weights.truncate(log_weights(e), e.segments, maximum=maximum).log_weights


def masked(log_weights: Objective, band: float) -> Objective:
    return lambda e: (
        rw.weights.mask_outside(
            log_weights(e), e.segments, minimum=1 / band, maximum=band
        ).log_weights
    )


def power_mean(log_weights: Objective, share: float) -> Objective:
    return lambda e: rw.weights.power_mean(log_weights(e), e.segments, share=share).log_weights


def product_of_truncated(maximum: float) -> Objective:
    return lambda e: rw.weights.prefix(truncated(step, maximum)(e), e.segments)


def plain(log_weights: Objective) -> Objective:
    return lambda e: log_weights(e).exp()


def one(e: Everything) -> Tensor:
    return torch.ones_like(e.rewards)


def logged(e: Everything) -> Tensor:
    return rw.returns.reward_to_go(e.rewards, e.segments, discount=DISCOUNT)


def action_value(e: Everything) -> Tensor:
    table = e.here(e.values(e.problem.target).action_value)
    return table.gather(1, e.actions.unsqueeze(1)).squeeze(1)


def per_decision(log_weights: Objective, rewards: Objective = lambda e: e.rewards) -> Objective:
    return weighted(
        one,
        lambda e: rw.returns.weighted_reward_to_go(
            rewards(e), log_weights(e), e.segments, discount=DISCOUNT
        ),
    )


def state_marginal(e: Everything) -> Tensor:
    visits = [e.values(x).visits for x in (e.problem.target, e.problem.behaviour)]
    return rw.weights.state_marginal(e.ratios, e.here((visits[0] / visits[1]).log()), e.segments)


def vtrace(threshold: float) -> Objective:
    def advantages(e: Everything) -> Tensor:
        bounded = rw.weights.truncate(e.ratios, e.segments, maximum=threshold).log_weights
        return rw.advantages.vtrace(
            e.rewards,
            e.here(e.values(e.problem.target).value),
            e.rewards.new_zeros(len(e.segments)),
            bounded,
            bounded,
            e.segments,
            discount=DISCOUNT,
        ).advantages

    return weighted(one, advantages)


def doubly_robust(critic: str, maximum: float = math.inf) -> Objective:
    """Per-decision on what the critic leaves unexplained, and the critic summed over actions.

    The critic is the exact action value of the target or of the behaviour.
    """

    def critic_values(e: Everything) -> Tensor:
        return e.here(e.values(getattr(e.problem, critic)).action_value)

    def unexplained(e: Everything) -> Tensor:
        taken = critic_values(e).gather(1, e.actions.unsqueeze(1)).squeeze(1)
        value = (e.log_probs.detach().exp() * critic_values(e)).sum(1)
        after = e.segments.next(value, value.new_zeros(len(e.segments)))
        return e.rewards + DISCOUNT * after - taken

    sampled = per_decision(truncated(prefix, maximum), unexplained)
    earlier = truncated(lambda e: rw.weights.exclusive_prefix(e.ratios, e.segments), maximum)

    def objective(e: Everything) -> Tensor:
        from_start = rw.returns.discount_from_start(e.segments, discount=DISCOUNT)
        return sampled(e) + rw.surrogates.expected_value(
            e.log_probs, from_start * earlier(e).exp(), critic_values(e), e.segments
        )

    return objective


def self_normalised_moments(e: Everything) -> Moments:
    """Per-decision with weights normalised over the batch: its limit for many episodes.

    The deviation is that of the influence function; the bias falls as 1/N and is left out. Neither
    holds where the effective sample size is small.
    """
    weights = prefix(e).exp().detach()
    influence = trajectory_gradients(e, per_decision(prefix)(e))
    for t in range(e.horizon):
        now = e.segments.fill(torch.where(e.segments.time == t, e.rewards, 0.0))
        share = trajectory_gradients(e, per_decision(prefix, lambda _, x=now: x)(e))
        weight = e.segments.total(torch.where(e.segments.time == t, weights, 0.0))
        influence = influence - torch.outer(weight - 1, e.probability @ share)
    return enumerated_moments(e, influence)


# Longer horizons: a recurrence over state and log-weight.


class Walk(NamedTuple):
    """An estimator `Σ_t γ^t u_t R_t score_t` with `R_t = k_t r_t + γ R_{t+1}`.

    Both factors are functions of the prefix weight and the step's own ratio.
    """

    reward: Callable[[Tensor, Tensor], Tensor]
    """`k`."""
    score: Callable[[Tensor, Tensor], Tensor]
    """`u`."""


def recurrence_moments(p: Problem, walk: Walk, horizons: tuple[int, ...]) -> dict[int, Moments]:
    """The moments of a walk by horizon, by dynamic programming.

    With `Y_t = u_t R_t score_t + γ Y_{t+1}`, the expectations of `R`, `Y`, `R²`, `R Y` and `|Y|²`
    given state and log-weight form a closed recurrence backwards in time.
    """
    reach = 3 * max(horizons)
    log_weight = torch.arange(-reach, reach + 1)
    shape = (STATES, ACTIONS, len(log_weight))
    after = log_weight + p.steps.long().unsqueeze(2)
    weight = (p.distance * after.double()).exp()
    ratio = p.ratio.unsqueeze(2).expand(shape)
    k = walk.reward(weight, ratio) * p.reward.unsqueeze(2)
    u = walk.score(weight, ratio)
    score = torch.zeros(STATES, ACTIONS, 1, STATES, ACTIONS, dtype=torch.float64)
    for s in range(STATES):
        score[s, :, 0, s] = torch.eye(ACTIONS, dtype=torch.float64) - p.target[s]
    score = score.flatten(3)
    place = (after.clamp(-reach, reach) + reach).unsqueeze(3)

    def come(x: Tensor) -> Tensor:
        """Expectation over the next state, at the weight after the action."""
        x = torch.einsum("sat,tnd->sand", p.transition, x)
        return x.gather(2, place.expand(-1, -1, -1, x.shape[3]))

    def choose(x: Tensor) -> Tensor:
        """Expectation over the behaviour's action."""
        return torch.einsum("sa,sand->snd", p.behaviour, x)

    k, u, squared = k.unsqueeze(3), u.unsqueeze(3), score.square().sum(3, keepdim=True)
    size, none = STATES * ACTIONS, torch.zeros(STATES, len(log_weight), 1, dtype=torch.float64)
    r, rr, y, ry, yy = none, none, none.repeat(1, 1, size), none.repeat(1, 1, size), none
    found = {}
    for horizon in range(1, max(horizons) + 1):
        r, rr, y, ry, yy = (come(x) for x in (r, rr, y, ry, yy))
        cross = k * y + DISCOUNT * ry
        r, rr = k + DISCOUNT * r, k.square() + 2 * DISCOUNT * k * r + DISCOUNT**2 * rr
        inner = (score * cross).sum(3, keepdim=True)
        yy = u.square() * rr * squared + 2 * DISCOUNT * u * inner + DISCOUNT**2 * yy
        y, ry = u * r * score + DISCOUNT * y, u * rr * score + DISCOUNT * cross
        r, rr, y, ry, yy = (choose(x) for x in (r, rr, y, ry, yy))
        if horizon in horizons:
            mean = p.initial @ y[:, reach]
            second_moment = p.initial @ yy[:, reach, 0]
            found[horizon] = moments(mean, second_moment, gradient(p, horizon))
    return found


def marginal_moments(p: Problem, horizon: int) -> Moments:
    """The same for `γ^t m_t ρ_t Q_t^θ(s_t, a_t) score_t`, which has no sum over later rewards."""
    target, behaviour = (values(p, x, horizon) for x in (p.target, p.behaviour))
    visits = (target.visits / behaviour.visits).unsqueeze(2)
    coefficient = torch.where(visits.isfinite(), visits, 0.0) * p.ratio * target.action_value
    score = torch.zeros(STATES, ACTIONS, STATES, ACTIONS, dtype=torch.float64)
    for s in range(STATES):
        score[s, :, s] = torch.eye(ACTIONS, dtype=torch.float64) - p.target[s]
    score = score.flatten(2)
    y = torch.zeros(STATES, STATES * ACTIONS, dtype=torch.float64)
    yy = torch.zeros(STATES, dtype=torch.float64)
    for t in reversed(range(horizon)):
        c, y, yy = coefficient[t], p.transition @ y, p.transition @ yy
        cross = (score * y).sum(2)
        yy = c.square() * score.square().sum(2) + 2 * DISCOUNT * c * cross + DISCOUNT**2 * yy
        y = c.unsqueeze(2) * score + DISCOUNT * y
        y = torch.einsum("sa,sad->sd", p.behaviour, y)
        yy = (p.behaviour * yy).sum(1)
    return moments(p.initial @ y, p.initial @ yy, gradient(p, horizon))


UNIT = Walk(lambda w, _: torch.ones_like(w), lambda w, _: torch.ones_like(w))
BOUNDS = (1.0, *(max(1.0, math.sqrt(n) / 2) for n in BATCHES), 2.0)
"""Of truncation: half the root of each batch size, and two plain numbers."""


def at(name: str, maximum: float) -> str:
    return f"{name} truncated at {maximum:.3g}"


def short(maximum: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda w, _: w.clamp(max=maximum)


def within(band: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda w, _: torch.where((w >= 1 / band) & (w <= band), w, 0.0)


WALKS = {
    "reinforce": (UNIT, weighted(one, logged)),
    "step": (UNIT._replace(score=lambda _, rho: rho), weighted(plain(step), logged)),
    at("step", 1): (
        UNIT._replace(score=lambda _, rho: rho.clamp(max=1.0)),
        weighted(plain(truncated(step, 1.0)), logged),
    ),
    "seed with γ^t": (UNIT._replace(score=lambda w, _: w), weighted(plain(prefix), logged)),
    at("seed with γ^t", 2): (
        UNIT._replace(score=short(2.0)),
        weighted(plain(truncated(prefix, 2.0)), logged),
    ),
    "per_decision": (UNIT._replace(reward=lambda w, _: w), per_decision(prefix)),
    **{
        at("per_decision", c): (
            UNIT._replace(reward=short(c)),
            per_decision(truncated(prefix, c)),
        )
        for c in BOUNDS
    },
    # A band whose ends are no weight's value, so that no rounding decides.
    "per_decision masked outside [1/5, 5]": (
        UNIT._replace(reward=within(5.003)),
        per_decision(masked(prefix, 5.003)),
    ),
    "per_decision, power mean .1": (
        UNIT._replace(reward=lambda w, _: w / (0.9 + 0.1 * w)),
        per_decision(power_mean(prefix, 0.1)),
    ),
}
"""What the recurrence can follow, and the same as a composition."""

COMPOSITIONS = {
    **{name: composition for name, (_, composition) in WALKS.items()},
    "seed": weighted(plain(prefix), logged, from_start=False),
    "trajectory": weighted(plain(trajectory), logged),
    "trajectory, power mean .1": weighted(plain(power_mean(trajectory, 0.1)), logged),
    "per_decision, product of ratios truncated at 1": per_decision(product_of_truncated(1.0)),
    "window of 2": weighted(plain(window(2)), logged),
    "window of 3": weighted(plain(window(3)), logged),
    "geometric mean": weighted(
        plain(lambda e: rw.weights.geometric_mean(e.ratios, e.segments)), logged
    ),
}
"""All that take log-probabilities and rewards alone."""

WITH_CRITIC = {
    "V-trace 1, exact V": vtrace(1.0),
    "V-trace ∞, exact V": vtrace(math.inf),
    "doubly_robust, exact Q": doubly_robust("target"),
    "doubly_robust, Q of φ": doubly_robust("behaviour"),
    **{at("doubly_robust, Q of φ", c): doubly_robust("behaviour", c) for c in BOUNDS},
}
MARGINAL = "state marginal × step, exact m and Q"
SELF_NORMALISED = "per_decision self-normalised, N→∞"
TWO_SOURCES = {
    "per_decision, half by a nearer policy": per_decision(prefix),
    "balance_heuristic, half by a nearer policy": per_decision(balance),
}


# The grid.


@dataclass(frozen=True)
class Cell:
    """A problem, a distance and a horizon, and what every estimator is there."""

    seed: int
    problem: Problem
    horizon: int
    found: dict[str, Moments]

    @property
    def second_moment(self) -> float:
        """`E_φ[W²]`: episodes over effective sample size."""
        return self.problem.second_moment(self.horizon)

    def fresh(self) -> float:
        """Relative deviation of one trajectory's gradient, were it the target's own."""
        p = self.problem
        own = replace(p, behaviour=p.target, steps=torch.zeros_like(p.steps), distance=0.0)
        return recurrence_moments(own, UNIT, (self.horizon,))[self.horizon].deviation


def cells(seed: int, distance: float) -> list[Cell]:
    """Everything that is known of one problem at one distance, by horizon."""
    p = problem(seed, distance)
    walks = {
        name: recurrence_moments(p, walk, (*ENUMERATED, *LONGER))
        for name, (walk, _) in WALKS.items()
    }
    result = []
    for horizon in (*ENUMERATED, *LONGER):
        found = {name: by_horizon[horizon] for name, by_horizon in walks.items()}
        found[MARGINAL] = marginal_moments(p, horizon)
        if horizon in ENUMERATED:
            enumerated = enumerate_all(p, horizon)
            for name in found:
                check(name, found[name], enumerated[name])
            found = enumerated
        result.append(Cell(seed, p, horizon, found))
    return result


def enumerate_all(p: Problem, horizon: int) -> dict[str, Moments]:
    e = everything(p, horizon, p.behaviour.unsqueeze(0))
    marginal = {MARGINAL: weighted(plain(state_marginal), action_value)}
    found = {
        name: enumerated_moments(e, trajectory_gradients(e, objective(e)))
        for name, objective in (COMPOSITIONS | marginal | WITH_CRITIC).items()
    }
    found[SELF_NORMALISED] = self_normalised_moments(e)
    nearer = (p.behaviour * p.target).sqrt()
    nearer = nearer / nearer.sum(1, keepdim=True)
    e = everything(p, horizon, torch.stack([p.behaviour, nearer]))
    for name, objective in TWO_SOURCES.items():
        found[name] = enumerated_moments(e, trajectory_gradients(e, objective(e)))
    return found


def check(name: str, recurrence: Moments, enumeration: Moments) -> None:
    for x, y in zip(recurrence, enumeration, strict=True):
        if abs(x - y) > 1e-9 * max(1.0, abs(y)):
            raise AssertionError(f"{name}: recurrence {recurrence}, enumeration {enumeration}")


def mean(numbers: Iterable[float]) -> float:
    """Geometric: of numbers over orders of magnitude. Below 1e-9 it is rounding, and so 0."""
    numbers = list(numbers)
    return 0.0 if min(numbers) < 1e-9 else statistics.geometric_mean(numbers)


# The rule, on batches.


class Verdict(NamedTuple):
    """What `rw.recommend` said of a batch, and what that is worth."""

    cell: Cell
    episodes: int
    estimator: str
    collect: bool

    @property
    def error(self) -> float:
        """Of the estimator that was recommended."""
        return self.cell.found[self.estimator].error(self.episodes)

    def factor(self, estimator: str) -> float:
        """Error of an estimator over that of the best one in the cell."""
        return self.cell.found[estimator].error(self.episodes) / self.best

    @property
    def best(self) -> float:
        """The smallest error in the cell of what takes no critic."""
        found = self.cell.found
        return min(found[x].error(self.episodes) for x in found if x in COMPOSITIONS)

    @property
    def worth(self) -> float:
        """Episodes of the target's own that have the same error."""
        return (self.cell.fresh() / self.error) ** 2


def verdict(cell: Cell, episodes: int) -> Verdict:
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
    said = rw.recommend(rw.Sample(torch.stack(ratios, 1), torch.stack(behaviour, 1), segments))
    assert said.recipe is not None
    name = said.recipe.name.removeprefix("truncated_")
    name = at(name, said.maximum) if said.maximum < math.inf else name
    return Verdict(cell, episodes, name, said.collect)


def print_rule(verdicts: list[Verdict]) -> None:
    """Print how far the rule, and simpler ones, are from the best choice in hindsight."""

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
                v.cell.found[choice(v)].error(v.episodes)
                / min(
                    v.best,
                    *(v.cell.found[x].error(v.episodes) for x in v.cell.found if robust in x),
                )
                for v in with_critic
            ],
        )
    for episodes, flag in itertools.product(BATCHES, (False, True)):
        some = [v for v in verdicts if v.collect == flag and v.episodes == episodes]
        if some:
            worth = statistics.median(v.worth / v.episodes for v in some)
            error = statistics.median(v.error for v in some)
            print(
                f"N={episodes:<6} {'collect' if flag else 'use it':8} {len(some):4} batches: an "
                f"old episode is worth {worth:.3f} fresh ones, relative error {error:.2f} (medians)"
            )


def print_factors(name: str, factors: list[float]) -> None:
    x = sorted(factors)
    tenth = x[math.ceil(0.9 * len(x)) - 1]
    print(
        f"{name:32} geometric mean {statistics.geometric_mean(x):6.2f}, median "
        f"{statistics.median(x):5.2f}, 90 % {tenth:6.2f}, worst {x[-1]:.3g}"
    )


# What is shown.


def print_table(grid: list[Cell], distance: float, horizon: int) -> None:
    some = [c for c in grid if c.problem.distance == distance and c.horizon == horizon]
    print(
        f"Horizon {horizon}, KL {mean(c.problem.kl for c in some):.3f} nats a step, E[W²] "
        f"{mean(c.second_moment for c in some):.3g}; relative to the norm of the gradient"
    )
    heads = "".join(f"{f'N={n:,}':>10}" for n in BATCHES)
    print(f"{'estimator':48}{'bias':>8}{'std':>8}{heads}")
    for name in some[0].found:
        bias = mean(c.found[name].bias for c in some)
        deviation = mean(c.found[name].deviation for c in some)
        errors = "".join(f"{mean(c.found[name].error(n) for c in some):10.3f}" for n in BATCHES)
        print(f"{name:48}{bias:8.3f}{deviation:8.2f}{errors}")


def write_csv(grid: list[Cell], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ["horizon", "distance", "kl_per_step", "second_moment", "estimator", "bias", "std"]
        writer.writerow([*head, *(f"rmse_{n}" for n in BATCHES)])
        for distance in DISTANCES:
            for horizon in (*ENUMERATED, *LONGER):
                some = [c for c in grid if c.problem.distance == distance and c.horizon == horizon]
                for name in some[0].found:
                    numbers = [
                        mean(c.problem.kl for c in some),
                        mean(c.second_moment for c in some),
                        name,
                        mean(c.found[name].bias for c in some),
                        mean(c.found[name].deviation for c in some),
                        *(mean(c.found[name].error(n) for c in some) for n in BATCHES),
                    ]
                    cells_of_row = [x if isinstance(x, str) else f"{x:.4g}" for x in numbers]
                    writer.writerow([horizon, distance, *cells_of_row])


# Pictures.

WIDTH, HEIGHT = 760, 400
AT_HORIZON, AT_DISTANCE = 6, 0.2


class Line(NamedTuple):
    """How an estimator is drawn."""

    name: str
    label: str
    colour: str
    style: str = "-"


BIAS_LINES = (
    Line("reinforce", "no weights", svg.MUTED),
    Line("geometric mean", "geometric mean", svg.THIRD, "--"),
    Line("per_decision, product of ratios truncated at 1", "ratios truncated at 1", svg.THIRD),
    Line(at("per_decision", 1), "truncated at 1", svg.ACCENT),
    Line(at("per_decision", 5), "truncated at 5", svg.ACCENT, "--"),
    Line("V-trace 1, exact V", "V-trace, exact V", svg.THIRD, ":"),
    Line("step", "step", svg.CONTRAST),
    Line("seed with γ^t", "seed", svg.CONTRAST, ":"),
)
DEVIATION_LINES = (
    Line("seed with γ^t", "seed", svg.CONTRAST, ":"),
    Line("per_decision", "per decision", svg.ACCENT),
    Line(at("per_decision", 50), "truncated at 50", svg.ACCENT, (0, (6, 2))),
    Line(at("per_decision", 5), "truncated at 5", svg.ACCENT, "--"),
    Line(at("per_decision", 1), "truncated at 1", svg.ACCENT, ":"),
    Line("step", "step", svg.CONTRAST),
    Line("trajectory", "trajectory", svg.INK),
    Line(MARGINAL, "state ratio, exact", svg.THIRD),
)


def spread_labels(axes: "Axes", ends: list[tuple[float, Line]], x: float, gap: float) -> None:
    """Write each line's name at its right end, in order, none over another (log axis)."""
    ends = sorted(ends, key=lambda end: end[0])
    heights = [math.log10(y) for y, _ in ends]
    for _ in range(200):  # neighbours push each other apart
        for i in range(len(heights) - 1):
            short_of = gap - (heights[i + 1] - heights[i])
            if short_of > 1e-6:
                heights[i] -= short_of / 2
                heights[i + 1] += short_of / 2
    for height, (_, line) in zip(heights, ends, strict=True):
        axes.annotate(
            line.label,
            (x, 10**height),
            xytext=(7, 0),
            textcoords="offset points",
            color=line.colour,
            va="center",
            annotation_clip=False,
        )


def paint_bias(axes: "Axes", grid: list[Cell]) -> None:
    ends = []
    for line in BIAS_LINES:
        x, y = [], []
        for distance in DISTANCES:
            some = [c for c in grid if c.problem.distance == distance and c.horizon == AT_HORIZON]
            x.append(mean(c.problem.kl for c in some))
            y.append(mean(c.found[line.name].bias for c in some))
        keep = [i for i, b in enumerate(y) if b > 3e-4]
        axes.plot([x[i] for i in keep], [y[i] for i in keep], line.style, color=line.colour)
        ends.append((y[-1], line))
    spread_labels(axes, ends, x[-1], 0.105)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.0055, 7)
    axes.set_xlim(x[0] * 0.9, x[-1] * 3.6)
    axes.set_xticks([0.01, 0.1], ["0.01", "0.1"])
    axes.set_yticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.set_xlabel(f"KL of a step, in nats (horizon {AT_HORIZON})")
    axes.set_ylabel("bias, relative to the gradient")
    axes.text(
        x[0],
        0.0068,
        "no bias at any distance: per decision, trajectory, doubly robust, balance heuristic",
        color=svg.ACCENT,
    )


def paint_deviation(axes: "Axes", grid: list[Cell]) -> None:
    ends = []
    for line in DEVIATION_LINES:
        x, y = [], []
        for horizon in (*ENUMERATED, *LONGER):
            some = [c for c in grid if c.problem.distance == AT_DISTANCE and c.horizon == horizon]
            if line.name in some[0].found:
                x.append(horizon)
                y.append(mean(c.found[line.name].deviation for c in some))
        axes.plot(x, y, linestyle=line.style, color=line.colour)
        if x[-1] == LONGER[-1]:
            ends.append((y[-1], line))
        else:
            axes.annotate(
                line.label, (x[-1], y[-1]), xytext=(4, 6), textcoords="offset points",
                color=line.colour, ha="center",
            )  # fmt: skip
    spread_labels(axes, ends, LONGER[-1], 0.115)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, 160)
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.set_xlabel("horizon, in steps (KL of each 0.1 nats)")
    axes.set_ylabel("standard deviation of one episode's gradient")


EDGES = (1.0, 1.1, 1.5, 3.0, 10.0, 100.0, 1e4, math.inf)
COLUMNS = ("below 1.1", "to 1.5", "to 3", "to 10", "to 100", "to 10,000", "above")
SHADES = {
    "per_decision": ("exact", svg.ACCENT, 0.04),
    at("per_decision", 50): ("50", svg.ACCENT, 0.12),
    at("per_decision", math.sqrt(1000) / 2): ("16", svg.ACCENT, 0.2),
    at("per_decision", 5): ("5", svg.ACCENT, 0.29),
    at("per_decision", 2): ("2", svg.ACCENT, 0.36),
    at("per_decision", math.sqrt(10) / 2): ("1.6", svg.ACCENT, 0.43),
    at("per_decision", 1): ("1", svg.ACCENT, 0.5),
    "step": ("step", svg.CONTRAST, 0.38),
}
"""From the loosest bound to the tightest: its label, colour and opacity."""
TIE = 1.01


def paint_winners(axes: "Axes", grid: list[Cell]) -> None:
    from matplotlib.patches import Rectangle

    for column, (low, high) in enumerate(itertools.pairwise(EDGES)):
        some = [c for c in grid if low <= c.second_moment < high]
        for row, episodes in enumerate(BATCHES):
            errors = {name: mean(c.found[name].error(episodes) for c in some) for name in SHADES}
            least = min(errors.values())
            best = next(name for name, error in errors.items() if error <= TIE * least)
            label, colour, alpha = SHADES[best]
            axes.add_patch(
                Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, color=colour, alpha=alpha,
                          linewidth=0)
            )  # fmt: skip
            axes.text(
                column + 0.5, row + 0.6, label, color=svg.INK, ha="center", va="center",
                fontsize=15,
            )  # fmt: skip
            axes.text(
                column + 0.5, row + 0.25, f"error {errors[best]:.2f}", color=svg.INK,
                ha="center", va="center", fontsize=10,
            )  # fmt: skip
    axes.set_xlim(0, len(COLUMNS))
    axes.set_ylim(0, len(BATCHES))
    axes.set_xticks([i + 0.5 for i in range(len(COLUMNS))], COLUMNS)
    axes.set_yticks([i + 0.5 for i in range(len(BATCHES))], [f"{n:,}" for n in BATCHES])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("E[W²]: episodes over effective sample size, at the last time")
    axes.set_ylabel("episodes")


PICTURES = {
    "bias": (paint_bias, "Relative bias of each estimator over the distance of the policies."),
    "deviation": (paint_deviation, "Standard deviation of each estimator over the horizon."),
    "winners": (
        paint_winners,
        "Where to truncate per-decision weights, by number of episodes and second moment.",
    ),
}


def known(seed_and_distance: tuple[int, float]) -> tuple[list[Cell], list[Verdict]]:
    """One process's work."""
    torch.set_num_threads(1)
    some = cells(*seed_and_distance)
    judged = [c for c in some if c.horizon in JUDGED]
    return some, [verdict(c, episodes) for c in judged for episodes in BATCHES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--problems", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write which-weight.csv and the pictures here")
    arguments = parser.parse_args()

    jobs = list(itertools.product(arguments.problems, DISTANCES))
    context = get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        found = list(pool.map(known, jobs))
    grid = [cell for some, _ in found for cell in some]
    print_table(grid, 0.35, AT_HORIZON)
    print_rule([v for _, verdicts in found for v in verdicts])
    if arguments.out:
        write(grid, arguments.out)


def write(grid: list[Cell], folder: Path) -> None:
    write_csv(grid, folder / "which-weight.csv")
    for name, (paint, label) in PICTURES.items():
        picture = svg.draw(
            partial(paint, grid=grid), name=name, label=label, width=WIDTH, height=HEIGHT
        )
        path = folder / f"which-weight-{name}.svg"
        path.write_text(svg.standalone(picture, width=WIDTH, height=HEIGHT), encoding="utf-8")


if __name__ == "__main__":
    main()
