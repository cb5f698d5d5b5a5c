"""What a recipe is tried on: a batch from the golden file, or every trajectory that there is.

A case holds a `Sample` and, by the names of the recipes' arguments, everything else that a recipe
may ask for, exact in the problem: values, visits, log-probabilities of every action.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from reweigh.core.divergences import renyi2_categorical
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.core.weights import PowerMean
from reweigh.recipes.groups import Grouped
from reweigh.verify.golden import Problem, indices, tensor

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
        """The gradient in the target's logits; 0 if the objective does not depend on them."""
        theta = self.problem.logits["theta"]
        if not objective.requires_grad:
            return torch.zeros_like(theta)
        (ascent,) = torch.autograd.grad(objective, theta, retain_graph=True)
        return ascent

    def undiscounted(self) -> "Case":
        """The same trajectories with a discount of 1: the return of an answer is its total."""
        return replace(self, sample=replace(self.sample, discount=1.0))


def logged(problem: Problem, file: dict[str, Any], *, horizon: int) -> Case:
    """The golden batch cut to `horizon` steps: padded, with poison where no step is."""
    shape = tensor(file, "mask", -1, problem.horizon).shape

    def cut(x: Tensor) -> Tensor:
        return x[:, :horizon].flatten()

    segments = _padded(cut(tensor(file, "mask", *shape)), horizon)
    next_states = cut(indices(file, "next_states", problem.states, *shape))
    return _case(
        problem,
        segments,
        horizon=horizon,
        states=cut(indices(file, "states", problem.states, *shape)),
        actions=cut(indices(file, "actions", problem.actions, *shape)),
        final_states=segments.last(next_states).long(),
        rewards=cut(tensor(file, "rewards", *shape)),
        poison=cut(tensor(file, "logp_new", *shape)),
        sources=cut(tensor(file, "logp_old", *shape)).unsqueeze(0),
    )


def logged_mixture(problem: Problem, file: dict[str, Any]) -> Case:
    """The golden batch that several behaviours sampled: padded, with poison where no step is."""
    shape = tensor(file, "mask", -1, problem.horizon).shape
    segments = _padded(tensor(file, "mask", *shape).flatten(), problem.horizon)
    counts = tensor(file, "counts", -1)
    source = indices(file, "src", len(counts), len(segments))
    return _case(
        problem,
        segments,
        horizon=problem.horizon,
        states=indices(file, "states", problem.states, *shape).flatten(),
        actions=indices(file, "actions", problem.actions, *shape).flatten(),
        # Any state will do: whole episodes are followed by the value 0.
        final_states=torch.zeros_like(source),
        rewards=tensor(file, "rewards", *shape).flatten(),
        poison=tensor(file, "logp_new", *shape).flatten(),
        sources=tensor(file, "logp_src", len(counts), *shape).flatten(1),
        counts=tuple(int(count) for count in counts),
        source=source,
    )


def enumerated(
    problem: Problem,
    behaviours: list[str],
    counts: tuple[int, ...] = (1,),
    *,
    horizon: int | None = None,
) -> Case:
    """Every trajectory of at most `horizon` steps, with its probability.

    Each trajectory is there once for each behaviour, with the probability that this behaviour is
    the source and samples it.
    """
    horizon = problem.horizon if horizon is None else horizon
    paths = list(_walk(problem, horizon)) * len(behaviours)
    segments = Segments.packed([len(actions) for _, _, actions in paths])
    states = torch.tensor([s for _, visited, _ in paths for s in visited[:-1]])
    next_states = torch.tensor([s for _, visited, _ in paths for s in visited[1:]])
    actions = torch.tensor([a for _, _, taken in paths for a in taken])
    source = torch.arange(len(behaviours)).repeat_interleave(len(paths) // len(behaviours))
    sources = torch.stack(
        [problem.logits[name].detach().log_softmax(1)[states, actions] for name in behaviours]
    )
    environment = torch.tensor([p for p, _, _ in paths], dtype=torch.float64)
    case = _case(
        problem,
        segments,
        horizon=horizon,
        states=states,
        actions=actions,
        final_states=segments.last(next_states).long(),
        rewards=problem.reward[states, actions, next_states],
        sources=sources,
        counts=counts,
        source=source,
        behaviour=behaviours[0],
    )
    behaviour = case.sample.log_prob_behaviour
    assert behaviour is not None
    probability = case.proportions[source] * environment * segments.total(behaviour).exp()
    squares = probability * (2 * case.sample.log_trajectory.detach()).exp()
    zeros = torch.zeros_like(case.proportions)
    moments = zeros.index_add(0, source, squares) / case.proportions
    moments = moments.clamp(min=1.0)  # which they are, but for rounding
    return replace(case, probability=probability, second_moments=moments)


def _case(
    problem: Problem,
    segments: Segments,
    *,
    horizon: int,
    states: Tensor,
    actions: Tensor,
    final_states: Tensor,
    rewards: Tensor,
    sources: Tensor,
    poison: Tensor | None = None,
    counts: tuple[int, ...] = (1,),
    source: Tensor | None = None,
    behaviour: str = "phi",
) -> Case:
    log_prob = problem.logits["theta"].log_softmax(1)[states, actions]
    if poison is not None:
        log_prob = torch.where(segments.inside, log_prob, poison)
    source = torch.zeros_like(segments.start) if source is None else source
    count = len(segments)
    return Case(
        problem=problem,
        horizon=horizon,
        sample=Sample(
            log_prob,
            sources.gather(0, source[segments.episode].unsqueeze(0)).squeeze(0),
            segments,
            rewards,
            problem.discount,
        ),
        states=states,
        actions=actions,
        final_states=final_states,
        behaviour=behaviour,
        log_prob_sources=sources,
        counts=counts,
        source=source,
        probability=torch.full((count,), 1 / count, dtype=torch.float64),
        second_moments=torch.ones(len(sources), dtype=torch.float64),
    )


def _walk(problem: Problem, horizon: int) -> Iterator[tuple[float, list[int], list[int]]]:
    """Yields what the environment contributes to a path's probability, its states, its actions."""
    initial, transition = problem.initial.tolist(), problem.transition.tolist()
    open_paths = [(p, [s], []) for s, p in enumerate(initial) if p > 0]
    while open_paths:
        probability, states, actions = open_paths.pop()
        if len(actions) == horizon or problem.terminal[states[-1]]:
            yield probability, states, actions
            continue
        for action, row in enumerate(transition[states[-1]]):
            open_paths += [
                (probability * p, [*states, s], [*actions, action])
                for s, p in enumerate(row)
                if p > 0
            ]


def _padded(mask: Tensor, horizon: int) -> Segments:
    return Segments.padded([horizon] * (len(mask) // horizon), horizon, mask=mask > 0)
