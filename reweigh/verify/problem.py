"""A tabular decision process of which everything is known, in NumPy loops: the independent path.

Nothing here is shared with the library: `verify` holds the recipes to what this file computes.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """A Markov decision process of `S` states, `A` actions and a horizon, after which all is 0."""

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
