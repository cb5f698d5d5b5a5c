"""Finite-horizon problems whose values are known exactly: the ground that the proof stands on.

    problem = PROBLEMS["ending"]()
    log = problem.sample(500, seed=0)                  # Trajectories, with exact log-probabilities
    problem.value(), problem.behaviour_value()         # by dynamic programming
    problem.policy(), problem.behaviour_policy()       # modules: for evaluation, to learn from

Dynamics follow the papers that are named; the policies are of our own making, and logs are sampled
here. Where a paper's horizon is endless, ours is finite: an episode is truncated at its end.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from simulated import LinearQuadratic, Problem


def model_win(*, horizon: int = 20) -> Problem:
    """ModelWin of Thomas and Brunskill 2016 (appendix on domains): a model wins here.

    Three states. In the first, action 0 leads to the second with chance 0.4 and to the third with
    0.6, action 1 the other way round; the reward is 1 on entering the second, -1 on entering the
    third. Both lead back, whatever is done there, with reward 0. Truncated after 20 steps.
    Behaviour 0.73 and 0.27 in the first state, the target the other way round; even elsewhere.
    """
    outcomes = np.array([[[1, 2], [1, 2]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    chances = np.array([[[0.4, 0.6], [0.6, 0.4]], [[1, 0], [1, 0]], [[1, 0], [1, 0]]])
    rewards = np.zeros((3, 2, 2))
    rewards[0] = [1, -1]
    even = [[0.5, 0.5], [0.5, 0.5]]
    return Problem(
        name="ModelWin",
        start=np.array([1.0, 0, 0]),
        outcomes=outcomes,
        chances=chances,
        rewards=rewards,
        observed=np.array([0, 1, 2, 0]),
        behaviour=np.array([[0.73, 0.27], *even]),
        target=np.array([[0.27, 0.73], *even]),
        horizon=horizon,
    )


def model_fail() -> Problem:
    """ModelFail of Thomas and Brunskill 2016 (appendix on domains): a model of what is seen fails.

    Two steps. Action 0 leads to the upper state, action 1 to the lower; from there every action
    ends the episode, with reward 1 from the upper and -1 from the lower. A policy sees the same
    number in all states. Behaviour 0.88 and 0.12, the target the other way round: its value is
    -0.76, and one episode in seventy weighs more than fifty.
    """
    return Problem(
        name="ModelFail",
        start=np.array([1.0, 0, 0]),
        outcomes=np.array([[[1], [2]], [[3], [3]], [[3], [3]]]),
        chances=np.ones((3, 2, 1)),
        rewards=np.array([[[0.0], [0]], [[1], [1]], [[-1], [-1]]]),
        observed=np.array([0, 0, 0, 0]),
        behaviour=np.array([[0.88, 0.12]]),
        target=np.array([[0.12, 0.88]]),
        horizon=2,
    )


def taxi(*, horizon: int = 30, mixed: float = 0.1, discount: float = 0.99) -> Problem:
    """The endless taxi of Liu et al. 2018 (section 5.1), cut after `horizon` steps: 2000 states.

    A 5 x 5 grid without walls; at each of its corners a passenger may wait (16 cases); the taxi is
    empty or drives to one of the corners (5). Actions: a step in each of four directions, pick up,
    drop off. A pick-up where someone waits fills the taxi, with one of the other corners as its
    destination; a drop-off empties it, with reward 20 at the destination; all else costs 1. After
    each step passengers come with chances 0.3, 0.05, 0.1 and 0.2, and leave with 0.05, 0.1, 0.1 and
    0.05. Starts empty, with place and passengers at random. (Chances as in the authors' published
    simulation.)

    The target is the softmax of the optimal action values at discount 0.95; the behaviour takes a
    random action instead in a share `mixed` of its steps.
    """
    shape = (5, 5, 16, 5, 6)
    x, y, waiting, taxi, action = (axis.ravel() for axis in np.indices(shape))
    corner = np.select(
        [(x == i) & (y == j) for i, j in ((0, 0), (0, 4), (4, 0), (4, 4))], range(4), 4
    )
    x = np.clip(x + (action == 0) - (action == 2), 0, 4)
    y = np.clip(y + (action == 1) - (action == 3), 0, 4)
    # Someone waits at a corner: the taxi that already drives takes the new passenger's destination.
    filled = (action == 4) & (corner < 4) & ((waiting >> np.minimum(corner, 3)) & 1 == 1)
    dropped = (action == 5) & (taxi < 4)
    reward = np.where(dropped & (taxi == corner), 20.0, -1.0)
    waiting = np.where(filled, waiting - (1 << np.minimum(corner, 3)), waiting)
    # A destination for each of three thirds; without a pick-up they are alike.
    third = np.arange(3)
    others = third + (third >= np.minimum(corner, 3)[:, None])
    taxi = np.where(filled[:, None], others, np.where(dropped, 4, taxi)[:, None])
    after = np.arange(16)
    place = (((x * 5 + y)[:, None, None] * 16 + after) * 5) + taxi[:, :, None]
    chances = np.broadcast_to(_passengers()[waiting][:, None] / 3, place.shape)
    outcomes, chances = (part.reshape(2000, 6, 48) for part in (place, chances))
    rewards = np.broadcast_to(reward.reshape(2000, 6, 1), outcomes.shape)
    start = np.zeros((25, 16, 5))
    start[:, :, 4] = 1 / (25 * 16)
    target = _softmax(_optimal(outcomes, chances, rewards, discount=0.95))
    return Problem(
        name="Taxi",
        start=start.ravel(),
        outcomes=outcomes,
        chances=chances,
        rewards=rewards,
        observed=np.append(np.arange(2000), 0),
        behaviour=(1 - mixed) * target + mixed / 6,
        target=target,
        horizon=horizon,
        discount=discount,
    )


def linear_quadratic(*, horizon: int = 10, discount: float = 0.95) -> LinearQuadratic:
    """A linear system with quadratic costs: a mass that is pushed back to where it should be.

    Position and speed, one force, time steps of 0.2, costs `|x|² + 0.1 a²`. The gains lie so near
    to each other that the weights' first four moments exist: with normal states, other gains may
    leave not even a variance.
    """
    return LinearQuadratic(
        name="LinearQuadratic",
        a=np.array([[1.0, 0.2], [0.0, 1.0]]),
        b=np.array([[0.0], [0.2]]),
        q=np.eye(2),
        r=np.array([[0.1]]),
        noise=0.1,
        start=0.5,
        behaviour=np.array([[-0.5, -0.8]]),
        target=np.array([[-0.55, -0.85]]),
        deviation=0.5,
        horizon=horizon,
        discount=discount,
    )


def ending(
    seed: int = 1,
    *,
    states: int = 5,
    actions: int = 3,
    chance: float = 0.3,
    away: float = 0.5,
    horizon: int = 8,
    discount: float = 0.95,
) -> Problem:
    """Ours: a random problem whose episodes terminate at random, or are truncated.

    Transitions and first states from flat Dirichlet distributions, standard normal rewards of each
    transition; each pair of state and action terminates with up to `chance`. Policies are softmax,
    the target's logits the behaviour's plus `away` times a standard normal.
    """
    rng = np.random.default_rng(seed)
    ends = chance * rng.random((states, actions, 1))
    goes_on = rng.dirichlet(np.ones(states), (states, actions)) * (1 - ends)
    logits = rng.standard_normal((states + 1, actions))
    return Problem(
        name="Ending",
        start=rng.dirichlet(np.ones(states)),
        outcomes=np.broadcast_to(np.arange(states + 1), (states, actions, states + 1)),
        chances=np.concatenate([goes_on, ends], 2),
        rewards=rng.standard_normal((states, actions, states + 1)),
        observed=np.arange(states + 1),
        behaviour=_softmax(logits),
        target=_softmax(logits + away * rng.standard_normal(logits.shape)),
        horizon=horizon,
        discount=discount,
    )


def long_chain(*, horizon: int = 400, actions: int = 10, tilt: float = 0.0) -> Problem:
    """Ours: a chain of 400 states with ten actions each, all of which lead on; the last one ends.

    Rewards run from 0.5 for the first action to 1.5 for the last. The behaviour is uniform, and so
    is the target, with a value of 400, unless `tilt` is above 0: probabilities proportional to
    `exp(tilt u)`, u from -1 to 1. A product of 400 probabilities is 10⁻⁴⁰⁰, which no float holds.
    """
    u = np.linspace(-1, 1, actions)
    return Problem(
        name="LongChain",
        start=np.eye(horizon)[0],
        outcomes=np.repeat(np.arange(1, horizon + 1), actions).reshape(horizon, actions, 1),
        chances=np.ones((horizon, actions, 1)),
        rewards=np.tile((1 + u / 2)[:, None], (horizon, 1, 1)),
        observed=np.append(np.arange(horizon), horizon - 1),
        behaviour=np.full((horizon, actions), 1 / actions),
        target=_softmax(np.tile(tilt * u, (horizon, 1))),
        horizon=horizon,
    )


def alike(seed: int = 1) -> Problem:
    """Ours: `ending`, with actions that change nothing. All policies are worth the same."""
    problem = ending(seed)
    return replace(
        problem,
        name="Alike",
        chances=np.repeat(problem.chances[:, :1], problem.chances.shape[1], 1),
        rewards=np.repeat(problem.rewards[:, :1], problem.rewards.shape[1], 1),
    )


def improvable(seed: int = 1, *, gain: float = 0.2, horizon: int = 10) -> Problem:
    """Ours: a problem whose best policy is worth `1 + gain` times what the behaviour is worth.

    As `ending`, without discount and without termination, the rewards uniform between 0 and 1. The
    target is the best policy without chance (`Problem.best`), the behaviour takes a random action
    instead in that share of its steps, found by bisection, which makes it as much worse.
    """
    rng = np.random.default_rng(seed)
    problem = ending(seed, chance=0.0, horizon=horizon, discount=1.0)
    problem = replace(problem, name="Improvable", rewards=rng.random(problem.rewards.shape))
    best = problem.best()
    goal, low, high = problem.value_of(best) / (1 + gain), 0.0, 1.0

    def mixture(share: float) -> np.ndarray:
        return (1 - share) * best + share / best.shape[1]

    if problem.value_of(mixture(1.0)) > goal:
        raise ValueError(
            f"the best policy gains less than {gain:.0%} on random actions: seed={seed}"
        )
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if problem.value_of(mixture(middle)) > goal else (low, middle)
    return replace(problem, behaviour=mixture(low), target=best)


PROBLEMS: dict[str, Callable[..., Problem | LinearQuadratic]] = {
    f.__name__: f
    for f in (
        model_win,
        model_fail,
        taxi,
        linear_quadratic,
        ending,
        long_chain,
        alike,
        improvable,
    )
}


def _passengers() -> np.ndarray:
    """`[16, 16]`: chances of who waits after a step, from who waited before it."""
    comes, leaves = (0.3, 0.05, 0.1, 0.2), (0.05, 0.1, 0.1, 0.05)
    corners = [np.array([[1 - c, c], [g, 1 - g]]) for c, g in zip(comes, leaves, strict=True)]
    before, after = (axis.ravel() for axis in np.indices((16, 16)))
    chances = [move[before >> i & 1, after >> i & 1] for i, move in enumerate(corners)]
    return np.prod(chances, axis=0).reshape(16, 16)


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def _optimal(outcomes, chances, rewards, *, discount: float) -> np.ndarray:
    """Optimal action values of the endless problem, `[S, A]`, by a hundred value iterations."""
    value = np.zeros(len(outcomes))
    immediate = (chances * rewards).sum(2)
    for _ in range(100):
        values = immediate + discount * np.einsum("sak,sak->sa", chances, value[outcomes])
        value = values.max(1)
    return values
