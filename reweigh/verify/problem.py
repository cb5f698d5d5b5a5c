"""temporary minimal"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Problem:
    name: str
    horizon: int
    discount: float
    initial: np.ndarray
    transition: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray

    def policy(self, logits):
        e = np.exp(logits - logits.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def values(self, policy):
        S, A = policy.shape
        V = np.zeros((self.horizon + 1, S))
        Q = np.zeros((self.horizon, S, A))
        for t in reversed(range(self.horizon)):
            for s in range(S):
                if self.terminal[s]:
                    continue
                for a in range(A):
                    Q[t, s, a] = sum(
                        self.transition[s, a, u]
                        * (self.reward[s, a, u] + self.discount * V[t + 1, u])
                        for u in range(S)
                    )
                V[t, s] = sum(policy[s, a] * Q[t, s, a] for a in range(A))
        return V, Q

    def visits(self, policy):
        S, A = policy.shape
        d = np.zeros((self.horizon, S))
        d[0] = np.where(self.terminal, 0, self.initial)
        for t in range(self.horizon - 1):
            d[t + 1] = np.einsum("s,sa,sau->u", d[t], policy, self.transition) * ~self.terminal
        return d

    def value(self, policy):
        return float(self.initial @ self.values(policy)[0][0])

    def policy_gradient(self, target_logits, *, visits, continues, discounted):
        pi = self.policy(target_logits)
        d = self.visits(visits)
        _, Q = self.values(continues)
        g = np.zeros_like(pi)
        for t in range(self.horizon):
            f = self.discount**t if discounted else 1.0
            for s in range(pi.shape[0]):
                mean = (pi[s] * Q[t, s]).sum()
                g[s] += f * d[t, s] * pi[s] * (Q[t, s] - mean)
        return g
