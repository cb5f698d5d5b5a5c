"""Small problems with known occupancies, and episodes of them, for the tests of state ratios."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reweigh.core.marginal import Tabular
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments


@dataclass(frozen=True, eq=False)
class Problem:
    start: Tensor
    transition: Tensor
    """`[states, A, states]`; what a row lacks to 1 is the chance to terminate."""
    reward: Tensor
    behaviour: Tensor
    target: Tensor
    """Logits, like the behaviour."""

    def occupancy(self, logits: Tensor, horizon: int) -> Tensor:
        """Exact `Pr(alive at t, s_t = s)`, `[horizon, states]`."""
        under = torch.einsum("sa,sau->su", logits.softmax(1), self.transition)
        mass = [self.start]
        for _ in range(horizon - 1):
            mass.append(mass[-1] @ under)
        return torch.stack(mass)

    def values(self, horizon: int, discount: float) -> tuple[Tensor, Tensor]:
        """Exact `Q^θ_t [horizon, states, A]`, and the gradient of the return in the logits."""
        logits = self.target.clone().requires_grad_()
        policy, value, found = logits.softmax(1), torch.zeros(len(self.start)).double(), []
        for _ in range(horizon):
            action_values = self.reward + discount * self.transition @ value
            value = (policy * action_values).sum(1)
            found.append(action_values.detach())
        gradient = torch.autograd.grad(self.start @ value, logits)[0]
        return torch.stack(found[::-1]), gradient


def problem(seed: int, *, states: int = 5, actions: int = 3, ending: float = 0.0) -> Problem:
    """Random; with `ending` above 0 every pair terminates with up to that chance."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def dirichlet(*shape):
        x = -uniform(*shape).log()
        return x / x.sum(-1, keepdim=True)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    behaviour = normal(states, actions)
    going_on = 1 - ending * uniform(states, actions, 1)
    return Problem(
        dirichlet(states),
        dirichlet(states, actions, states) * going_on,
        normal(states, actions),
        behaviour,
        behaviour + 0.6 * normal(states, actions),
    )


@dataclass(frozen=True, eq=False)
class Sample:
    problem: Problem
    segments: Segments
    states: Tensor
    actions: Tensor
    final_states: Tensor
    terminated: Tensor

    @property
    def visits(self) -> Tabular:
        return Tabular(self.states, self.final_states, self.terminated, len(self.problem.start))

    @property
    def rewards(self) -> Tensor:
        return self.problem.reward[self.states, self.actions]

    @property
    def ratios(self) -> Tensor:
        target, behaviour = (
            x.log_softmax(1)[self.states, self.actions]
            for x in (self.problem.target, self.problem.behaviour)
        )
        return log_ratios(target, behaviour, self.segments)

    @property
    def state_normalised_ratios(self) -> Tensor:
        """The same with mean 1 in each state."""
        ratio, count = self.ratios.exp(), len(self.problem.start)
        total = torch.zeros(count).double().index_add(0, self.states, ratio)
        visits = torch.zeros(count).double().index_add(0, self.states, torch.ones_like(ratio))
        return (ratio * (visits / total)[self.states]).log()

    def one_hot(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(len(self.problem.start), dtype=torch.float64)
        return one[self.states], one[self.final_states]


def simulate(given: Problem, seed: int, *, episodes: int, horizon: int, cut: float = 0.0) -> Sample:
    """Episodes of the behaviour; each step is the last with chance `cut`, without terminating."""
    g = torch.Generator().manual_seed(seed)
    policy = given.behaviour.softmax(1)

    def draw(rows):
        chance = torch.rand(len(rows), 1, generator=g, dtype=torch.float64)
        return (rows.cumsum(1) < chance).sum(1)

    count = len(given.start)
    state = draw(given.start.expand(episodes, -1)).clamp(max=count - 1)
    alive, terminated = torch.ones(episodes).bool(), torch.zeros(episodes).bool()
    final, steps = state.clone(), []
    for _ in range(horizon):
        action = draw(policy[state]).clamp(max=policy.shape[1] - 1)
        steps.append((state, action, alive))
        after = draw(given.transition[state, action])
        ends = alive & (after == count)
        state = after.clamp(max=count - 1)
        final = torch.where(alive, state, final)
        terminated = terminated | ends
        alive = alive & ~ends & (torch.rand(episodes, generator=g) >= cut)
    states, actions, taken = (torch.stack(x, 1) for x in zip(*steps, strict=True))
    return Sample(
        given,
        Segments.packed(taken.sum(1)),
        states[taken],
        actions[taken],
        final,
        terminated,
    )
