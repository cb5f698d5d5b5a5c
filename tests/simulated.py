"""Problems with known values: what they are made of, and how logs of them are sampled.

`problems.py` holds the problems themselves, `exact.py` the variances that estimators have on them.
Policies are of our own making; a log is sampled with all episodes side by side.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from reweigh.acting.tabular import TabularPolicy
from reweigh.data import ArraySpec, Trajectories, TrajectorySchema


def tabular_policy(probabilities: np.ndarray) -> TabularPolicy:
    """The policy with the given probabilities `[O, A]`, of observations that are numbers."""
    observations, actions = probabilities.shape
    policy = TabularPolicy((observations,), (), (actions,))
    with np.errstate(divide="ignore"), torch.no_grad():
        policy.logits.copy_(torch.from_numpy(np.log(probabilities)))
    return policy


class GaussianPolicy(nn.Module):
    """`π(a|x) = Normal(K x, σ²)` over observations `[B, states]` float64."""

    def __init__(self, gain: np.ndarray, deviation: float):
        super().__init__()
        self.gain = nn.Parameter(torch.from_numpy(gain))
        self.deviation = deviation

    def forward(self, observations: Tensor) -> Independent:
        """An Independent Normal with batch shape `[B]` and event shape `[actions]`."""
        normal = Normal(observations @ self.gain.T, self.deviation, validate_args=False)
        return Independent(normal, 1, validate_args=False)


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem with `S` states and `A` actions, and two policies of it.

    Each pair of state and action has `K` outcomes; an outcome in state `S` ends the episode. One
    that has not ended after `horizon` steps is truncated.
    """

    name: str
    start: np.ndarray
    """`[S]`: chances of the first state."""
    outcomes: np.ndarray
    """`[S, A, K]` int64: the next state, `S` where the episode terminates."""
    chances: np.ndarray
    """`[S, A, K]`: of each outcome."""
    rewards: np.ndarray
    """`[S, A, K]`: with each outcome."""
    observed: np.ndarray
    """`[S + 1]` int64: the number that a policy sees of a state, the end included."""
    behaviour: np.ndarray
    """`[O, A]`: probabilities of the policy that samples the logs."""
    target: np.ndarray
    """`[O, A]`: of the policy that is evaluated."""
    horizon: int
    discount: float = 1.0

    @property
    def schema(self) -> TrajectorySchema:
        """What a log of it looks like."""
        observations, actions = self.target.shape
        seen, done = ArraySpec("int64", (), (observations,)), ArraySpec("int64", (), (actions,))
        return TrajectorySchema(self.name, seen, done, discrete_actions=True)

    @property
    def states_are_seen(self) -> bool:
        """Whether a policy can tell all states apart."""
        return len(np.unique(self.observed[:-1])) == len(self.start)

    def policy(self) -> TabularPolicy:
        """The target."""
        return tabular_policy(self.target)

    def behaviour_policy(self) -> TabularPolicy:
        """The behaviour."""
        return tabular_policy(self.behaviour)

    def value(self) -> float:
        """`E_θ[Σ_t γ^t r_t]` of the target, exact."""
        return self.value_of(self.target)

    def behaviour_value(self) -> float:
        """The same of the behaviour."""
        return self.value_of(self.behaviour)

    def value_of(self, probabilities: np.ndarray) -> float:
        """The value of a policy `[O, A]`, by backward induction."""
        chosen = probabilities[self.observed[:-1]]
        value = np.zeros(len(self.start) + 1)
        for _ in range(self.horizon):
            future = self.rewards + self.discount * value[self.outcomes]
            value[:-1] = np.einsum("sa,sak,sak->s", chosen, self.chances, future)
        return float(self.start @ value[:-1])

    def best(self) -> np.ndarray:
        """`[O, A]`: the best of the policies without chance, of which there must be few."""
        one_hot = np.eye(self.target.shape[1])
        live = np.unique(self.observed[:-1])
        policies = []
        for choice in product(range(len(one_hot)), repeat=len(live)):
            policies.append(self.target.copy())
            policies[-1][live] = one_hot[list(choice)]
        return max(policies, key=self.value_of)

    @cached_property
    def _cumulative(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the behaviour's actions, and of the outcomes."""
        return _cumulative(self.behaviour), _cumulative(self.chances)

    def sample(self, episodes: int, *, seed: int) -> Trajectories:
        """A log of the behaviour; it grows by whole episodes, one reset with each seed number."""
        rng = np.random.default_rng(seed)
        actions_by, outcomes_by = self._cumulative
        shape = (self.horizon, episodes)
        seen, done = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        rewards, alive = np.zeros(shape), np.zeros(shape, dtype=bool)
        state = _draw(rng, np.broadcast_to(np.cumsum(self.start), (episodes, len(self.start))))
        final, who = np.empty(episodes, dtype=np.int64), np.arange(episodes)
        for t in range(self.horizon):
            seen[t, who], alive[t, who] = self.observed[state], True
            action = _draw(rng, actions_by[self.observed[state]])
            outcome = state, action, _draw(rng, outcomes_by[state, action])
            done[t, who], rewards[t, who] = action, self.rewards[outcome]
            final[who] = self.outcomes[outcome]
            goes_on = final[who] < len(self.start)
            who, state = who[goes_on], final[who][goes_on]
        log_probs = np.log(self.behaviour[seen.T[alive.T], done.T[alive.T]])
        return _log(
            alive, seen.T, done.T, rewards, log_probs, self.observed[final],
            terminated=final == len(self.start),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    """`x' = A x + B a + w`, `r = -x'Q x - a'R a`; x₀ and w normal, policies linear and normal.

    The value follows from the Riccati recursion with the gain held fixed (Bertsekas 2017, volume I,
    section 3.1): `V_t(x) = -x'P_t x - c_t` with `M = A + B K`,
    `P_t = Q + K'R K + γ M'P_{t+1} M` and `c_t = σ² tr(R + γ B'P_{t+1} B) + γ (s² tr P_{t+1} +
    c_{t+1})`.
    """

    name: str
    a: np.ndarray
    b: np.ndarray
    q: np.ndarray
    r: np.ndarray
    noise: float
    """s, deviation of each number of w."""
    start: float
    """Deviation of each number of x₀."""
    behaviour: np.ndarray
    """K of the behaviour, `[actions, states]`."""
    target: np.ndarray
    deviation: float
    """σ of both policies."""
    horizon: int
    discount: float = 1.0

    @property
    def schema(self) -> TrajectorySchema:
        """What a log of it looks like."""
        actions, states = self.target.shape
        seen, done = ArraySpec("float64", (states,)), ArraySpec("float64", (actions,))
        return TrajectorySchema(self.name, seen, done, discrete_actions=False)

    def policy(self) -> GaussianPolicy:
        """The target."""
        return GaussianPolicy(self.target, self.deviation)

    def behaviour_policy(self) -> GaussianPolicy:
        """The behaviour."""
        return GaussianPolicy(self.behaviour, self.deviation)

    def value(self) -> float:
        """`E_θ[Σ_t γ^t r_t]` of the target, exact."""
        return self.value_of(self.target)

    def behaviour_value(self) -> float:
        """The same of the behaviour."""
        return self.value_of(self.behaviour)

    def value_of(self, gain: np.ndarray) -> float:
        """The value of a gain `[actions, states]`."""
        p, c, moves = np.zeros_like(self.q), 0.0, self.a + self.b @ gain
        for _ in range(self.horizon):
            acting = self.deviation**2 * np.trace(self.r + self.discount * self.b.T @ p @ self.b)
            c = acting + self.discount * (self.noise**2 * np.trace(p) + c)
            p = self.q + gain.T @ self.r @ gain + self.discount * moves.T @ p @ moves
        return float(-(self.start**2) * np.trace(p) - c)

    def sample(self, episodes: int, *, seed: int) -> Trajectories:
        """A log of the behaviour."""
        rng = np.random.default_rng(seed)
        actions, states = self.behaviour.shape
        x = self.start * rng.standard_normal((episodes, states))
        steps = []
        for _ in range(self.horizon):
            z = rng.standard_normal((episodes, actions))
            action = x @ self.behaviour.T + self.deviation * z
            reward = -((x @ self.q) * x).sum(1) - ((action @ self.r) * action).sum(1)
            log_prob = -(z**2 / 2 + np.log(self.deviation * np.sqrt(2 * np.pi))).sum(1)
            steps.append((x, action, reward, log_prob))
            disturbed = self.noise * rng.standard_normal((episodes, states))
            x = x @ self.a.T + action @ self.b.T + disturbed
        seen, done, rewards, log_probs = (np.stack(column) for column in zip(*steps, strict=True))
        return _log(
            np.ones(rewards.shape, dtype=bool), seen.swapaxes(0, 1), done.swapaxes(0, 1), rewards,
            log_probs.T.ravel(), x, terminated=np.zeros(episodes, dtype=bool),
        )  # fmt: skip


def _cumulative(chances: np.ndarray) -> np.ndarray:
    total = chances.cumsum(-1)
    return total / total[..., -1:]


def _draw(rng: np.random.Generator, cumulative: np.ndarray) -> np.ndarray:
    """One index for each row of cumulative chances; none of chance 0."""
    return (cumulative <= rng.random(len(cumulative))[:, None]).sum(1)


def _log(alive, observations, actions, rewards, log_probs, final, *, terminated) -> Trajectories:
    """Packs `[episodes, horizon]` observations and actions, `[horizon, episodes]` rewards."""
    episodes, taken = alive.shape[1], alive.T
    return Trajectories(
        observations=observations[taken],
        actions=actions[taken],
        rewards=rewards.T[taken],
        log_prob_behaviour=log_probs,
        lengths=taken.sum(1),
        final_observations=final,
        terminated=terminated,
        truncated=~terminated,
        policy_version=np.zeros(episodes, dtype=np.int64),
        episode=np.arange(episodes),
        seed=np.arange(episodes),
        time_start=np.zeros(episodes, dtype=np.int64),
    )
