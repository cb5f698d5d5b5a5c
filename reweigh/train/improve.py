"""One improvement: many passes over the steps of the last policies, as far as their weights carry.

The objective is the recipe `geppo`: a step's clip is around the ratio that the step had when the
improvement began, so that old steps keep a trust region of their own (Queeney et al. 2021).
Advantages are V-trace's (Espeholt et al. 2018), with targets recomputed on all steps before each
pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from reweigh.core.advantages import vtrace
from reweigh.core.diagnostics import approximate_kl, effective_sample_size
from reweigh.core.returns import reward_to_go
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.core.weights import truncate
from reweigh.data.batch import Batch
from reweigh.recipes import ALL
from reweigh.train.config import TrainConfig, settled
from reweigh.train.learner import Learner

Estimates = Callable[[Learner, Batch, Tensor, TrainConfig], tuple[Tensor, Tensor]]
"""From the present policy's log-ratios to value targets and advantages, both `[S]` float32."""

Objective = Callable[..., Tensor]
"""A loss like `geppo`: of a sample, advantages, and log-probabilities when the improvement began.

Its argument `clip` is the half-width of the trust region.
"""


@dataclass(frozen=True)
class Improvement:
    """What an improvement did."""

    log_ratios: Tensor  # [S], of the improved policy to the behaviour
    epochs: int
    ended_by: str
    kl: float
    policy_loss: float
    value_loss: float
    entropy: float


def vtrace_estimates(
    learner: Learner, batch: Batch, log_ratios: Tensor, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """V-trace's value targets and advantages of the present policy, both `[S]` float32.

    The advantages carry no ratio of their own step, which is the objective's, and are standardised.
    """
    with torch.no_grad():
        values = learner.value(batch.observations)
        bootstrap = learner.value(batch.final_observations) * batch.goes_on
    bounded = truncate(log_ratios, batch.segments, maximum=1.0).log_weights
    estimate = vtrace(
        batch.rewards,
        values,
        bootstrap,
        bounded,
        bounded,
        batch.segments,
        discount=config.discount,
        trace_lambda=settled(config.trace_lambda),
    )
    advantages = estimate.action_values - values
    advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    return estimate.targets.float(), advantages.float()


def improve(
    learner: Learner,
    batch: Batch,
    config: TrainConfig,
    generator: torch.Generator,
    *,
    objective: Objective = ALL["geppo"],
    estimates: Estimates = vtrace_estimates,
) -> Improvement:
    """Improves the learner's policy on a batch, in place.

    A pass that has moved the policy by `max_kl` nats per step, or brought the
    effective sample size below `min_ess` of the batch, is the last: beyond it the old steps no
    longer speak for the new policy.

    Args:
        learner: Its policy and value function change.
        batch: Steps of this policy and of older ones.
        config: Options of the run.
        generator: Orders the steps.
        objective: The policy's loss in each minibatch.
        estimates: What values and policy are fitted to, computed anew before each pass.

    Raises:
        ValueError: The policy gives NaN.
    """
    if config.standardise:
        learner.measure(batch.observations)
    _standardise_value(learner, batch, config)
    began = _log_prob(learner, batch)
    sample, epochs = _sample(began, batch.log_prob_behaviour, batch), 0
    while True:
        targets, advantages = estimates(learner, batch, sample.log_ratios, config)
        losses = _epoch(learner, batch, targets, advantages, began, config, generator, objective)
        epochs += 1
        improved = _log_prob(learner, batch)
        sample = _sample(improved, batch.log_prob_behaviour, batch)
        moved = _sample(improved, began, batch).log_ratios
        kl = float(approximate_kl(moved, batch.segments))
        ess = float(effective_sample_size(sample.log_ratios)) / len(batch)
        ended_by = _end(epochs, kl, ess, config)
        if ended_by is not None:
            return Improvement(sample.log_ratios, epochs, ended_by, kl, *losses)


def _sample(log_prob: Tensor, log_prob_behaviour: Tensor, batch: Batch) -> Sample:
    return Sample(log_prob, log_prob_behaviour, batch.segments)


def _end(epochs: int, kl: float, ess: float, config: TrainConfig) -> str | None:
    """What ends an improvement after so many passes, or None if it goes on."""
    if kl > settled(config.max_kl):
        return "kl"
    if ess < config.min_ess:
        return "ess"
    return "epochs" if epochs == settled(config.epochs) else None


def _standardise_value(learner: Learner, batch: Batch, config: TrainConfig) -> None:
    """Sets the units of the value function: those of the batch's returns."""
    with torch.no_grad():
        bootstrap = learner.value(batch.final_observations) * batch.goes_on
    learner.value.standardise(
        reward_to_go(batch.rewards, batch.segments, discount=config.discount, bootstrap=bootstrap)
    )


def _epoch(
    learner: Learner,
    batch: Batch,
    targets: Tensor,
    advantages: Tensor,
    began: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    objective: Objective,
) -> tuple[float, float, float]:
    """Passes once over the batch: the mean policy loss, value loss and entropy."""
    order = torch.randperm(len(batch), generator=generator)
    entropy_weight = _entropy_weight(config, batch)
    sums = torch.zeros(3)
    minibatches = order.tensor_split(min(settled(config.minibatches), len(batch)))
    for index in minibatches:
        distribution = learner.policy(batch.observations[index])
        log_prob = _finite(distribution.log_prob(batch.actions[index]))
        sample = Sample(log_prob, batch.log_prob_behaviour[index], _lone_steps(len(index)))
        policy_loss = objective(sample, advantages[index], began[index], clip=config.clip)
        entropy = distribution.entropy().mean()
        value_loss = learner.value.loss(batch.observations[index], targets[index])
        learner.optimiser.zero_grad()
        (policy_loss + value_loss - entropy_weight * entropy).backward()
        torch.nn.utils.clip_grad_norm_(learner.policy.parameters(), config.max_gradient_norm)
        torch.nn.utils.clip_grad_norm_(learner.value.parameters(), config.max_gradient_norm)
        learner.optimiser.step()
        sums += torch.stack([policy_loss, value_loss, entropy]).detach().float()
    policy_loss, value_loss, entropy = (sums / len(minibatches)).tolist()
    return policy_loss, value_loss, entropy


def _entropy_weight(config: TrainConfig, batch: Batch) -> float:
    """Weight of the entropy bonus in the improvement of a batch's newest policy."""
    newest = int(batch.policy_version.max())
    return settled(config.entropy) / (1 + settled(config.entropy_decay) * newest)


@lru_cache(maxsize=4)  # the minibatches of a pass have two sizes at most
def _lone_steps(count: int) -> Segments:
    """Shuffled steps: each is an episode by itself, since its neighbours are not its own."""
    return Segments.packed(torch.ones(count, dtype=torch.int64))


def _log_prob(learner: Learner, batch: Batch) -> Tensor:
    with torch.no_grad():
        return _finite(learner.policy(batch.observations).log_prob(batch.actions))


def _finite(log_prob: Tensor) -> Tensor:
    if not log_prob.isfinite().all():
        raise ValueError(
            "the policy gives NaN or a probability of 0 to an action that was taken: it has "
            "diverged; try a smaller learning rate"
        )
    return log_prob
