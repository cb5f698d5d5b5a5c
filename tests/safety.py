"""How often `learn` claims an improvement: over simulated logs of problems whose values are known.

Where no policy is better than the behaviour (`alike`, `optimal`, `lottery`), every claim is false.
Where the best is a fifth better (`improvable`, `success`), a claim counts as true if the policy
that is given out is worth more than the behaviour, by dynamic programming.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from problems import alike, improvable
from simulated import Problem

from reweigh.learning.config import LearnConfig
from reweigh.learning.learn import Learnt, learn


def optimal(seed: int = 1, *, horizon: int = 5, seldom: float = 1e-4) -> Problem:
    """Ours: the behaviour is the best policy there is, and others look better by chance.

    Three states at each of five times, four actions. The first two are the best by dynamic
    programming and worth the same, but the second pays 4 now and then and a little less otherwise.
    The others are worth half a unit less, and the behaviour takes them once in 10,000 steps.
    """
    rng = np.random.default_rng(seed)
    states, actions = 3 * horizon, 4
    chances = np.repeat(rng.dirichlet(np.ones(3), (states, actions)), 2, axis=2)
    chances *= np.tile([0.9, 0.1], 3)
    later = np.repeat(np.arange(states) // 3 + 1, 3).reshape(states, 1, 3)
    outcomes = np.minimum(3 * later + np.arange(3), states)
    outcomes = np.repeat(np.broadcast_to(outcomes, (states, actions, 3)), 2, axis=2)
    rewards = np.zeros((states, actions, 6))
    rewards[:, 1] += np.tile([-4 / 9, 4.0], 3)
    rewards += rng.standard_normal((states, 1, 1))
    value = np.zeros(states + 1)
    for state in reversed(range(states)):
        worth = (chances[state] * (rewards[state] + value[outcomes[state]])).sum(1)
        rewards[state] += (worth[0] - worth - [0.0, 0.0, 0.5, 0.5])[:, None]
        value[state] = worth[0]
    behaviour = np.full((states + 1, actions), seldom / 2)
    behaviour[:, :2] = (1 - seldom) / 2
    return Problem(
        name="Optimal",
        start=np.append(np.full(3, 1 / 3), np.zeros(states - 3)),
        outcomes=outcomes,
        chances=chances,
        rewards=rewards,
        observed=np.arange(states + 1),
        behaviour=behaviour,
        target=behaviour,
        horizon=horizon,
    )


def lottery(*, seldom: float = 1e-4) -> Problem:
    """Ours: half of the episodes pay 1, the others 0, and nothing that is done changes it.

    One step; the policy sees which it will be. One of two actions is all but never taken: a policy
    that takes it where nothing is paid has weights of 0 there, and to an estimate that is
    normalised by its weights it looks twice as good.
    """
    behaviour = np.repeat([[1 - seldom, seldom]], 3, axis=0)
    return Problem(
        name="Lottery",
        start=np.array([0.5, 0.5]),
        outcomes=np.full((2, 2, 1), 2),
        chances=np.ones((2, 2, 1)),
        rewards=np.array([[[1.0], [1.0]], [[0.0], [0.0]]]),
        observed=np.arange(3),
        behaviour=behaviour,
        target=behaviour,
        horizon=1,
    )


def success(seed: int = 1, *, gain: float = 0.2, horizon: int = 10) -> Problem:
    """Ours: an episode is a success, worth 1, or a failure, and the best policy has a fifth more.

    Five states, three actions, each of which ends the episode in success or failure by up to 0.3
    each. The behaviour is the best policy with a share of random actions, as in `improvable`.
    """
    rng = np.random.default_rng(seed)
    states, actions = 5, 3
    wins, fails = (0.3 * rng.random((states, actions, 1)) for _ in range(2))
    goes_on = rng.dirichlet(np.ones(states), (states, actions)) * (1 - wins - fails)
    rewards = np.zeros((states, actions, states + 2))
    rewards[:, :, states] = 1.0
    even = np.full((states + 1, actions), 1 / actions)
    problem = Problem(
        name="Success",
        start=rng.dirichlet(np.ones(states)),
        outcomes=np.broadcast_to([*range(states), states, states], rewards.shape),
        chances=np.concatenate([goes_on, wins, fails], 2),
        rewards=rewards,
        observed=np.arange(states + 1),
        behaviour=even,
        target=even,
        horizon=horizon,
    )
    return worsened(problem, gain=gain)


def worsened(problem: Problem, *, gain: float) -> Problem:
    """The same problem, with random actions so often the best is worth `1 + gain` times that."""
    best = problem.best()
    goal, low, high = problem.value_of(best) / (1 + gain), 0.0, 1.0

    def mixture(share: float) -> np.ndarray:
        return (1 - share) * best + share / best.shape[1]

    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if problem.value_of(mixture(middle)) > goal else (low, middle)
    return replace(problem, behaviour=mixture(low), target=best)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "alike": alike,
    "optimal": optimal,
    "lottery": lottery,
    "improvable": improvable,
    "success": success,
}
EVERY_CLAIM_IS_FALSE = ("alike", "optimal", "lottery")


@dataclass(frozen=True)
class Case:
    """What came of one log."""

    shown: bool
    gain: float
    """What the tested policy is worth more than the behaviour, exactly; 0 if none was tested."""
    reason: str
    epochs: int


def case(problem: Problem, config: LearnConfig, episodes: int, seed: int) -> Case:
    """What comes of learning from one log."""
    torch.set_num_threads(1)
    log = problem.sample(episodes, seed=seed)
    config = replace(config, seed=seed, discount=problem.discount)
    learnt = learn(log, problem.behaviour_policy(), config=config)
    gain = 0.0
    if learnt.candidate is not None:
        gain = problem.value_of(probabilities(learnt, problem)) - problem.behaviour_value()
    return Case(learnt.shown, gain, reason(learnt), len(learnt.progress))


def probabilities(learnt: Learnt, problem: Problem) -> np.ndarray:
    """Of the policy that was tested, `[O, A]`."""
    assert learnt.candidate is not None
    with torch.no_grad():
        return learnt.candidate(torch.arange(len(problem.behaviour))).probs.double().numpy()


def reason(learnt: Learnt) -> str:
    """Why there is no claim, in a word."""
    compared = learnt.comparison
    if learnt.shown:
        return "shown"
    if compared is None:
        return "nothing to test"
    return "not above 0" if not compared.gain.estimate.low > 0 else "not believable"


def cases(
    problem: Problem, config: LearnConfig, *, episodes: int, logs: int, processes: int
) -> Iterator[Case]:
    """What comes of each of many logs."""
    one = partial(case, problem, config, episodes)
    if processes == 1:
        yield from map(one, range(logs))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, range(logs), chunksize=4)
