"""The record that every estimator reads: steps, who took them, how likely the target is to.

A `Sample` is checked, converted to float64 and flattened once, when it is made. What follows from
it (log-ratios, products of ratios, discounts, returns) is computed once, when it is first asked
for, and kept.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import ratios, returns, weights
from reweigh.core.segments import Segments


class EpisodeTotals(NamedTuple):
    """What an episode's steps add up to, where it lies on several ranks or in several rows.

    Totals of parts add up: by `merge`, or over all ranks by `merge_over_ranks`.
    """

    log_ratios: Tensor
    """`[E]` float64: sum of the log-ratios of the episode's sampled steps."""
    steps: Tensor
    """`[E]` float64: how many steps were sampled."""
    trained_steps: Tensor
    """`[E]` float64: how many of them are trained on."""

    def merge(self, other: "EpisodeTotals") -> "EpisodeTotals":
        """The totals of two parts together, exact in any order.

        Raises:
            ValueError: The parts number their episodes differently.
        """
        if self.steps.shape != other.steps.shape:
            raise ValueError(
                f"the parts have {len(self.steps)} and {len(other.steps)} episodes: number them "
                "over the whole batch, alike in every part"
            )
        return EpisodeTotals(*(x + y for x, y in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class Sample:
    """Steps that a behaviour took, and how likely the target is to take them.

    The arguments have any one shape of `S` numbers: `[S]` packed, or a padded batch `[B, T]`, in
    whose shape results come back. `segments` says where the episodes lie in it: `Segments.packed`,
    `.padded`, `.masked`, `.from_cu_seqlens`, `.from_episode_ids`. After construction the fields are
    flat.

    Two masks are two things. A step outside the segments' mask was not sampled: it does not exist.
    A step that was sampled and is not `trained` on keeps its ratio in every product and mean, and
    has neither a term nor a gradient in the loss.

    Raises:
        ValueError: Wrong shape; half precision; a log-probability that is NaN or +inf, or -inf for
            the behaviour (values are checked on the CPU alone); discount outside [0, 1].
    """

    log_prob_target: Tensor
    """`[S]` float64: log-probability of each action under the target; differentiated. `-inf`, an
    action that the target never takes, is a weight of 0."""
    log_prob_behaviour: Tensor | None
    """`[S]` float64: the same under the policy that took the step; a constant. None if unknown:
    then every weight is refused, and never taken for 1."""
    segments: Segments
    """Where the episodes lie."""
    rewards: Tensor | None = None
    """`[S]` float64, a constant; None for estimators that take advantages."""
    discount: float = 1.0
    """γ in [0, 1]."""
    trained: Tensor | None = None
    """`[S]` bool: steps that count in the loss; None if all do."""
    log_weight_start: Tensor | None = None
    """`[N]`: the log-weight that the steps before a fragment earned, as in `weights.prefix`."""
    shape: torch.Size | None = None
    """The shape of the arguments."""
    totals: EpisodeTotals | None = None
    """Of the whole episodes, if `episode` names some that are only partly here; `with_totals`."""
    episode: Tensor | None = None
    """`[N]` int64 in [0, E): the episode that each row is of."""

    def __post_init__(self):
        contracts.require_between("discount", self.discount, 0, 1)
        shape = getattr(self.log_prob_target, "shape", None) if self.shape is None else self.shape
        object.__setattr__(self, "shape", shape)
        target = ratios.checked_log_prob(
            "log_prob_target", self._flat(self.log_prob_target), self.segments
        )
        if self.trained is not None:
            trained = self._flat(self.trained)
            contracts.require_vector("trained", trained, self.segments.size, "position")
            contracts.require_boolean("trained", trained)
            object.__setattr__(self, "trained", trained & self.segments.inside)
            target = torch.where(trained, target, target.detach())
        object.__setattr__(self, "log_prob_target", target)
        if self.log_prob_behaviour is not None:
            behaviour = ratios.checked_behaviour(self._flat(self.log_prob_behaviour), self.segments)
            object.__setattr__(self, "log_prob_behaviour", behaviour)
        if self.rewards is not None:
            object.__setattr__(self, "rewards", self.steps("rewards", self.rewards).detach())

    def __len__(self) -> int:
        """`N`, the number of episodes (of rows, if episodes lie in several)."""
        return len(self.segments)

    def _flat(self, x: Tensor) -> Tensor:
        is_batch = isinstance(x, Tensor) and self.shape is not None and x.shape == self.shape
        return x.reshape(-1) if is_batch else x

    def steps(self, name: str, x: Tensor) -> Tensor:
        """An argument `[S]`, or of the sample's shape, as float64; 0 where no step exists."""
        return self.segments.as_float64(name, self._flat(x))

    def log_prob(self, name: str, x: Tensor) -> Tensor:
        """Log-probabilities of the actions under a third policy: checked, `[S]`, a constant."""
        return ratios.checked_log_prob(name, self._flat(x), self.segments).detach()

    def in_shape(self, x: Tensor) -> Tensor:
        """Numbers `[S]` in the shape of the arguments."""
        assert self.shape is not None
        return x.reshape(self.shape)

    @property
    def episodes(self) -> int:
        """How many episodes there are: what a mean over episodes is divided by."""
        return len(self) if self.totals is None else len(self.totals.steps)

    @cached_property
    def trained_steps(self) -> Tensor:
        """`[N]` float64: steps of each episode that are trained on, those elsewhere included."""
        if self.totals is not None:
            return self.totals.trained_steps[self.episode]
        return self._trained_here

    @cached_property
    def _trained_here(self) -> Tensor:
        counted = self.segments.inside if self.trained is None else self.trained
        return self.segments.total(counted.double())

    @cached_property
    def log_ratios(self) -> Tensor:
        """`[S]` float64: `log ρ_t = log π_θ(a_t|s_t) - log π_φ(a_t|s_t)`.

        Raises:
            ValueError: The behaviour's log-probabilities are unknown.
        """
        return self.log_prob_target - self.require_behaviour()

    @cached_property
    def log_prefix(self) -> Tensor:
        """`[S]` float64: `log w_t`, `w_t = Π_{k≤t} ρ_k`; other weights after `with_prefix`.

        Raises:
            ValueError: Fragments without `log_weight_start`.
        """
        if "_prefix" in self.__dict__:
            return self.__dict__["_prefix"]
        return weights.prefix(
            self.log_ratios, self.segments, log_weight_start=self.log_weight_start
        )

    @cached_property
    def log_trajectory(self) -> Tensor:
        """`[N]` float64: `log W`, the product of all ratios of the episode.

        Raises:
            ValueError: Fragments, whose other steps are neither here nor in `totals`.
        """
        local = self.segments.total(self.log_ratios)
        if self.totals is None:
            self.segments.require_whole("the weight of a trajectory")
            return local
        return self._of_whole(self.totals.log_ratios, local)

    @cached_property
    def log_geometric_mean(self) -> Tensor:
        """`[N]` float64: `log W / T`, the mean log-ratio of the episode's `T` sampled steps."""
        steps = self.segments.lengths if self.totals is None else self.totals.steps[self.episode]
        return self.log_trajectory / steps.clamp(min=1)

    def _of_whole(self, whole: Tensor, local: Tensor) -> Tensor:
        """The episodes' numbers `[N]`, with the gradient of the steps that are here.

        Terms of other parts depend on these steps too, by the same number; the terms that are here
        stand for them, in proportion to the steps that are trained on.
        """
        share = self.trained_steps / self._trained_here.clamp(min=1)
        return whole[self.episode].detach() + (local - local.detach()) * share

    @cached_property
    def discount_from_start(self) -> Tensor:
        """`[S]` float64: `γ^t`."""
        return returns.discount_from_start(self.segments, discount=self.discount)

    @cached_property
    def discounted_rewards(self) -> Tensor:
        """`[S]` float64: `γ^t r_t`.

        Raises:
            ValueError: No rewards were given.
        """
        return self.require_rewards() * self.discount_from_start

    @cached_property
    def returns(self) -> Tensor:
        """`[N]` float64: the logged returns `Σ_t γ^t r_t`."""
        return self.segments.total(self.discounted_rewards)

    @cached_property
    def reward_to_go(self) -> Tensor:
        """`[S]` float64: `G_t = Σ_{t'≥t} γ^(t'-t) r_t'`, 0 after the last step."""
        return returns.reward_to_go(self.require_rewards(), self.segments, discount=self.discount)

    def require_behaviour(self) -> Tensor:
        """The behaviour's log-probabilities `[S]`.

        Raises:
            ValueError: They are unknown.
        """
        if self.log_prob_behaviour is None:
            raise ValueError(
                "the behaviour's log-probabilities are missing, and without them no step can be "
                "weighed: estimate them by `reweigh import LOG NEW_LOG --estimate-behaviour`"
            )
        return self.log_prob_behaviour

    def require_rewards(self) -> Tensor:
        """The rewards `[S]`.

        Raises:
            ValueError: No rewards were given.
        """
        if self.rewards is None:
            raise ValueError("this estimator needs rewards, and the sample has none: pass rewards=")
        return self.rewards

    def with_prefix(self, log_prefix: Tensor) -> Self:
        """The same steps with other prefix weights `[S]`: bounded, or against a mixture."""
        changed = replace(self)
        changed.__dict__["_prefix"] = log_prefix
        return changed

    def against(self, log_prob_sources: Tensor, proportions: Tensor) -> Self:
        """The same steps weighed against the mixture of all behaviours: the balance heuristic.

        Args:
            log_prob_sources: `[J, S]`, of every logged action under every behaviour.
            proportions: `[J]`, their shares of the episodes.

        Raises:
            ValueError: As `weights.balance_heuristic`.
        """
        return self.with_prefix(
            weights.balance_heuristic(
                self.log_prob_target, log_prob_sources.flatten(1), proportions, self.segments
            )
        )

    def episode_totals(
        self, episode: Tensor | None = None, *, episodes: int | None = None
    ) -> EpisodeTotals:
        """Totals of the steps that are here: to be merged with those of the other parts.

        Args:
            episode: `[N]` int64 in [0, E): the episode of each row; without it every row is one.
            episodes: `E`, in the whole batch.

        Raises:
            ValueError: Wrong shape or dtype; an episode outside the range.
        """
        own = torch.arange(len(self), device=self.segments.mask.device)
        episode = own if episode is None else episode
        count = len(self) if episodes is None else episodes
        contracts.require_vector("episode", episode, len(self), "episode")
        contracts.require_groups("episode", episode, count)
        log_ratios = self.segments.total(self.log_ratios.detach())
        rows = (log_ratios, self.segments.lengths.double(), self._trained_here)
        return EpisodeTotals(*(x.new_zeros(count).index_add(0, episode, x) for x in rows))

    def with_totals(self, totals: EpisodeTotals, episode: Tensor | None = None) -> Self:
        """The same steps as parts of whole episodes: of several rows, or of several ranks.

        Weights of whole episodes, means over an episode's steps and counts of episodes then are the
        whole episodes'. The losses of all parts, each with the whole batch's `divisor`, sum to the
        loss of the joined episodes, if an episode's steps have one advantage.

        Args:
            totals: From `episode_totals`, merged over all parts.
            episode: As in `episode_totals`.
        """
        own = torch.arange(len(self), device=self.segments.mask.device)
        return replace(self, totals=totals, episode=own if episode is None else episode)
