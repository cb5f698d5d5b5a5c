"""The random problems of `state_ratio.py`, and episodes of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

import reweigh as rw
from reweigh import marginal
from reweigh.verify import problem as exact

STATES, ACTIONS, DISCOUNT, SPREAD = 6, 3, 0.95, 0.6


@dataclass(frozen=True, eq=False)
class Problem:
    """A finite problem, and two policies by their logits."""

    start: Tensor
    transition: Tensor
    reward: Tensor
    behaviour: Tensor
    target: Tensor

    def process(self, horizon: int) -> exact.Problem:
        """The process without its policies, cut after `horizon` steps."""
        return exact.Problem(
            name="random",
            horizon=horizon,
            discount=DISCOUNT,
            initial=self.start.numpy(),
            transition=self.transition.numpy(),
            reward=self.reward.unsqueeze(2).expand(-1, -1, STATES).numpy(),
            terminal=np.zeros(STATES, dtype=bool),
        )

    def gradient(self, horizon: int) -> Tensor:
        """Exact gradient of the target's return, `[states, A]`."""
        process, logits = self.process(horizon), self.target.numpy()
        policy = process.policy(logits)
        gradient = process.policy_gradient(logits, visits=policy, continues=policy, discounted=True)
        return torch.from_numpy(gradient)

    def log_state_ratios(self, horizon: int) -> Tensor:
        """Exact `log m_t(s)`, `[H, states]`."""
        process = self.process(horizon)
        target, behaviour = (
            process.visits(process.policy(logits.numpy()))
            for logits in (self.target, self.behaviour)
        )
        return torch.from_numpy(np.log(target / behaviour))


def problem(seed: int, spread: str = "normal") -> Problem:
    """A random problem."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def dirichlet(*shape):
        x = -torch.rand(*shape, generator=g, dtype=torch.float64).log()
        return x / x.sum(-1, keepdim=True)

    behaviour, shift = normal(STATES, ACTIONS), normal(STATES, ACTIONS)
    if spread == "norm":
        shift = shift / shift.norm(dim=1, keepdim=True)
    return Problem(
        dirichlet(STATES),
        dirichlet(STATES, ACTIONS, STATES),
        normal(STATES, ACTIONS),
        behaviour,
        behaviour + SPREAD * shift,
    )


@dataclass(frozen=True, eq=False)
class Sampled:
    """Episodes of the behaviour, step after step, and what the estimators read in them."""

    problem: Problem
    states: Tensor
    actions: Tensor
    final_states: Tensor
    segments: rw.Segments
    horizon: int
    seed: int

    @cached_property
    def logits(self) -> Tensor:
        """Of the target, a leaf to differentiate."""
        return self.problem.target.clone().requires_grad_()

    @cached_property
    def log_probs(self) -> Tensor:
        """Of every action at every step, under the target."""
        return self.logits.log_softmax(1)[self.states]

    @cached_property
    def log_prob(self) -> Tensor:
        """Of the actions taken, under the target."""
        return self.log_probs.gather(1, self.actions.unsqueeze(1)).squeeze(1)

    @cached_property
    def rewards(self) -> Tensor:
        """Of each step."""
        return self.problem.reward[self.states, self.actions]

    @cached_property
    def ratios(self) -> Tensor:
        """Log-ratios of the actions."""
        behaviour = self.problem.behaviour.log_softmax(1)[self.states, self.actions]
        return rw.log_ratios(self.log_prob, behaviour, self.segments).detach()

    @cached_property
    def terminated(self) -> Tensor:
        """No episode terminates."""
        return torch.zeros(len(self.segments), dtype=torch.bool)

    @cached_property
    def visits(self) -> marginal.Tabular:
        """States by number."""
        return marginal.Tabular(self.states, self.final_states, self.terminated, STATES)

    @cached_property
    def tabular(self) -> marginal.StateRatios:
        """Pooled over time."""
        return marginal.finite_horizon(self.visits, self.ratios, self.segments)

    @cached_property
    def one_hot(self) -> tuple[Tensor, Tensor]:
        """States and final states as vectors."""
        rows = torch.eye(STATES, dtype=torch.float64)
        return rows[self.states], rows[self.final_states]

    @cached_property
    def q_by_time(self) -> Tensor:
        """Estimated from the same episodes, `[H, states, A]`."""
        return marginal.action_values_by_time(
            self.visits,
            self.actions,
            self.rewards,
            self.problem.target.log_softmax(1),
            self.segments,
            discount=DISCOUNT,
            horizon=self.horizon,
        )

    @cached_property
    def q_endless(self) -> Tensor:
        """Without horizon, the same at each time."""
        return marginal.action_values(
            self.visits,
            self.actions,
            self.rewards,
            self.problem.target.log_softmax(1),
            self.segments,
            discount=DISCOUNT,
        ).expand(self.horizon, -1, -1)


def simulate(problem: Problem, *, horizon: int, episodes: int, seed: int) -> Sampled:
    """Episodes of the behaviour, all of them side by side."""
    g = torch.Generator().manual_seed(seed)
    policy = problem.behaviour.softmax(1)

    def draw(rows):
        chance = torch.rand(len(rows), 1, generator=g, dtype=torch.float64)
        return (rows.cumsum(1) < chance).sum(1).clamp(max=rows.shape[1] - 1)

    state = draw(problem.start.expand(episodes, -1))
    states, actions = [], []
    for _ in range(horizon):
        action = draw(policy[state])
        states.append(state)
        actions.append(action)
        state = draw(problem.transition[state, action])
    return Sampled(
        problem,
        torch.stack(states, 1).flatten(),
        torch.stack(actions, 1).flatten(),
        state,
        rw.Segments.packed([horizon] * episodes),
        horizon,
        seed,
    )
