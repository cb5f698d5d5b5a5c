"""The trajectories of a case: those of a golden batch, or every one of a problem."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.verify.cases import Case
from reweigh.verify.golden import Problem, indices, tensor


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
    paths = _walk(problem, horizon)
    count = len(behaviours)
    segments = Segments.packed(
        [actions.shape[1] for _, _, actions in paths for _ in actions] * count
    )
    states, next_states, actions = (
        torch.cat([x.flatten() for x in parts]).repeat(count)
        for parts in (
            [visited[:, :-1] for _, visited, _ in paths],
            [visited[:, 1:] for _, visited, _ in paths],
            [taken for _, _, taken in paths],
        )
    )
    source = torch.arange(count).repeat_interleave(len(segments) // count)
    sources = torch.stack(
        [problem.logits[name].detach().log_softmax(1)[states, actions] for name in behaviours]
    )
    environment = torch.cat([p for p, _, _ in paths]).repeat(count)
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


def _walk(problem: Problem, horizon: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What the environment contributes to each path's probability, its states and its actions.

    A tuple for each length `T`: `[paths]`, `[paths, T + 1]`, `[paths, T]`.
    """
    is_terminal, paths = torch.tensor(problem.terminal), []
    first = problem.initial.nonzero()
    probability, states, actions = problem.initial[first[:, 0]], first, first[:, :0]
    for length in range(horizon + 1):
        ends = is_terminal[states[:, -1]] | (length == horizon)
        paths.append((probability[ends], states[ends], actions[ends]))
        probability, states, actions = probability[~ends], states[~ends], actions[~ends]
        successors = problem.transition[states[:, -1]]
        path, action, state = (successors > 0).nonzero(as_tuple=True)
        probability = probability[path] * successors[path, action, state]
        states = torch.cat([states[path], state.unsqueeze(1)], 1)
        actions = torch.cat([actions[path], action.unsqueeze(1)], 1)
    return paths


def _padded(mask: Tensor, horizon: int) -> Segments:
    return Segments.padded([horizon] * (len(mask) // horizon), horizon, mask=mask > 0)
