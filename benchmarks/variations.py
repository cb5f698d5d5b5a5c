"""Training with one part of it taken away, or with another in its place.

Each variation is a context in which `reweigh train` differs in one thing that none of its options
says. They are here to be measured, and are not part of the package:

    python benchmarks/sample_efficiency.py --variations "ratios ignored" "three critics"
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from reweigh.acting.networks import ValueFunction, network
from reweigh.acting.policy import BUILT_IN, GaussianPolicy
from reweigh.acting.standardised import Standardised
from reweigh.core.advantages import VTrace, vtrace
from reweigh.core.diagnostics import effective_sample_size
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments
from reweigh.core.surrogates import clipped_ratio
from reweigh.core.weights.bounds import power_mean, truncate
from reweigh.core.weights.mixtures import mixture
from reweigh.core.weights.scopes import exclusive_prefix
from reweigh.data.batch import Batch
from reweigh.train import improve as part
from reweigh.train.config import TrainConfig
from reweigh.train.learner import Learner

PART = "reweigh.train.improve"
Context = AbstractContextManager[Any]


def ratios_ignored() -> Context:
    """Take every reused step for one of the policy that is improved: reuse without weights."""

    def began(learner: Learner, batch: Batch) -> Batch:
        if isinstance(learner.policy, Standardised):
            learner.measure(batch.observations)  # as the improvement will: the same units
        with torch.no_grad():
            log_prob = learner.policy(batch.observations).log_prob(batch.actions)
        return replace(batch, log_prob_behaviour=log_prob.double())

    return _of_batches(began)


def mixture_of_behaviours() -> Context:
    """Divide by the mixture of the reused policies, of each by its share of the steps."""
    policies: dict[int, nn.Module] = {}

    def mixed(learner: Learner, batch: Batch) -> Batch:
        policies[int(batch.policy_version.max())] = copy.deepcopy(learner.policy)
        versions, counts = batch.policy_version.unique(return_counts=True)
        with torch.no_grad():
            sources = [
                policies[int(v)](batch.observations).log_prob(batch.actions) for v in versions
            ]
        log_prob = mixture(
            torch.stack(sources).double(), counts.double() / len(batch), batch.segments
        )
        return replace(batch, log_prob_behaviour=log_prob)

    return _of_batches(mixed)


def power_mean_of_ratios() -> Context:
    """Bound every ratio by 10, as the harmonic mean of itself and 1 with a share of 0.1.

    In the objective and in V-trace, and where they are read to end an improvement.
    """

    def bounded(log_prob: Tensor, log_prob_behaviour: Tensor, segments: Segments) -> Tensor:
        exact = log_ratios(log_prob, log_prob_behaviour, segments)
        return power_mean(exact, segments, share=0.1).log_weights

    return mock.patch(f"{PART}.log_ratios", bounded)


def clipped_around_one() -> Context:
    """Clip as PPO does, at 1 ± ε, wherever the ratio was when the improvement began."""

    def around_one(
        ratios: Tensor, advantages: Tensor, segments: Segments, *, clip: float, log_centre: Tensor
    ) -> Tensor:
        del log_centre
        return clipped_ratio(ratios, advantages, segments, clip=clip)

    return mock.patch(f"{PART}.clipped_ratio", around_one)


def clipped_in_proportion() -> Context:
    """Clip the ratio to the policy that the improvement began with, and weigh that by the rest.

    Decoupled PPO (Hilton et al. 2022): the clip is at c (1 ± ε) instead of c ± ε.
    """

    def decoupled(
        ratios: Tensor, advantages: Tensor, segments: Segments, *, clip: float, log_centre: Tensor
    ) -> Tensor:
        since = ratios - log_centre
        return clipped_ratio(since, advantages, segments, clip=clip, log_weights=log_centre)

    return mock.patch(f"{PART}.clipped_ratio", decoupled)


def traces_uncorrected() -> Context:
    """Let V-trace take all ratios for 1: the λ-returns of the old policies."""

    def uncorrected(
        rewards: Tensor,
        values: Tensor,
        bootstrap: Tensor,
        log_rhos: Tensor,
        log_cs: Tensor,
        segments: Segments,
        **options: float,
    ) -> VTrace:
        del log_cs
        ones = torch.zeros_like(log_rhos)
        return vtrace(rewards, values, bootstrap, ones, ones, segments, **options)

    return mock.patch(f"{PART}.vtrace", uncorrected)


def prefix_weights() -> Context:
    """Weigh each step by the ratios before it in its episode too, as far as it is reused.

    Their product is cut at 2, and divided by its mean, so that the entropy bonus weighs the same.
    """

    def weighted(batch: Batch, weights: Tensor, advantages: Tensor) -> Tensor:
        start = torch.zeros(len(batch.segments.lengths), dtype=weights.dtype)
        before = exclusive_prefix(weights, batch.segments, log_weight_start=start)
        state = truncate(before, batch.segments, maximum=2.0).log_weights.exp()
        return advantages * (state / state.mean()).float()

    return _of_advantages(weighted)


def healthy_policies_only() -> Context:
    """Leave a policy's steps out of the objective where their sample size is below half of them.

    The rest weighs more instead; the value function and the entropy bonus keep all steps.
    """

    def healthy(batch: Batch, weights: Tensor, advantages: Tensor) -> Tensor:
        kept = torch.zeros_like(advantages)
        for version in batch.policy_version.unique():
            mine = batch.policy_version == version
            share = effective_sample_size(weights[mine]) / mine.sum()
            kept[mine] = 1.0 if share >= 0.5 else 0.0
        return advantages * kept / kept.mean().clamp(min=1e-6)

    return _of_advantages(healthy)


def estimated_once() -> Context:
    """Compute targets and advantages once for an improvement, not before each pass."""
    estimates = part._estimates
    kept: dict[str, Any] = {"batch": None}

    def once(
        learner: Learner, batch: Batch, weights: Tensor, config: TrainConfig
    ) -> tuple[Tensor, Tensor]:
        if kept["batch"] is not batch:
            kept.update(batch=batch, estimates=estimates(learner, batch, weights, config))
        return kept["estimates"]

    return mock.patch(f"{PART}._estimates", once)


def values_without_units() -> Context:
    """Fit the value function to returns as they are."""
    return mock.patch.object(ValueFunction, "standardise", lambda self, returns: None)


class ThreeCritics(nn.Module):
    """The mean of three value functions that begin apart and are fitted alike."""

    def __init__(self, *shape: Any, **options: Any):
        super().__init__()
        self.members = [ValueFunction(*shape, **options) for _ in range(3)]
        self.registered = nn.ModuleList(self.members)

    def forward(self, observations: Tensor) -> Tensor:
        """Return values `[B]`."""
        return torch.stack([member(observations) for member in self.members]).mean(0)

    def loss(self, observations: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the members' losses."""
        losses = [member.loss(observations, targets) for member in self.members]
        return torch.stack(losses).sum()

    def standardise(self, returns: Tensor) -> None:
        """Take the units of the returns."""
        for member in self.members:
            member.standardise(returns)

    def measure(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the units of the observations."""
        for member in self.members:
            member.measure(mean, deviation)


def three_critics() -> Context:
    """Judge actions by the mean of three value functions."""
    return mock.patch("reweigh.train.learner.ValueFunction", ThreeCritics)


class StateDependentNoise(GaussianPolicy):
    """A Gaussian whose deviation is a function of the observation, like its mean.

    It is called at every step, as a policy that is not built in: its seconds do not compare.
    """

    def __init__(self, *shape: Any, **options: Any):
        super().__init__(*shape, **options)
        seen = options["observation_shape"], options["observation_classes"], options["hidden"]
        outputs, memory = 2 * self.spread.numel(), options.get("memory", 1)
        self.mean = network(*seen, outputs, output_gain=0.01, memory=memory)

    def forward(self, observations: Tensor) -> Independent:
        """Return an Independent Normal, as `GaussianPolicy` does."""
        mean, spread = self.mean(observations).reshape(-1, 2, *self.spread.shape).unbind(1)
        std = self.widest * (self.spread + spread).sigmoid()
        normal = Normal(mean, std, validate_args=False)
        return Independent(normal, self.spread.ndim, validate_args=False)


def state_dependent_noise() -> Context:
    """Let a Gaussian policy's deviation depend on the observation."""
    return mock.patch.dict(BUILT_IN, gaussian=StateDependentNoise)


VARIATIONS: dict[str, Callable[[], Context]] = {
    "as it is": nullcontext,
    "ratios ignored": ratios_ignored,
    "clipped around 1": clipped_around_one,
    "clipped in proportion": clipped_in_proportion,
    "traces uncorrected": traces_uncorrected,
    "estimated once": estimated_once,
    "values without units": values_without_units,
    "mixture of behaviours": mixture_of_behaviours,
    "power mean of ratios": power_mean_of_ratios,
    "prefix weights": prefix_weights,
    "healthy policies only": healthy_policies_only,
    "three critics": three_critics,
    "state-dependent noise": state_dependent_noise,
}


def _of_batches(change: Callable[[Learner, Batch], Batch]) -> Context:
    """Let every improvement see a changed batch."""
    improve = part.improve

    def improved(
        learner: Learner, batch: Batch, config: TrainConfig, generator: torch.Generator
    ) -> part.Improvement:
        return improve(learner, change(learner, batch), config, generator)

    return mock.patch("reweigh.train.loop.improve", improved)


def _of_advantages(change: Callable[[Batch, Tensor, Tensor], Tensor]) -> Context:
    """Let every pass have changed advantages, of the batch, its log-ratios and what they were."""
    estimates = part._estimates

    def changed(
        learner: Learner, batch: Batch, weights: Tensor, config: TrainConfig
    ) -> tuple[Tensor, Tensor]:
        targets, advantages = estimates(learner, batch, weights, config)
        return targets, change(batch, weights, advantages)

    return mock.patch(f"{PART}._estimates", changed)
