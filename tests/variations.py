"""Training with one part of it taken away, or with another in its place.

A variation is what `reweigh train` does but for one thing that none of its options says. They are
measured by `benchmarks/ablation.py`, and are not part of the package.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from reweigh import recipes
from reweigh.acting.networks import ValueFunction, network
from reweigh.acting.policy import BUILT_IN, GaussianPolicy
from reweigh.acting.standardised import Standardised
from reweigh.core.diagnostics import effective_sample_size
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.core.surrogates import clipped_ratio
from reweigh.core.weights import exclusive_prefix, mixture, power_mean, truncate
from reweigh.data.batch import Batch
from reweigh.train.config import TrainConfig
from reweigh.train.improve import Estimates, Improvement, improve, vtrace_estimates
from reweigh.train.learner import Learner
from reweigh.train.loop import Improve


@dataclass(frozen=True)
class Variation:
    """What differs from training as it is."""

    improvement: Callable[[], Improve] = lambda: improve
    """Makes the improvement of one run."""
    networks: Callable[[], AbstractContextManager[Any]] = nullcontext
    """A context in which the run's networks are made."""


def ratios_ignored() -> Improve:
    """Every reused step counts as one of the policy that is improved: reuse without weights."""

    def began(learner: Learner, batch: Batch) -> Batch:
        if isinstance(learner.policy, Standardised):
            learner.measure(batch.observations)  # as the improvement will: the same units
        with torch.no_grad():
            log_prob = learner.policy(batch.observations).log_prob(batch.actions)
        return replace(batch, log_prob_behaviour=log_prob.double())

    return _on_other_batches(began)


def mixture_of_behaviours() -> Improve:
    """Ratios to the mixture of the reused policies, each weighted by its share of the steps."""
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

    return _on_other_batches(mixed)


def _on_other_batches(change: Callable[[Learner, Batch], Batch]) -> Improve:
    def improved(
        learner: Learner, batch: Batch, config: TrainConfig, generator: torch.Generator
    ) -> Improvement:
        return improve(learner, change(learner, batch), config, generator)

    return improved


def bounded_by_ten(ratios: Tensor, segments: Segments) -> Tensor:
    """The log of the harmonic mean of each ratio and 1, with shares of 0.9 and 0.1."""
    return power_mean(ratios, segments, share=0.1).log_weights


def clipped_power_mean(sample: Sample, advantages: Tensor, began: Tensor, *, clip: float) -> Tensor:
    """GePPO's loss with ratios that are bounded by 10, by a harmonic mean with 1."""
    segments, behaviour = sample.segments, sample.log_prob_behaviour
    assert behaviour is not None
    centre = bounded_by_ten(log_ratios(began, behaviour, segments), segments)
    ratios = bounded_by_ten(sample.log_ratios, segments)
    objective = clipped_ratio(ratios, advantages, segments, clip=clip, log_centre=centre)
    return loss(objective, segments)


