"""The random problems of `which_weight.py`, every trajectory of them, and moments of gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import reweigh as rw
from reweigh.verify import problem as exact

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

    def process(self, horizon: int) -> exact.Problem:
        """The process without its policies, cut after `horizon` steps."""
        return exact.Problem(
            name="random",
            horizon=horizon,
            discount=DISCOUNT,
            initial=self.initial.numpy(),
            transition=self.transition.numpy(),
            reward=self.reward.unsqueeze(2).expand(-1, -1, STATES).numpy(),
            terminal=np.zeros(STATES, dtype=bool),
        )

    def values(self, policy: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """`V [horizon + 1, states]` and `Q [horizon, states, actions]` of a policy."""
        v, q = self.process(horizon).values(policy.numpy())
        return torch.from_numpy(v), torch.from_numpy(q)

    def visits(self, policy: Tensor, horizon: int) -> Tensor:
        """`[horizon, states]`: probability of being in a state at a time."""
        return torch.from_numpy(self.process(horizon).visits(policy.numpy()))

    def gradient(self, horizon: int) -> Tensor:
        """`∇J_γ` with respect to the target's logits, `[states * actions]`."""
        target = self.target.numpy()
        gradient = self.process(horizon).policy_gradient(
            np.log(target), visits=target, continues=target, discounted=True
        )
        return torch.from_numpy(gradient).flatten()

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


@dataclass(frozen=True, eq=False)
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
    log_prob_sources: Tensor
    """`[J, S]`: log-probabilities under all that sampled."""
    log_prob_behaviour: Tensor
    """Under the behaviour that sampled the trajectory."""
    probability: Tensor
    """`[N]`, of each trajectory."""

    @cached_property
    def sample(self) -> rw.Sample:
        """The trajectories as the library's record."""
        log_prob = self.log_probs.gather(1, self.actions.unsqueeze(1)).squeeze(1)
        return rw.Sample(log_prob, self.log_prob_behaviour, self.segments, self.rewards, DISCOUNT)

    def values(self, policy: Tensor) -> Tensor:
        """Exact `V` of a policy at each step."""
        return self.at_states(self.problem.values(policy, self.horizon)[0])

    def action_values(self, policy: Tensor) -> Tensor:
        """Exact `Q` of a policy at each step, for every action: `[S, actions]`."""
        return self.at_states(self.problem.values(policy, self.horizon)[1])

    def taken(self, x: Tensor) -> Tensor:
        """Of numbers `[S, actions]`, those of the actions taken."""
        return x.gather(1, self.actions.unsqueeze(1)).squeeze(1)

    def at_states(self, table: Tensor) -> Tensor:
        """A table `[horizon, states, ...]` at every step's time and state."""
        return table[self.segments.time, self.states]


def everything(p: Problem, horizon: int, behaviours: Tensor) -> Everything:
    """Every trajectory, once for each of the behaviours `[J, states, actions]`, equally likely."""
    paths = p.process(horizon).trajectories()
    count = len(behaviours)
    states = torch.tensor([path.states[:-1] for path in paths]).repeat(count, 1).flatten()
    actions = torch.tensor([path.actions for path in paths]).repeat(count, 1).flatten()
    environment = torch.tensor([path.probability for path in paths], dtype=torch.float64)
    source = torch.arange(count).repeat_interleave(len(paths))
    segments = rw.Segments.padded([horizon] * len(source), horizon)
    sources = behaviours.log()[:, states, actions]
    behaviour = rw.weights.select_behaviour(sources, source[segments.episode], segments)
    return Everything(
        problem=p,
        horizon=horizon,
        segments=segments,
        states=states,
        actions=actions,
        rewards=p.reward[states, actions],
        log_probs=p.target.log()[states].requires_grad_(),
        log_prob_sources=sources,
        log_prob_behaviour=behaviour,
        probability=environment.repeat(count) * segments.total(behaviour).exp() / count,
    )


Objective = Callable[[Everything], Tensor]
"""What is maximised at each step, `[S]`."""


def trajectory_gradients(e: Everything, objective: Tensor) -> Tensor:
    """`[N, states * actions]`: each trajectory's gradient with respect to the target's logits."""
    (slope,) = torch.autograd.grad(objective.sum(), e.log_probs, retain_graph=True)
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
    """From the mean and the mean square of one trajectory's gradient, and the exact gradient."""
    variance = float(second_moment - mean.square().sum())
    norm = float(want.norm())
    return Moments(float((mean - want).norm()) / norm, math.sqrt(max(variance, 0.0)) / norm)


def enumerated_moments(e: Everything, gradients: Tensor) -> Moments:
    """From every trajectory's gradient."""
    mean = e.probability @ gradients
    return moments(mean, e.probability @ gradients.square().sum(1), e.problem.gradient(e.horizon))
