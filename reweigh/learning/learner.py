"""What learns, one pass at a time: a policy, its value function, and the pace they go at."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reweigh.data.batch import Batch
from reweigh.evaluation.policies import act
from reweigh.evaluation.sample import Sample
from reweigh.learning.critic import Critic
from reweigh.learning.division import Part, minibatches
from reweigh.learning.estimators import Estimator, targets

FIRST_RATE = 1e-3
"""Step size of Adam in the first epoch; later ones go by how far it took the policy."""
CRITIC_RATE = 1e-2
"""Step size of Adam for the value function."""
LEAST_GRADIENT = 1e-5
"""Adam's ε. What a parameter changes by less than this is hardly followed: steps of one size for
all parameters would soon lead to actions that were never taken, of which the log says nothing."""


@dataclass
class Learner:
    """A policy, its value function if it has one, and their optimiser."""

    policy: nn.Module
    critic: Critic | None
    optimiser: torch.optim.Adam

    @classmethod
    def create(cls, policy: nn.Module, critic: Critic | None) -> "Learner":
        """A learner of networks that are its own.

        Raises:
            ValueError: The policy has no parameters to learn.
        """
        parameters = [p for p in policy.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("the policy has no parameters that require a gradient: nothing learns")
        groups = [{"params": parameters, "lr": FIRST_RATE}]
        if critic is not None:
            groups.append({"params": list(critic.parameters()), "lr": CRITIC_RATE})
        return cls(policy, critic, torch.optim.Adam(groups, eps=LEAST_GRADIENT))

    @property
    def rate(self) -> float:
        """Step size for the policy."""
        return self.optimiser.param_groups[0]["lr"]

    @rate.setter
    def rate(self, rate: float) -> None:
        self.optimiser.param_groups[0]["lr"] = rate


def learn_pass(
    learner: Learner,
    part: Part,
    estimator: Estimator,
    *,
    discount: float,
    unit: float,
    count: int,
    seed: tuple[int, ...],
    policy_too: bool = True,
) -> float:
    """Go once through the episodes, a step of the optimiser for each minibatch.

    Args:
        learner: Changed in place.
        part: The episodes.
        estimator: What the policy maximises.
        discount: γ.
        unit: What the objective is measured in, such as the deviation of returns.
        count: Minibatches of each batch.
        seed: Of their order.
        policy_too: False fits the value function alone.

    Returns:
        The mean objective.

    Raises:
        ValueError: The policy gives NaN.
    """
    entropy = np.random.SeedSequence(seed).generate_state(1)
    generator = torch.Generator().manual_seed(int(entropy[0]))
    found = []
    for batch in part.batches():
        for some in minibatches(batch, count, generator):
            learner.optimiser.zero_grad()
            objective, loss = _losses(learner, some, estimator, discount)
            (loss - objective / unit if policy_too else loss).backward()
            learner.optimiser.step()
            found.append(float(objective.detach()))
    return sum(found) / len(found)


def _losses(
    learner: Learner, batch: Batch, estimator: Estimator, discount: float
) -> tuple[Tensor, Tensor]:
    """What the policy maximises, and what the value function minimises."""
    log_prob = act(learner.policy, batch.observations).log_prob(batch.actions)
    if not log_prob.isfinite().all():
        raise ValueError(
            "the policy gives NaN or a probability of 0 to an action that was taken: it has "
            "diverged, or cannot act as the log does; try a smaller pace"
        )
    sample = Sample(batch.rewards, log_prob, batch.log_prob_behaviour, batch.segments, discount)
    if learner.critic is None:
        return estimator.objective(sample, torch.zeros_like(batch.rewards)), torch.zeros(())
    values = learner.critic(batch)
    fitted = learner.critic.loss(values, targets(sample, values))
    return estimator.objective(sample, values.detach()), fitted
