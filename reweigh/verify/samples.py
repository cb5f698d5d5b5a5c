"""What an estimator is given: a batch from the golden file, or every trajectory that there is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments
from reweigh.core.weights import PowerMean
from reweigh.verify.golden import Problem, indices, tensor


@dataclass(frozen=True)
class Sample:
    """Trajectories, and what is known about each of their steps (`[S]` unless said)."""

    problem: Problem
    horizon: int
    """Steps after which an episode is cut, if it has not ended."""
    segments: Segments
    states: Tensor
    actions: Tensor
    final_states: Tensor
    """`[N]`: the state after the last step."""
    rewards: Tensor
    log_prob: Tensor
    """Under the target; differentiable in its logits."""
    log_ratios: Tensor
    """To the behaviour that sampled the trajectory."""
    log_prob_sources: Tensor
    """`[J, S]`: under each behaviour that sampled a share of the trajectories."""
    proportions: Tensor
    """`[J]`: the shares."""
    source: Tensor
    """`[N]`: which of the behaviours sampled each trajectory."""
    power_mean: dict[str, PowerMean]
    """How the power mean treats each behaviour; empty where there is one."""

    @property
    def discount(self) -> float:
        """γ."""
        return self.problem.discount

    def action_values(self, of: str) -> Tensor:
        """`[S, actions]`: `Q_t(s_t, a)` of a policy or the critic, for every action."""
        return self.problem.action_value[of][self.segments.time, self.states]

    def action_value(self, of: str) -> Tensor:
        """`Q_t(s_t, a_t)`."""
        return self.taken(self.action_values(of))

    def taken(self, x: Tensor) -> Tensor:
        """Of numbers `[S, actions]`, those of the actions taken."""
        return x.gather(1, self.actions.unsqueeze(1)).squeeze(1)

    @property
    def log_probs(self) -> Tensor:
        """`[S, actions]`: the target's log-probabilities of every action; differentiable."""
        return self.problem.logits["theta"].log_softmax(1)[self.states]

    @property
    def log_state_ratios(self) -> Tensor:
        """`log m_t`, of the exact marginals."""
        target, behaviour = (
            self.problem.occupancy[z][self.segments.time, self.states].log()
            for z in ("theta", "phi")
        )
        return target - behaviour

    def value(self, policy: str) -> Tensor:
        """`V_t(s_t)` of a policy, `theta` or `phi`."""
        return self.problem.value[policy][self.segments.time, self.states]

    def bootstrap(self, policy: str) -> Tensor:
        """`[N]`: the value after the last step."""
        return self.problem.value[policy][self.horizon, self.final_states]


def logged(problem: Problem, file: dict[str, Any], *, horizon: int) -> Sample:
    """The golden batch cut to `horizon` steps: padded, with poison where no step is."""
    shape = tensor(file, "mask", -1, problem.horizon).shape

    def cut(x: Tensor) -> Tensor:
        return x[:, :horizon].flatten()

    segments = _padded(cut(tensor(file, "mask", *shape)), horizon)
    states = cut(indices(file, "states", problem.states, *shape))
    actions = cut(indices(file, "actions", problem.actions, *shape))
    next_states = cut(indices(file, "next_states", problem.states, *shape))
    behaviour = cut(tensor(file, "logp_old", *shape))
    poisoned = cut(tensor(file, "logp_new", *shape))
    log_prob = torch.where(segments.inside, _log_prob(problem, states, actions), poisoned)
    return Sample(
        problem=problem,
        horizon=horizon,
        segments=segments,
        states=states,
        actions=actions,
        final_states=segments.last(next_states).long(),
        rewards=cut(tensor(file, "rewards", *shape)),
        log_prob=log_prob,
        log_ratios=log_ratios(log_prob, behaviour, segments),
        log_prob_sources=behaviour.unsqueeze(0),
        proportions=torch.ones(1, dtype=torch.float64),
        source=torch.zeros_like(segments.start),
        power_mean={},
    )


def logged_mixture(problem: Problem, file: dict[str, Any]) -> Sample:
    """The golden batch that several behaviours sampled: padded, with poison where no step is."""
    shape = tensor(file, "mask", -1, problem.horizon).shape
    segments = _padded(tensor(file, "mask", *shape).flatten(), problem.horizon)
    counts = tensor(file, "counts", -1)
    source = indices(file, "src", len(counts), len(segments))
    sources = tensor(file, "logp_src", len(counts), *shape).flatten(1)
    states = indices(file, "states", problem.states, *shape).flatten()
    actions = indices(file, "actions", problem.actions, *shape).flatten()
    poisoned = tensor(file, "logp_new", *shape).flatten()
    log_prob = torch.where(segments.inside, _log_prob(problem, states, actions), poisoned)
    return Sample(
        problem=problem,
        horizon=problem.horizon,
        segments=segments,
        states=states,
        actions=actions,
        # Any state will do: whole episodes are followed by the value 0.
        final_states=torch.zeros_like(source),
        rewards=tensor(file, "rewards", *shape).flatten(),
        log_prob=log_prob,
        log_ratios=log_ratios(log_prob, _own(sources, source, segments), segments),
        log_prob_sources=sources,
        proportions=counts / counts.sum(),
        source=source,
        power_mean={},
    )


def enumerated(
    problem: Problem, behaviours: list[str], proportions: Tensor, *, horizon: int
) -> tuple[Sample, Tensor]:
    """Every trajectory of at most `horizon` steps, and its probability `[N]`.

    Each trajectory is there once for each behaviour, with the probability that this behaviour is
    the source and samples it.
    """
    paths = list(_walk(problem, horizon)) * len(behaviours)
    segments = Segments.packed([len(actions) for _, _, actions in paths])
    states = torch.tensor([s for _, visited, _ in paths for s in visited[:-1]])
    next_states = torch.tensor([s for _, visited, _ in paths for s in visited[1:]])
    actions = torch.tensor([a for _, _, taken in paths for a in taken])
    source = torch.arange(len(behaviours)).repeat_interleave(len(paths) // len(behaviours))
    sources = torch.stack(
        [problem.logits[name].detach().log_softmax(1)[states, actions] for name in behaviours]
    )
    behaviour = _own(sources, source, segments)
    environment = torch.tensor([p for p, _, _ in paths], dtype=torch.float64)
    log_prob = _log_prob(problem, states, actions)
    sample = Sample(
        problem=problem,
        horizon=horizon,
        segments=segments,
        states=states,
        actions=actions,
        final_states=segments.last(next_states).long(),
        rewards=problem.reward[states, actions, next_states],
        log_prob=log_prob,
        log_ratios=log_ratios(log_prob, behaviour, segments),
        log_prob_sources=sources,
        proportions=proportions,
        source=source,
        power_mean={},
    )
    return sample, proportions[source] * environment * segments.total(behaviour).exp()


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


def _log_prob(problem: Problem, states: Tensor, actions: Tensor) -> Tensor:
    return problem.logits["theta"].log_softmax(1)[states, actions]


def _own(sources: Tensor, source: Tensor, segments: Segments) -> Tensor:
    """Log-probabilities `[J, S]` of every source to those `[S]` of each episode's own."""
    return sources.gather(0, source[segments.episode].unsqueeze(0)).squeeze(0)
