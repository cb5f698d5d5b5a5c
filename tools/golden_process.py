"""A tabular decision process with everything about it computed in plain loops over NumPy arrays.

Tables are `P[s, a, s']` and `R[s, a, s']`; time runs from 0 to H - 1. A state with `terminal[s]`
ends the episode; otherwise it ends at H, where the value is 0.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of the actions in each state."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@dataclass(frozen=True)
class Process:
    """The process without its policies."""

    horizon: int
    discount: float
    first: Array
    """`[S]`: probabilities of the first state."""
    moves: Array
    """`[S, A, S]`: probabilities of the next state."""
    rewards: Array
    """`[S, A, S]`."""
    terminal: Array
    """`[S]` bool."""

    def values(self, policy: Array) -> tuple[Array, Array]:
        """`Q [H, S, A]` and `V [H + 1, S]` of probabilities `[S, A]`."""
        states, actions = policy.shape
        q, v = np.zeros((self.horizon, states, actions)), np.zeros((self.horizon + 1, states))
        for t in range(self.horizon - 1, -1, -1):
            for s in range(states):
                if self.terminal[s]:
                    continue
                for a in range(actions):
                    for n in range(states):
                        gain = self.rewards[s, a, n] + self.discount * v[t + 1, n]
                        q[t, s, a] += self.moves[s, a, n] * gain
                    v[t, s] += policy[s, a] * q[t, s, a]
        return q, v

    def occupancy(self, policy: Array) -> Array:
        """`[H, S]`: probability of being alive at t and in s."""
        states, actions = policy.shape
        mass = np.zeros((self.horizon, states))
        mass[0] = np.where(self.terminal, 0.0, self.first)
        for t in range(self.horizon - 1):
            for s in range(states):
                for a in range(actions):
                    for n in range(states):
                        if not self.terminal[n]:
                            mass[t + 1, n] += mass[t, s] * policy[s, a] * self.moves[s, a, n]
        return mass

    def value_gradients(self, policy: Array) -> tuple[Array, Array]:
        """Derivatives of Q `[H, S, A, S, A]` and V `[H + 1, S, S, A]` in the policy's logits."""
        states, actions = policy.shape
        q, _ = self.values(policy)
        dq = np.zeros((self.horizon, states, actions, states, actions))
        dv = np.zeros((self.horizon + 1, states, states, actions))
        for t in range(self.horizon - 1, -1, -1):
            for s in range(states):
                if self.terminal[s]:
                    continue
                for a in range(actions):
                    for n in range(states):
                        dq[t, s, a] += self.discount * self.moves[s, a, n] * dv[t + 1, n]
                    dv[t, s] += policy[s, a] * dq[t, s, a]
                    dv[t, s, s] += q[t, s, a] * softmax_gradient(policy[s], a)
        return dq, dv

    def policy_gradient(
        self, policy: Array, occupancy: Array, q: Array, *, discounted: bool = True
    ) -> Array:
        """`sum_t [gamma^t] sum_s d_t(s) sum_a grad pi(a|s) Q_t(s, a)`, over the times of `d`."""
        gradient = np.zeros_like(policy)
        for t in range(len(occupancy)):
            factor = self.discount**t if discounted else 1.0
            for s in range(len(policy)):
                for a in range(policy.shape[1]):
                    weight = factor * occupancy[t, s] * q[t, s, a]
                    gradient[s] += weight * softmax_gradient(policy[s], a)
        return gradient

    def everything(self, horizon: int) -> tuple["Paths", Array]:
        """Every trajectory of at most `horizon` steps; the environment's probability of each."""
        open_paths = [
            (float(self.first[s]), [s], [])
            for s in range(len(self.first))
            if self.first[s] > 0 and not self.terminal[s]
        ]
        chances, paths = [], []
        while open_paths:
            chance, states, actions = open_paths.pop()
            if len(actions) == horizon or self.terminal[states[-1]]:
                chances.append(chance)
                paths.append((states, actions))
                continue
            for a in range(self.moves.shape[1]):
                for n in range(len(self.first)):
                    if self.moves[states[-1], a, n] > 0:
                        longer = chance * float(self.moves[states[-1], a, n])
                        open_paths.append((longer, [*states, n], [*actions, a]))
        return self.padded(paths, horizon), np.array(chances)

    def padded(self, paths: list[tuple[list[int], list[int]]], horizon: int) -> "Paths":
        """Arrays `[N, horizon]` of paths given by their states, the last included, and actions."""
        shape = len(paths), horizon
        states, actions, following = (np.zeros(shape, dtype=int) for _ in range(3))
        mask = np.zeros(shape, dtype=bool)
        for i, (visited, taken) in enumerate(paths):
            length = len(taken)
            states[i, :length], following[i, :length] = visited[:-1], visited[1:]
            actions[i, :length], mask[i, :length] = taken, True
        rewards = np.where(mask, self.rewards[states, actions, following], 0.0)
        return Paths(states, actions, following, rewards, mask)


def softmax_gradient(probabilities: Array, action: int) -> Array:
    """Derivative of one action's probability in the logits of its state, `[A]`."""
    gradient = np.zeros(len(probabilities))
    for b in range(len(probabilities)):
        same = 1.0 if b == action else 0.0
        gradient[b] = probabilities[action] * (same - probabilities[b])
    return gradient


@dataclass(frozen=True)
class Paths:
    """Trajectories in arrays `[N, H]`; after an episode's end all entries are 0."""

    states: Array
    actions: Array
    next_states: Array
    rewards: Array
    mask: Array
    """Bool: whether the step exists."""

    @property
    def lengths(self) -> Array:
        """`[N]`: steps of each."""
        return self.mask.sum(1)

    def chances(self, policy: Array) -> Array:
        """`[N, H]`: probability of each action under a policy; 1 after the end."""
        return np.where(self.mask, policy[self.states, self.actions], 1.0)

    def at(self, table: Array) -> Array:
        """`[N, H]`: a table `[H, S]` at each step's time and state."""
        times = np.arange(self.mask.shape[1])
        return np.where(self.mask, table[times, self.states], 0.0)

    def at_action(self, table: Array) -> Array:
        """`[N, H]`: a table `[H, S, A]` at each step's time, state and action."""
        times = np.arange(self.mask.shape[1])
        return np.where(self.mask, table[times, self.states, self.actions], 0.0)

    def after(self, table: Array) -> Array:
        """`[N, H]`: a table `[H + 1, S]` at the time and state after each step."""
        times = np.arange(1, self.mask.shape[1] + 1)
        return np.where(self.mask, table[times, self.next_states], 0.0)

    def gradients(self, coefficients: Array, policy: Array) -> Array:
        """`[N, S, A]`: `sum_t c_t grad log pi(a_t|s_t)` of each trajectory."""
        count, horizon = self.mask.shape
        gradients = np.zeros((count, *policy.shape))
        scores = np.eye(policy.shape[1])[self.actions] - policy[self.states]
        for t in range(horizon):
            step = np.where(self.mask[:, t], coefficients[:, t], 0.0)
            gradients[np.arange(count), self.states[:, t]] += step[:, None] * scores[:, t]
        return gradients
