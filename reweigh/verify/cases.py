"""What a recipe is tried on: a batch from the golden file, or every trajectory that there is.

A case holds a `Sample` and, by the names of the recipes' arguments, everything else that a recipe
may ask for, exact in the problem: values, visits, log-probabilities of every action.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from reweigh.core.divergences import renyi2_categorical
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.core.weights import PowerMean
from reweigh.recipes.groups import Grouped
from reweigh.verify.golden import Problem

PER_STEP = {
    *("values", "action_values", "advantages", "log_state_ratios", "divergences", "actions"),
    *("log_prob_current", "log_prob_proximal"),
    *("log_probs_target", "log_probs_behaviour", "all_action_values"),
}
"""Inputs with a number, or a row, for each step."""


@dataclass(frozen=True)
class Case:
    """Trajectories of a problem, and what is known about each of their steps."""

    problem: Problem
    horizon: int
    """Steps after which an episode is cut, if it has not ended."""
    sample: Sample
    states: Tensor
    """`[S]` int64."""
    actions: Tensor
    """`[S]` int64."""
    final_states: Tensor
    """`[N]` int64: the state after the last step."""
    behaviour: str
    """The policy whose values, visits and log-probabilities are the behaviour's."""
    log_prob_sources: Tensor
    """`[J, S]`: under each behaviour that sampled a share of the trajectories."""
    counts: tuple[int, ...]
    """`J` numbers: how many episodes of a batch each of them samples."""
    source: Tensor
    """`[N]` int64: which of the behaviours sampled each trajectory."""
    probability: Tensor
    """`[N]`: of each trajectory, under the behaviour; of a logged batch, `1/N`."""
    second_moments: Tensor
    """`[J]`: `E[W²]` to each source."""
    power_mean: PowerMean | None = None
    """How the golden file's power mean treats each behaviour."""
    critic: str = "theta"
    """Whose action values the critic has: the target's, or the wrong `critic`'s."""

    @property
    def segments(self) -> Segments:
        """Where the episodes lie."""
        return self.sample.segments

    @cached_property
    def all_action_values(self) -> Tensor:
        """`[S, actions]`: `Q_t(s_t, a)` of the critic, for every action."""
        return self._at_states(self.problem.action_value[self.critic])

    @cached_property
    def log_probs_target(self) -> Tensor:
        """`[S, actions]`: of every action under the target; differentiable."""
        return self.problem.logits["theta"].log_softmax(1)[self.states]

    @cached_property
    def log_probs_behaviour(self) -> Tensor:
        """`[S, actions]`: of every action under the behaviour."""
        return self.problem.logits[self.behaviour].detach().log_softmax(1)[self.states]

    @property
    def action_values(self) -> Tensor:
        """`[S]`: `Q_t(s_t, a_t)`."""
        return self.taken(self.all_action_values)

    @property
    def proportions(self) -> Tensor:
        """`[J]`: the behaviours' shares of the episodes."""
        return torch.tensor(self.counts, dtype=torch.float64) / sum(self.counts)

    @cached_property
    def values(self) -> Tensor:
        """`[S]`: `Σ_a π_θ(a|s_t) Q_t(s_t, a)`; differentiable in the policy."""
        return (self.log_probs_target.exp() * self.all_action_values).sum(1)

    @property
    def bootstrap(self) -> Tensor:
        """`[N]`: 0 after whole episodes."""
        return torch.zeros_like(self.probability)

    @property
    def advantages(self) -> Tensor:
        """`[S]`: `G_t - V_t^φ(s_t)`."""
        return self.sample.reward_to_go - self.value(self.behaviour)

    @property
    def log_state_ratios(self) -> Tensor:
        """`[S]`: `log m_t`, of the exact marginals."""
        target, behaviour = (
            self._at_states(self.problem.occupancy[z]).log() for z in ("theta", self.behaviour)
        )
        return target - behaviour

    @property
    def divergences(self) -> Tensor:
        """`[S]`: Rényi divergence of order 2 of the target from the behaviour."""
        return renyi2_categorical(self.log_probs_target, self.log_probs_behaviour, self.segments)

    @property
    def log_prob_proximal(self) -> Tensor:
        """`[S]`: under a policy between sampling and update; the target itself if on-policy."""
        name = "theta" if self.behaviour == "theta" else "phi2"
        return self.taken(self.problem.logits[name].detach().log_softmax(1)[self.states])

    log_prob_current = log_prob_proximal

    def taken(self, x: Tensor) -> Tensor:
        """Of numbers `[S, actions]`, those of the actions taken."""
        return x.gather(1, self.actions.unsqueeze(1)).squeeze(1)

    def value(self, policy: str) -> Tensor:
        """`[S]`: `V_t(s_t)` of a policy, `theta` or `phi`."""
        return self._at_states(self.problem.value[policy])

    def value_after(self, policy: str) -> Tensor:
        """`[N]`: the value after the last step."""
        return self.problem.value[policy][self.horizon, self.final_states]

    def _at_states(self, table: Tensor) -> Tensor:
        return table[self.segments.time, self.states]

    def inputs(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """What a recipe asks for beside the sample, by name.

        Raises:
            ValueError: There is no such input.
        """
        if missing := [name for name in names if not hasattr(self, name)]:
            raise ValueError(
                f"verify cannot make the input {missing[0]!r}: name it as the recipes do, or give "
                "the recipe an Identity over the inputs that it can make"
            )
        return {name: getattr(self, name) for name in names}

    def grouped(self, size: int) -> Grouped:
        """The trajectories' returns, each `size` that follow each other in a group."""
        count = len(self.sample)
        return Grouped(self.sample.returns, torch.arange(count) // size, -(-count // size))

    def gradient(self, objective: Tensor) -> Tensor:
        """The gradient in the target's logits."""
        return slope(objective, self.problem.logits["theta"])

    def undiscounted(self) -> "Case":
        """The same trajectories with a discount of 1: the return of an answer is its total."""
        return replace(self, sample=replace(self.sample, discount=1.0))


def slope(objective: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of an objective in a leaf; 0 if the objective does not depend on it."""
    if not objective.requires_grad:
        return torch.zeros_like(leaf)
    (ascent,) = torch.autograd.grad(
        objective, leaf, retain_graph=True, materialize_grads=True, allow_unused=True
    )
    return ascent
