"""A log's episodes with a policy beside them: a `Sample`, and the states behind it."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.data.batch import Batch, steps_of
from reweigh.data.episodes import Unfinished
from reweigh.data.trajectories import Trajectories
from reweigh.evaluation.policies import AT_ONCE, act, log_prob

MOST_STEPS = 100_000
"""Steps up to which estimators with many features read a log; of a longer one, a selection."""

_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class Logged:
    """`N` whole episodes of a log, and the policy that they are evaluated for."""

    sample: Sample
    """Log-probabilities and rewards, packed: what weighing needs."""
    batch: Batch
    """Observations and actions of the same steps: what a model of states needs."""
    policy: nn.Module
    """The target: what a sum over its actions needs."""

    @classmethod
    def of(cls, batch: Batch, policy: nn.Module, *, discount: float) -> Self:
        """The episodes of a batch, with their actions' log-probabilities under a policy.

        Where no log-probability of the behaviour was recorded, the sample has none.

        Raises:
            ValueError: The policy is of another space; an episode has no start or no end; a reward
                is not finite; some log-probabilities are missing, or impossible.
        """
        _require_whole(batch)
        _require_finite_rewards(batch)
        recorded = batch.log_prob_behaviour
        sample = Sample(
            log_prob(policy, batch),
            None if bool(recorded.isnan().all()) else recorded,
            batch.segments,
            batch.rewards,
            discount,
        )
        return cls(sample, batch, policy)

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def segments(self) -> Segments:
        """Where the episodes lie."""
        return self.batch.segments

    @property
    def ended(self) -> Tensor:
        """`[N]` bool: the episode ended before the horizon, by termination or truncation.

        The horizon is the longest episode. What was truncated earlier has no value after it either,
        and so is an end like a termination; what was truncated at the horizon went on in its state.
        """
        return self.batch.terminated | (self.segments.lengths < self.segments.most_steps)

    @property
    def has_numbered_states(self) -> bool:
        """Whether observations are single integers, so that there can be a table of them."""
        observations = self.batch.observations
        return observations.dim() == 1 and not observations.is_floating_point()

    def select(self, episodes: Tensor) -> Self:
        """The given episodes (int64 indices `[K]`, repetitions allowed), in the given order."""
        steps = steps_of(self.segments, episodes)
        return self._taken(self.batch.select(episodes), steps)

    def first_steps(self) -> Self:
        """The first step of each episode, as an episode of its own: where a critic is asked.

        Not for fitting: the next state is lost.
        """
        first = self.segments.is_first.nonzero().squeeze(1)
        alone = Segments.packed(torch.ones_like(first))
        return self._taken(self.batch.take(first, self.segments.episode[first], alone), first)

    def thinned(self, most_steps: int) -> Self:
        """Episodes of at most `most_steps` steps together, evenly spread over the log; or all.

        The order in which episodes are taken follows from their numbers alone, so that without some
        of them the selection is nearly the same.
        """
        lengths = self.segments.lengths
        if int(lengths.sum()) <= most_steps:
            return self
        order = (self.batch.episode.double() * _GOLDEN_RATIO).frac().argsort(stable=True)
        taken = lengths[order].cumsum(0) <= most_steps
        taken[0] = True
        return self.select(order[taken].sort().values)

    def _taken(self, batch: Batch, steps: Tensor) -> Self:
        behaviour = self.sample.log_prob_behaviour
        sample = Sample(
            self.sample.log_prob_target[steps],
            None if behaviour is None else behaviour[steps],
            batch.segments,
            batch.rewards,
            self.sample.discount,
        )
        return replace(self, sample=sample, batch=batch)


def sample_of(log: Trajectories | Batch, policy: nn.Module, *, discount: float = 1.0) -> Sample:
    """The `Sample` that recipes read, from trajectories and the target policy.

    Args:
        log: Whole episodes.
        policy: A module from observations to a distribution over actions; not differentiated.
        discount: γ in [0, 1].

    Raises:
        ValueError: As `Logged.of`; there are no episodes.
    """
    batch = log if isinstance(log, Batch) else Batch.of(log)
    return Logged.of(batch, policy, discount=discount).sample


def no_whole_episode(unfinished: Unfinished) -> ValueError:
    """The refusal of a log in which no episode is whole."""
    if not unfinished.episodes:
        return ValueError("the log is empty: there are no episodes")
    return ValueError(
        f"the log has no whole episode: all {unfinished.episodes} lack their start or their end; "
        "let the run finish some, or call their ends truncations by `reweigh import LOG NEW_LOG "
        "--unfinished truncated`"
    )


@torch.no_grad()
def action_log_probs(policy: nn.Module, observations: Tensor) -> Tensor | None:
    """Log-probability of every action, `[B, A]` float64; None if an action is not one choice."""
    parts = []
    for chunk in observations.split(AT_ONCE):
        distribution = act(policy, chunk)
        if not isinstance(distribution, Categorical):
            return None
        parts.append(distribution.logits.double().log_softmax(-1))
    return torch.cat(parts)


def restricted_log_probs(log_probs: Tensor, seen: Tensor) -> Tensor:
    """The policy restricted to the actions that were logged, `[..., A]`.

    Log-probabilities are normalised again; equal ones where it takes none of those that were
    logged; the policy's own where none was.
    """
    known = log_probs.masked_fill(~seen, -torch.inf)
    uniform = torch.zeros_like(log_probs).masked_fill(~seen, -torch.inf)
    known = torch.where((known > -torch.inf).any(-1, keepdim=True), known, uniform)
    return torch.where(seen.any(-1, keepdim=True), known, log_probs).log_softmax(-1)


class NumberedStates(NamedTuple):
    """States by number."""

    observations: Tensor
    """`[count]`: the observation of each number."""
    states: tuple[Tensor, ...]
    """`[S]` int64, of each log."""
    final_states: tuple[Tensor, ...]
    """`[N]` int64, of each log; 0 where an episode had ended."""


def numbered_states(*logs: Logged) -> NumberedStates:
    """The states that occur in any of the logs, numbered together.

    Raises:
        ValueError: Observations are not single integers.
    """
    for log in logs:
        if not log.has_numbered_states:
            observations = log.batch.observations
            raise ValueError(
                f"a table of states needs observations that are single integers, and these are "
                f"{observations.dtype} of shape {list(observations.shape[1:])}: use a "
                "linear estimator, or number the states"
            )
    visited = [log.batch.observations for log in logs]
    # The observation after an end is not read: the first state stands for it.
    first = visited[0][:1]
    finals = [torch.where(log.ended, first, log.batch.final_observations) for log in logs]
    sizes = [len(x) for x in (*visited, *finals)]
    unique, number = torch.cat([*visited, *finals]).unique(return_inverse=True)
    parts = number.split(sizes)
    return NumberedStates(unique, tuple(parts[: len(logs)]), tuple(parts[len(logs) :]))


def _require_finite_rewards(batch: Batch) -> None:
    broken = ~batch.rewards.isfinite()
    if bool(broken.any()):
        step = int(broken.nonzero()[0])
        episode = int(batch.episode[batch.segments.episode[step]])
        raise ValueError(
            f"the reward of episode {episode}, step {int(batch.segments.time[step])}, is "
            f"{float(batch.rewards[step])}: only finite rewards can be summed"
        )


def _require_whole(batch: Batch) -> None:
    """Requires episodes that start at time 0 and have an end."""
    segments = batch.segments
    last = segments.time_start + segments.lengths - 1
    for bad, what, steps in (
        (segments.time_start > 0, "begins at", segments.time_start),
        (~(batch.terminated | batch.truncated), "has no end: nothing follows", last),
    ):
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            raise ValueError(
                f"episode {int(batch.episode[i])} {what} step {int(steps[i])} ({int(bad.sum())} "
                "such episodes), and evaluation needs whole ones: leave them out by `reweigh "
                "import LOG NEW_LOG --unfinished drop`, or call their ends truncations by "
                "`--unfinished truncated`"
            )
