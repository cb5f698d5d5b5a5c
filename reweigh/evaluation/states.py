"""What estimators that model states read of a sample: numbers of states, what follows a step."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from reweigh.core.segments import Segments
from reweigh.data.batch import Batch
from reweigh.evaluation.policies import AT_ONCE, act
from reweigh.evaluation.sample import Sample

MOST_STEPS = 100_000
"""Steps that estimators look at whose features make each of them expensive."""

_GOLDEN_RATIO = (5**0.5 - 1) / 2


class Logged(NamedTuple):
    """A sample that came from a log: what there is to model."""

    batch: Batch
    policy: nn.Module
    segments: Segments


def logged(sample: Sample) -> Logged:
    """The observations, actions and policy of a sample.

    Raises:
        ValueError: It was made from log-probabilities alone.
    """
    if sample.batch is None or sample.policy is None:
        raise ValueError(
            "this estimator models states and actions, and the sample holds log-probabilities "
            "alone: make it from a log and a policy (Sample.of)"
        )
    return Logged(sample.batch, sample.policy, sample.segments)


def ended(sample: Sample) -> Tensor:
    """`[N]` bool: the episode ended before the horizon, by whatever it was.

    The horizon is the longest episode. What was truncated earlier has no value after it either, and
    so it is an end like a termination; what was truncated at the horizon went on in its state.
    """
    batch, _, segments = logged(sample)
    return batch.terminated | (segments.lengths < segments.most_steps)


@torch.no_grad()
def action_log_probs(policy: nn.Module, observations: Tensor) -> Tensor | None:
    """Log-probability of every action, `[B, A]` float64; None if an action is not one choice."""
    parts = []
    for some in observations.split(AT_ONCE):
        distribution = act(policy, some)
        if not isinstance(distribution, Categorical):
            return None
        parts.append(distribution.logits.double().log_softmax(-1))
    return torch.cat(parts)


def among(log_probs: Tensor, seen: Tensor) -> Tensor:
    """A policy among the actions that were seen, `[..., A]`: what the others do is not known.

    Log-probabilities are made up to 1 again; equal ones where it takes none of those that were
    seen; the policy's own where none was.
    """
    known = log_probs.masked_fill(~seen, -torch.inf)
    alike = torch.zeros_like(log_probs).masked_fill(~seen, -torch.inf)
    known = torch.where((known > -torch.inf).any(-1, keepdim=True), known, alike)
    return torch.where(seen.any(-1, keepdim=True), known, log_probs).log_softmax(-1)


class Numbered(NamedTuple):
    """States by number."""

    observations: Tensor
    """`[count]`: what each number stands for."""
    states: tuple[Tensor, ...]
    """`[S]` int64, of each sample."""
    final_states: tuple[Tensor, ...]
    """`[N]` int64, of each sample; 0 where an episode had ended."""


def are_numbers(sample: Sample) -> bool:
    """Whether observations are single integers, so that there can be a table of them."""
    observations = logged(sample).batch.observations
    return observations.dim() == 1 and not observations.is_floating_point()


def numbered(*samples: Sample) -> Numbered:
    """Numbers the states of samples together, those alone that occur.

    Raises:
        ValueError: Observations are not single integers.
    """
    visited, finals = [], []
    for sample in samples:
        batch = logged(sample).batch
        if not are_numbers(sample):
            raise ValueError(
                f"a table of states needs observations that are single integers, and these are "
                f"{batch.observations.dtype} of shape {list(batch.observations.shape[1:])}: use a "
                "linear estimator, or number the states"
            )
        visited.append(batch.observations)
        finals.append(batch.final_observations)
    gone = [ended(sample) for sample in samples]
    # What lies behind an end is not read: it stands for the first state there is.
    first = visited[0][:1]
    finals = [torch.where(g, first, f) for g, f in zip(gone, finals, strict=True)]
    sizes = [len(x) for x in (*visited, *finals)]
    unique, number = torch.cat([*visited, *finals]).unique(return_inverse=True)
    parts = number.split(sizes)
    return Numbered(unique, tuple(parts[: len(samples)]), tuple(parts[len(samples) :]))


def thinned(sample: Sample, most_steps: int) -> Sample:
    """Episodes of at most so many steps, or all: evenly spread over the log.

    An episode's place in the order in which they are taken follows from its number alone, so that
    leaving out others leaves the choice nearly as it is.
    """
    batch, _, segments = logged(sample)
    if int(segments.lengths.sum()) <= most_steps:
        return sample
    order = (batch.episode.double() * _GOLDEN_RATIO).frac().argsort(stable=True)
    taken = segments.lengths[order].cumsum(0) <= most_steps
    taken[0] = True
    return sample.select(order[taken].sort().values)


def first_steps(sample: Sample) -> Sample:
    """Where episodes begin, as episodes of one step: to ask a critic for values at the start.

    Not to fit to: that the step ended them is not so.
    """
    batch, _, segments = logged(sample)
    first = segments.is_first.nonzero().squeeze(1)
    episode, alone = segments.episode[first], Segments.packed(torch.ones_like(first))
    return replace(
        sample,
        rewards=sample.rewards[first],
        log_prob_target=sample.log_prob_target[first],
        log_prob_behaviour=sample.log_prob_behaviour[first],
        segments=alone,
        batch=Batch(
            observations=batch.observations[first],
            actions=batch.actions[first],
            rewards=batch.rewards[first],
            log_prob_behaviour=batch.log_prob_behaviour[first],
            policy_version=batch.policy_version[first],
            segments=alone,
            final_observations=batch.final_observations[episode],
            terminated=batch.terminated[episode],
            truncated=batch.truncated[episode],
            episode=batch.episode[episode],
        ),
    )
