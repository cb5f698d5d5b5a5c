"""What learns, one pass at a time: a policy and its optimiser."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from reweigh.data.batch import Batch
from reweigh.evaluation.policies import act
from reweigh.evaluation.sample import Sample
from reweigh.learning.critic import Critic
from reweigh.learning.division import Part, minibatches
from reweigh.learning.estimators import Objective
from reweigh.learning.origin import saying_what_is_not_a_number

FIRST_RATE = 1e-3
"""Step size of Adam in the first epoch; later ones go by how far it took the policy."""
LEAST_GRADIENT = 1e-5
"""Adam's ε. What a parameter changes by less than this is hardly followed: steps of one size for
all parameters would soon lead to actions that were never taken, of which the log says nothing."""


@dataclass
class Learner:
    """A policy and its optimiser."""

    policy: nn.Module
    optimiser: torch.optim.Adam

    @classmethod
    def create(cls, policy: nn.Module) -> "Learner":
        """A learner of a policy, which it changes.

        Raises:
            ValueError: The policy has no parameters to learn.
        """
        parameters = [p for p in policy.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("the policy has no parameters that require a gradient: nothing learns")
        return cls(policy, torch.optim.Adam(parameters, lr=FIRST_RATE, eps=LEAST_GRADIENT))

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
    objective: Objective,
    critic: Critic | None,
    *,
    discount: float,
    unit: float,
    count: int,
    seed: tuple[int, ...],
) -> float:
    """Go once through the episodes, a step of the optimiser for each minibatch.

    Args:
        learner: Changed in place.
        part: The episodes.
        objective: What it maximises.
        critic: A value function for it; without one the values are 0.
        discount: γ.
        unit: What the objective is measured in, such as the deviation of returns.
        count: Minibatches of each batch.
        seed: Of their order.

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
            values = torch.zeros_like(some.rewards) if critic is None else critic(some)
            reached = objective(_sample(learner.policy, some, discount), values)
            learner.optimiser.zero_grad()
            (-reached / unit).backward()
            learner.optimiser.step()
            found.append(float(reached.detach()))
    return sum(found) / len(found)


def _sample(policy: nn.Module, batch: Batch, discount: float) -> Sample:
    """The episodes of a batch, their log-probabilities under the policy differentiable."""
    with saying_what_is_not_a_number():
        log_prob = act(policy, batch.observations).log_prob(batch.actions)
    if not log_prob.isfinite().all():
        raise ValueError(
            "the policy gives NaN or a probability of 0 to an action that was taken: it has "
            "diverged, or cannot act as the log does; try a smaller pace"
        )
    return Sample(batch.rewards, log_prob, batch.log_prob_behaviour, batch.segments, discount)
