"""Exact variances of estimators on a `Problem`, by recursions over its states.

`n` times the variance of a mean of `n` episodes, and, for self-normalised estimators, the limit of
`n` times their mean squared error (the delta method: the variance of the linearised terms).
"""

from dataclasses import dataclass

import numpy as np
from simulated import Problem


def variances(problem: Problem) -> dict[str, float]:
    """`n Var` by the estimator's name; of the self-normalised ones in the limit.

    `doubly_robust` is that with the true action values, the least that an estimator can have which
    knows nothing of the states but their order (Jiang and Li 2016, theorem 2); `marginal` the least
    that one can have which knows them as states (Kallus and Uehara 2020, theorem 3). Both are left
    out where a policy cannot tell the states apart.
    """
    model = Model.of(problem)
    value, squares = model.value, model.trajectory_squares()
    by_estimator = {
        "behaviour": model.variance(on_policy=True),
        "importance_sampling": squares[2] - value**2,
        "per_decision": model.variance(),
        "weighted_importance_sampling": squares[2] - 2 * value * squares[1] + value**2 * squares[0],
        "weighted_per_decision": model.variance(centred=True),
    }
    if problem.states_are_seen:
        by_estimator |= {"doubly_robust": model.doubly_robust(), "marginal": model.marginal()}
    return by_estimator


@dataclass(frozen=True, eq=False)
class Model:
    """A problem with one state more, the end, in which nothing happens for ever."""

    start: np.ndarray
    """`[S + 1]`."""
    outcomes: np.ndarray
    chances: np.ndarray
    rewards: np.ndarray
    """`[S + 1, A, K]`."""
    target: np.ndarray
    behaviour: np.ndarray
    """`[S + 1, A]`: by state, whatever a policy sees of it."""
    horizon: int
    discount: float

    @classmethod
    def of(cls, problem: Problem) -> "Model":
        """The same problem; beyond the end both policies are alike."""

        def prolonged(x: np.ndarray, last: float) -> np.ndarray:
            return np.concatenate([x, np.full((1, *x.shape[1:]), last, dtype=x.dtype)])

        states, actions, outcomes = problem.outcomes.shape
        policies = [
            prolonged(policy[problem.observed[:-1]], 1 / actions)
            for policy in (problem.target, problem.behaviour)
        ]
        return cls(
            np.append(problem.start, 0.0),
            prolonged(problem.outcomes, states),
            prolonged(problem.chances, 1 / outcomes),
            prolonged(problem.rewards, 0.0),
            *policies,
            problem.horizon,
            problem.discount,
        )

    @property
    def squared(self) -> np.ndarray:
        """`[S + 1, A]`: `b ρ² = π² / b`."""
        never = self.behaviour == 0
        return np.where(never, 0.0, self.target**2 / np.where(never, 1.0, self.behaviour))

    def flow(self, policy: np.ndarray) -> np.ndarray:
        """`[horizon, S + 1]`: chances to be in each state at each time."""
        mass = [self.start]
        for _ in range(self.horizon - 1):
            moved = mass[-1][:, None, None] * policy[:, :, None] * self.chances
            mass.append(np.bincount(self.outcomes.ravel(), moved.ravel(), len(self.start)))
        return np.stack(mass)

    @property
    def mean_rewards(self) -> np.ndarray:
        """`[horizon]`: `E_θ[γ^t r_t]`."""
        mean = (self.target * (self.chances * self.rewards).sum(2)).sum(1)
        return self.flow(self.target) @ mean * self.discount ** np.arange(self.horizon)

    @property
    def value(self) -> float:
        """`E_θ[Σ_t γ^t r_t]`, by the flow."""
        return float(self.mean_rewards.sum())

    def variance(self, *, on_policy: bool = False, centred: bool = False) -> float:
        """`Var Σ_t w_t (γ^t r_t - shift_t)`: of returns, of per-decision terms, of the linearised.

        Args:
            on_policy: All weights are 1: the variance of the logged return.
            centred: The shift is `E_θ[γ^t r_t]`, also where an episode has ended.
        """
        policy, squared = self.target, self.squared
        if on_policy:
            policy = squared = self.behaviour
        shifts = self.mean_rewards if centred else np.zeros(self.horizon)
        first = second = np.zeros(len(self.start))
        for t in reversed(range(self.horizon)):
            gained = self.discount**t * self.rewards - shifts[t]
            after, after_squared = first[self.outcomes], second[self.outcomes]
            first = _mean(policy, self.chances, gained + after)
            second = _mean(squared, self.chances, gained * (gained + 2 * after) + after_squared)
        return float(self.start @ second - (self.start @ first) ** 2)

    def trajectory_squares(self) -> tuple[float, float, float]:
        """`E_b[W²]`, `E_b[W² G]` and `E_b[W² G²]`."""
        weight = np.ones(len(self.start))
        once = twice = np.zeros(len(self.start))
        for t in reversed(range(self.horizon)):
            gained = self.discount**t * self.rewards
            w, g, g2 = (x[self.outcomes] for x in (weight, once, twice))
            weight = _mean(self.squared, self.chances, w)
            once = _mean(self.squared, self.chances, gained * w + g)
            twice = _mean(self.squared, self.chances, gained * (gained * w + 2 * g) + g2)
        return tuple(float(self.start @ x) for x in (weight, once, twice))

    def doubly_robust(self) -> float:
        """`Var` of `D_t = V_t + ρ_t (r_t + γ D_{t+1} - Q_t)` at the start, V and Q being exact."""
        value = second = np.zeros(len(self.start))
        for _ in range(self.horizon):
            after, after_squared = value[self.outcomes], second[self.outcomes]
            q = (self.chances * (self.rewards + self.discount * after)).sum(2)
            left = self.rewards - q[:, :, None]
            squares = left * (left + 2 * self.discount * after) + self.discount**2 * after_squared
            value = (self.target * q).sum(1)
            second = value**2 + _mean(self.squared, self.chances, squares)
        return float(self.start @ second - (self.start @ value) ** 2)

    def marginal(self) -> float:
        """`Var V_0(s_0) + Σ_t E_b[(γ^t m_t ρ_t)² Var(r_t + γ V_{t+1})]`, m the ratio of flows."""
        flows = self.flow(self.target), self.flow(self.behaviour)
        value, total = np.zeros(len(self.start)), 0.0
        for t in reversed(range(self.horizon)):
            future = self.rewards + self.discount * value[self.outcomes]
            q = (self.chances * future).sum(2)
            spread = (self.chances * (future - q[:, :, None]) ** 2).sum(2)
            never = flows[1][t] == 0
            squared_flow = np.where(never, 0.0, flows[0][t] ** 2 / np.where(never, 1, flows[1][t]))
            total += self.discount ** (2 * t) * squared_flow @ (self.squared * spread).sum(1)
            value = (self.target * q).sum(1)
        return float(total + self.start @ value**2 - (self.start @ value) ** 2)


def _mean(policy: np.ndarray, chances: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Over actions and outcomes, `[S + 1]`."""
    return np.einsum("sa,sak,sak->s", policy, chances, x)