def power_mean_estimates(
    learner: Learner, batch: Batch, ratios: Tensor, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """V-trace with ratios that are bounded by 10, by a harmonic mean with 1."""
    return vtrace_estimates(learner, batch, bounded_by_ten(ratios, batch.segments), config)


def clipped_around_one(sample: Sample, advantages: Tensor, began: Tensor, *, clip: float) -> Tensor:
    """PPO's loss: clipped at 1 ± ε, wherever the ratio was when the improvement began."""
    return recipes.ppo(sample, advantages, clip=clip)


def clipped_in_proportion(
    sample: Sample, advantages: Tensor, began: Tensor, *, clip: float
) -> Tensor:
    """Decoupled PPO's loss: clipped where the ratio has changed by a share of ε."""
    return recipes.decoupled_ppo(sample, began, advantages, clip=clip)


def uncorrected_estimates(
    learner: Learner, batch: Batch, ratios: Tensor, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """V-trace with all ratios 1: the λ-returns of the old policies."""
    return vtrace_estimates(learner, batch, torch.zeros_like(ratios), config)


def _of_estimates(estimates: Estimates) -> Variation:
    return Variation(lambda: partial(improve, estimates=estimates))


def _of_advantages(change: Callable[[Batch, Tensor, Tensor], Tensor]) -> Variation:
    """Advantages changed in every pass, given the batch and the log-ratios."""

    def changed(
        learner: Learner, batch: Batch, ratios: Tensor, config: TrainConfig
    ) -> tuple[Tensor, Tensor]:
        targets, advantages = vtrace_estimates(learner, batch, ratios, config)
        return targets, change(batch, ratios, advantages)

    return _of_estimates(changed)


def prefix_weighted(batch: Batch, ratios: Tensor, advantages: Tensor) -> Tensor:
    """Advantages times the ratios before the step in its episode, as far as the latter is reused.

    Their product is cut at 2, and divided by its mean, so that the entropy bonus weighs the same.
    """
    start = torch.zeros(len(batch.segments.lengths), dtype=ratios.dtype)
    before = exclusive_prefix(ratios, batch.segments, log_weight_start=start)
    state = truncate(before, batch.segments, maximum=2.0).log_weights.exp()
    return advantages * (state / state.mean()).float()


def healthy_alone(batch: Batch, ratios: Tensor, advantages: Tensor) -> Tensor:
    """Advantages, 0 for policies whose steps' sample size is below half of them.

    The rest weighs more instead; the value function and the entropy bonus keep all steps.
    """
    kept_steps = torch.zeros_like(advantages)
    for version in batch.policy_version.unique():
        of_version = batch.policy_version == version
        share = effective_sample_size(ratios[of_version]) / of_version.sum()
        kept_steps[of_version] = 1.0 if share >= 0.5 else 0.0
    return advantages * kept_steps / kept_steps.mean().clamp(min=1e-6)


def estimated_once() -> Improve:
    """Targets and advantages computed once for an improvement, not before each pass."""

    def improved(
        learner: Learner, batch: Batch, config: TrainConfig, generator: torch.Generator
    ) -> Improvement:
        first: list[tuple[Tensor, Tensor]] = []

        def once(*arguments: Any) -> tuple[Tensor, Tensor]:
            if not first:
                first.append(vtrace_estimates(*arguments))
            return first[0]

        return improve(learner, batch, config, generator, estimates=once)

    return improved


class ThreeCritics(nn.Module):
    """The mean of three value functions that begin apart and are fitted alike."""

    def __init__(self, *shape: Any, **options: Any):
        super().__init__()
        self.members = [ValueFunction(*shape, **options) for _ in range(3)]
        self.registered = nn.ModuleList(self.members)

    def forward(self, observations: Tensor) -> Tensor:
        """Values `[B]`."""
        return torch.stack([member(observations) for member in self.members]).mean(0)

    def loss(self, observations: Tensor, targets: Tensor) -> Tensor:
        """Sum of the members' losses."""
        losses = [member.loss(observations, targets) for member in self.members]
        return torch.stack(losses).sum()

    def standardise(self, returns: Tensor) -> None:
        """Sets the units of the returns."""
        for member in self.members:
            member.standardise(returns)

    def measure(self, mean: Tensor, deviation: Tensor) -> None:
        """Sets the units of the observations."""
        for member in self.members:
            member.measure(mean, deviation)


class StateDependentNoise(GaussianPolicy):
    """A Gaussian whose deviation is a function of the observation, like its mean.

    It is called at every step, as a policy that is not built in: its seconds do not compare.
    """

    def __init__(self, *shape: Any, **options: Any):
        super().__init__(*shape, **options)
        observations = (
            options["observation_shape"], options["observation_classes"], options["hidden"],
        )  # fmt: skip
        outputs, memory = 2 * self.spread.numel(), options.get("memory", 1)
        self.mean = network(*observations, outputs, output_gain=0.01, memory=memory)

    def forward(self, observations: Tensor) -> Independent:
        """An Independent Normal, like that of `GaussianPolicy`."""
        mean, spread = self.mean(observations).reshape(-1, 2, *self.spread.shape).unbind(1)
        std = self.widest * (self.spread + spread).sigmoid()
        normal = Normal(mean, std, validate_args=False)
        return Independent(normal, self.spread.ndim, validate_args=False)


def without_units() -> AbstractContextManager[Any]:
    """The value function is fitted to returns as they are."""
    return mock.patch.object(ValueFunction, "standardise", lambda self, returns: None)


VARIATIONS: dict[str, Variation] = {
    "as it is": Variation(),
    "ratios ignored": Variation(ratios_ignored),
    "clipped around 1": Variation(lambda: partial(improve, objective=clipped_around_one)),
    "clipped in proportion": Variation(lambda: partial(improve, objective=clipped_in_proportion)),
    "traces uncorrected": _of_estimates(uncorrected_estimates),
    "estimated once": Variation(estimated_once),
    "values without units": Variation(networks=without_units),
    "mixture of behaviours": Variation(mixture_of_behaviours),
    "power mean of ratios": Variation(
        lambda: partial(improve, objective=clipped_power_mean, estimates=power_mean_estimates)
    ),
    "prefix weights": _of_advantages(prefix_weighted),
    "healthy policies only": _of_advantages(healthy_alone),
    "three critics": Variation(
        networks=lambda: mock.patch("reweigh.train.learner.ValueFunction", ThreeCritics)
    ),
    "state-dependent noise": Variation(
        networks=lambda: mock.patch.dict(BUILT_IN, gaussian=StateDependentNoise)
    ),
}
