"""A tabular decision process with exact values and gradients in NumPy: the independent path.

This file shares no code with the library, so that `verify` can hold the recipes to its numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Trajectory:
    """One of the trajectories that a problem can produce."""

    states: tuple[int, ...]
    """`T + 1` states; the last one is the state after the last step."""
    actions: tuple[int, ...]
    """`T` actions."""
    rewards: tuple[float, ...]
    """`T` rewards."""
    probability: float
    """Of the first state and of every transition, given the actions."""


@dataclass(frozen=True)
class Problem:
    """A Markov decision process of `S` states and `A` actions that ends after `horizon` steps."""

    name: str
    horizon: int
    discount: float
    initial: Array
    """`[S]`: probability of starting there."""
    transition: Array
    """`[S, A, S]`: probability of the next state."""
    reward: Array
    """`[S, A, S]`."""
    terminal: Array
    """`[S]` bool: entering the state ends the episode."""

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        states: int,
        actions: int,
        horizon: int,
        discount: float,
        terminal_states: int = 0,
    ) -> "Problem":
        """A problem with flat Dirichlet distributions of states and standard normal rewards.

        The last `terminal_states` states are terminal, and no episode begins in one.
        """
        rng = np.random.default_rng(seed)
        terminal = np.arange(states) >= states - terminal_states
        initial = np.zeros(states)
        initial[~terminal] = rng.dirichlet(np.ones(states - terminal_states))
        return cls(
            name=f"random-{seed}",
            horizon=horizon,
            discount=discount,
            initial=initial,
            transition=rng.dirichlet(np.ones(states), (states, actions)),
            reward=rng.standard_normal((states, actions, states)),
            terminal=terminal,
        )

    @classmethod
    def tiny(cls) -> "Problem":
        """Two steps: action 0 goes on with chance 1/2, action 1 ends; rewards are 1 and 3."""
        transition = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
        reward = np.zeros((2, 2, 2))
        reward[0, 0], reward[0, 1] = 1.0, 3.0
        terminal = np.array([False, True])
        return cls("tiny", 2, 0.5, np.array([1.0, 0.0]), transition, reward, terminal)

    def policy(self, logits: Array) -> Array:
        """Probabilities `[S, A]` of a softmax policy."""
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def values(self, policy: Array) -> tuple[Array, Array]:
        """`V [H + 1, S]` and `Q [H, S, A]` of a policy, by backward induction."""
        states, actions = policy.shape
        values = np.zeros((self.horizon + 1, states))
        action_values = np.zeros((self.horizon, states, actions))
        for t in reversed(range(self.horizon)):
            for s in np.flatnonzero(~self.terminal):
                for a in range(actions):
                    following = self.reward[s, a] + self.discount * values[t + 1]
                    action_values[t, s, a] = self.transition[s, a] @ following
                values[t, s] = policy[s] @ action_values[t, s]
        return values, action_values

    def visits(self, policy: Array) -> Array:
        """`[H, S]`: probability of being alive in a state at a time, undiscounted."""
        visits = np.zeros((self.horizon, len(self.initial)))
        visits[0] = np.where(self.terminal, 0.0, self.initial)
        for t in range(self.horizon - 1):
            for s in np.flatnonzero(~self.terminal):
                visits[t + 1] += visits[t, s] * policy[s] @ self.transition[s]
            visits[t + 1, self.terminal] = 0.0
        return visits

    def value(self, policy: Array) -> float:
        """`J`: the expected discounted return of a policy."""
        return float(self.initial @ self.values(policy)[0][0])

    def policy_gradient(
        self, target_logits: Array, *, visits: Array, continues: Array, discounted: bool
    ) -> Array:
        """`Σ_t γ^t Σ_s d_t(s) Σ_a ∇π_θ(a|s) Q_t(s, a)`, `[S, A]`, in the target's logits.

        Args:
            target_logits: `[S, A]`, of `π_θ`.
            visits: Policy `[S, A]` whose visits are `d`.
            continues: Policy `[S, A]` whose action values are `Q`.
            discounted: Whether the factor `γ^t` is there.
        """
        policy, occupied = self.policy(target_logits), self.visits(visits)
        action_values = self.values(continues)[1]
        gradient = np.zeros_like(policy)
        for t in range(self.horizon):
            factor = self.discount**t if discounted else 1.0
            for s in range(len(policy)):
                # ∂π(a)/∂logit(b) = π(a) (1[a = b] - π(b))
                advantage = action_values[t, s] - policy[s] @ action_values[t, s]
                gradient[s] += factor * occupied[t, s] * policy[s] * advantage
        return gradient

    def trajectories(self, horizon: int | None = None) -> list[Trajectory]:
        """Every trajectory of positive probability, cut after `horizon` steps (default: all)."""
        steps = self.horizon if horizon is None else horizon
        starts = np.flatnonzero((self.initial > 0) & ~self.terminal)
        return [
            trajectory
            for s in starts.tolist()
            for trajectory in self._continued(
                Trajectory((s,), (), (), float(self.initial[s])), steps
            )
        ]

    def _continued(self, start: Trajectory, steps: int) -> Iterator[Trajectory]:
        """Every trajectory that begins with `start` and takes up to `steps` more steps."""
        state = start.states[-1]
        if steps == 0 or self.terminal[state]:
            yield start
            return
        for action in range(self.transition.shape[1]):
            chances, rewards = self.transition[state, action], self.reward[state, action]
            for following in np.flatnonzero(chances).tolist():
                longer = Trajectory(
                    (*start.states, following),
                    (*start.actions, action),
                    (*start.rewards, float(rewards[following])),
                    start.probability * float(chances[following]),
                )
                yield from self._continued(longer, steps - 1)
