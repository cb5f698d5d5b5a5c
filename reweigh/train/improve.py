"""One improvement: many passes over the steps of the last policies, as far as their weights carry.

The objective at each step is `min(rho A, clip(rho, c - clip, c + clip) A)`, where rho is the ratio
of the policy being improved to the one that sampled the step, and c the ratio that the step had
when the improvement began: old steps keep a trust region of their own, around where they are
(Queeney et al. 2021). A is V-trace's estimate of the advantage (Espeholt et al. 2018), its targets
recomputed on all steps before each pass.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from reweigh.core.advantages import vtrace
from reweigh.core.diagnostics import approximate_kl, effective_sample_size
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.returns import reward_to_go
from reweigh.core.segments import Segments
from reweigh.core.surrogates import clipped_ratio
from reweigh.core.weights import truncate
from reweigh.data.batch import Batch
from reweigh.train.config import TrainConfig, settled
from reweigh.train.learner import Learner


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


def improve(
    learner: Learner, batch: Batch, config: TrainConfig, generator: torch.Generator
) -> Improvement:
    """Improve the learner's policy on a batch, in place.

    A pass that has moved the policy by `max_kl` nats per step, or brought the effective sample size
    below `min_ess` of the batch, is the last: beyond it the old steps no longer speak for the new
    policy.

    Raises:
        ValueError: the policy gives NaN.
    """
    if config.standardise:
        learner.measure(batch.observations)
    _standardise_value(learner, batch, config)
    began = _log_prob(learner, batch)
    log_centre = log_ratios(began, batch.log_prob_behaviour, batch.segments)
    weights, epochs = log_centre, 0
    while True:
        targets, advantages = _estimates(learner, batch, weights, config)
        losses = _epoch(learner, batch, targets, advantages, log_centre, config, generator)
        epochs += 1
        now = _log_prob(learner, batch)
        weights = log_ratios(now, batch.log_prob_behaviour, batch.segments)
        kl = float(approximate_kl(log_ratios(now, began, batch.segments), batch.segments))
        ess = float(effective_sample_size(weights)) / len(batch)
        ended_by = _end(epochs, kl, ess, config)
        if ended_by is not None:
            return Improvement(weights, epochs, ended_by, kl, *losses)


def _end(epochs: int, kl: float, ess: float, config: TrainConfig) -> str | None:
    """Return what ends an improvement after so many passes, or None if it goes on."""
    if kl > settled(config.max_kl):
        return "kl"
    if ess < config.min_ess:
        return "ess"
    return "epochs" if epochs == settled(config.epochs) else None


def _standardise_value(learner: Learner, batch: Batch, config: TrainConfig) -> None:
    """Measure the value function in units of the batch's returns."""
    with torch.no_grad():
        bootstrap = learner.value(batch.final_observations) * batch.goes_on
    learner.value.standardise(
        reward_to_go(batch.rewards, batch.segments, discount=config.discount, bootstrap=bootstrap)
    )


def _estimates(
    learner: Learner, batch: Batch, weights: Tensor, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Return V-trace's value targets and advantages of the present policy, both `[S]` float32.

    The advantages carry no ratio of their own step, which is the objective's, and are standardised.
    """
    with torch.no_grad():
        values = learner.value(batch.observations)
        bootstrap = learner.value(batch.final_observations) * batch.goes_on
    bounded = truncate(weights, batch.segments, maximum=1.0).log_weights
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


def _epoch(
    learner: Learner,
    batch: Batch,
    targets: Tensor,
    advantages: Tensor,
    log_centre: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> tuple[float, float, float]:
    """Pass once over the batch; return mean policy loss, value loss and entropy."""
    order = torch.randperm(len(batch), generator=generator)
    entropy_weight = _entropy_weight(config, batch)
    sums = torch.zeros(3)
    minibatches = order.tensor_split(min(settled(config.minibatches), len(batch)))
    for index in minibatches:
        alone = _steps_alone(len(index))
        distribution = learner.policy(batch.observations[index])
        log_prob = _finite(distribution.log_prob(batch.actions[index]))
        ratios = log_ratios(log_prob, batch.log_prob_behaviour[index], alone)
        objective = clipped_ratio(
            ratios, advantages[index], alone, clip=config.clip, log_centre=log_centre[index]
        )
        policy_loss = loss(objective, alone, divisor=len(index))
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
    """Return the weight of the entropy bonus in the improvement of a batch's newest policy."""
    newest = int(batch.policy_version.max())
    return settled(config.entropy) / (1 + settled(config.entropy_decay) * newest)


@lru_cache(maxsize=4)  # the minibatches of a pass have two sizes at most
def _steps_alone(count: int) -> Segments:
    """Return where so many steps lie whose order says nothing."""
    return Segments.packed(torch.tensor([count]))


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
