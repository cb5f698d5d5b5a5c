"""What every estimator reads: logged episodes, with their log-probabilities under two policies."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from reweigh import contracts
from reweigh.core import ratios, weights
from reweigh.core.returns import discount_from_start
from reweigh.core.segments import Segments
from reweigh.data.batch import Batch
from reweigh.evaluation.policies import log_prob


@dataclass(frozen=True, eq=False)
class Sample:
    """`N` whole episodes that a behaviour sampled, and how likely the target is to act alike.

    Raises:
        ValueError: Fragments; another shape; half precision; a log-probability that cannot be; a
            discount outside [0, 1].
    """

    rewards: Tensor
    """`[S]`."""
    log_prob_target: Tensor
    """`[S]`, of each logged action under the policy that is evaluated."""
    log_prob_behaviour: Tensor
    """`[S]`, under the policy that took it."""
    segments: Segments
    discount: float
    """γ in [0, 1]: what is estimated is `E_θ[Σ_t γ^t r_t]`, up to where logged episodes end."""
    batch: Batch | None = None
    """Observations and actions, for the estimators that model states."""
    policy: nn.Module | None = None
    """The policy that is evaluated, for the estimators that sum over its actions."""

    def __post_init__(self):
        self.segments.require_whole("evaluation")
        contracts.require_between("discount", self.discount, 0, 1)
        contracts.require_vector("rewards", self.rewards, self.segments.size, "position")

    @classmethod
    def of(cls, batch: Batch, policy: nn.Module, *, discount: float) -> Self:
        """The episodes of a batch, their actions' log-probabilities under a policy recomputed.

        Raises:
            ValueError: the policy is of another space; an episode has no start or no end.
        """
        _require_whole(batch)
        broken = ~batch.rewards.isfinite()
        if bool(broken.any()):
            step = int(broken.nonzero()[0])
            episode = int(batch.episode[batch.segments.episode[step]])
            raise ValueError(
                f"the reward of episode {episode}, step {int(batch.segments.time[step])}, is "
                f"{float(batch.rewards[step])}: only finite rewards can be summed"
            )
        return cls(
            rewards=batch.rewards,
            log_prob_target=log_prob(policy, batch),
            log_prob_behaviour=batch.log_prob_behaviour,
            segments=batch.segments,
            discount=discount,
            batch=batch,
            policy=policy,
        )

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def weighable(self) -> bool:
        """Whether the behaviour's log-probabilities are there."""
        missing = self.log_prob_behaviour.isnan()[self.segments.existing]
        return not bool(missing.all()) or not missing.numel()

    @cached_property
    def log_ratios(self) -> Tensor:
        """`[S]` float64: `log ρ_t`.

        Raises:
            ValueError: the behaviour's log-probabilities are missing, or some cannot be.
        """
        if not self.weighable:
            raise ValueError(
                "the log does not hold the behaviour's log-probabilities, and without them nothing "
                "can be weighed: estimate them by `reweigh import LOG NEW_LOG --estimate-behaviour`"
            )
        return ratios.log_ratios(self.log_prob_target, self.log_prob_behaviour, self.segments)

    @cached_property
    def log_prefix(self) -> Tensor:
        """`[S]` float64: `log w_t`, the ratios so far."""
        return weights.prefix(self.log_ratios, self.segments)

    @cached_property
    def discounted_rewards(self) -> Tensor:
        """`[S]` float64: `γ^t r_t`."""
        rewards = self.segments.as_float64("rewards", self.rewards)
        return rewards * discount_from_start(self.segments, discount=self.discount)

    @cached_property
    def returns(self) -> Tensor:
        """`[N]` float64: the logged returns `Σ_t γ^t r_t`."""
        return self.segments.total(self.discounted_rewards)

    @cached_property
    def log_trajectory(self) -> Tensor:
        """`[N]` float64: `log W`, the product of all of an episode's ratios."""
        return self.segments.total(self.log_ratios)

    def select(self, episodes: Tensor) -> Self:
        """Some of the episodes, in the given order; one that is named twice is there twice.

        Args:
            episodes: int64, in [0, N).
        """
        segments = self.segments
        lengths = (segments.stop - segments.start)[episodes]
        shift = segments.start[episodes] - (lengths.cumsum(0) - lengths)
        step = torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)
        chosen = Segments.packed(lengths, mask=segments.mask[step])
        batch = None
        if self.batch is not None:
            per_step = {"observations", "actions", "rewards", "log_prob_behaviour"}
            per_step |= {"policy_version"}
            batch = replace(
                self.batch,
                segments=chosen,
                **{
                    f.name: getattr(self.batch, f.name)[step if f.name in per_step else episodes]
                    for f in fields(Batch)
                    if f.name != "segments"
                },
            )
        return replace(
            self,
            rewards=self.rewards[step],
            log_prob_target=self.log_prob_target[step],
            log_prob_behaviour=self.log_prob_behaviour[step],
            segments=chosen,
            batch=batch,
        )


def _require_whole(batch: Batch) -> None:
    """Refuses episodes that start after time 0 or have no end."""
    for bad, what in (
        (batch.segments.time_start > 0, "begins at"),
        (~(batch.terminated | batch.truncated), "has no end: nothing follows"),
    ):
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            step = int(batch.segments.time_start[i])
            if "end" in what:
                step += int(batch.segments.lengths[i]) - 1
            raise ValueError(
                f"episode {int(batch.episode[i])} {what} step {step} ({int(bad.sum())} such "
                "episodes), and evaluation needs whole ones: leave them out by `reweigh import LOG "
                "NEW_LOG --unfinished drop`, or call their ends truncations by `--unfinished "
                "truncated`"
            )
