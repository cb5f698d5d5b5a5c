"""What learns: an objective, a policy with its optimiser, and the region that it may not leave.

The objective is what `reweigh evaluate` reports: the estimate of a value recipe, differentiated in
the policy's log-probabilities. A critic of values of states, `Q̂(s, a) = V̂(s)`, is a constant.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reweigh import recipes
from reweigh.core.advantages import vtrace
from reweigh.core.diagnostics import WeightReading, read, weight_health
from reweigh.core.sample import Sample
from reweigh.core.sums import kish_sample_size
from reweigh.core.weights import truncate
from reweigh.data.batch import Batch
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.methods import CRITIC
from reweigh.evaluation.policies import act
from reweigh.learning.config import LearnConfig
from reweigh.learning.critic import ValueFunction, unit_of
from reweigh.learning.division import Part, minibatches
from reweigh.recipes import ValueRecipe
from reweigh.recipes.expectation import BEHAVIOUR

FIRST_RATE = 1e-3
"""Step size of Adam in the first epoch; later ones go by how far it took the policy."""
LEAST_GRADIENT = 1e-5
"""Adam's ε. What a parameter changes by less than this is hardly followed: steps of one size for
all parameters would soon lead to actions that were never taken, of which the log says nothing."""


@dataclass(frozen=True)
class Objective:
    """What is maximised, and by which weights it may be believed."""

    value: Callable[[Sample, Tensor], Tensor]
    """From a sample and the values `[S]` of its states to a scalar float64."""
    needs_values: bool
    """Whether the values are read."""
    of_steps: bool = False
    """Whether its weights are single steps' ratios, so that the trust region bounds these, and not
    the products of whole episodes."""


LEARNABLE = {
    name: recipe
    for name, recipe in recipes.VALUES.items()
    if recipe.estimated != BEHAVIOUR and set(recipe.inputs) <= set(CRITIC)
}
"""Value recipes, but the behaviour's own, that need a sample and at most a critic."""


def objective_of(estimator: str | ValueRecipe) -> Objective:
    """The objective of a recipe, or of the name of one of `LEARNABLE` or of `ppo`.

    Raises:
        ValueError: No such name; a recipe that needs more than a critic.
    """
    if isinstance(estimator, str):
        name = estimator.replace("-", "_")
        if name == "ppo":
            return Objective(clipped_steps, needs_values=True, of_steps=True)
        if name not in LEARNABLE:
            raise ValueError(
                f"estimator is {estimator!r}; use one of {', '.join((*LEARNABLE, 'ppo'))}"
            )
        estimator = LEARNABLE[name]
    recipe, inputs = estimator, len(estimator.inputs)
    if not set(recipe.inputs) <= set(CRITIC):
        raise ValueError(
            f"{recipe.name} needs {', '.join(recipe.inputs)}, and learning has a critic alone "
            f"({', '.join(CRITIC)})"
        )
    return Objective(
        lambda sample, values: recipe.estimate(sample, *[values] * inputs), needs_values=inputs > 0
    )


def clipped_steps(
    sample: Sample, values: Tensor, *, clip: float = 0.2, trace_lambda: float = 0.95
) -> Tensor:
    """The recipe `ppo` around the behaviour, with V-trace's advantages times `γ^t`.

    It keeps the behaviour's states, and no weight is a product over time: biased away from the
    behaviour, and of a variance that does not grow with the horizon.

    Args:
        sample: The episodes.
        values: `[S]`.
        clip: ε of the recipe.
        trace_lambda: λ of V-trace.

    Returns:
        Scalar, in deviations of the advantages. Its gradient at the behaviour is that of the policy
        gradient with these advantages.
    """
    rewards, values = sample.require_rewards(), sample.steps("values", values)
    bounded = truncate(sample.log_ratios.detach(), sample.segments, maximum=1.0).log_weights
    trace = vtrace(
        rewards,
        values,
        values.new_zeros(len(sample)),
        bounded,
        bounded,
        sample.segments,
        discount=sample.discount,
        trace_lambda=trace_lambda,
    )
    advantages = trace.action_values - values
    size = float(values.abs().max() + rewards.abs().max())
    advantages = (advantages - advantages.mean()) / unit_of(advantages, size=size)
    return -recipes.ppo(sample, sample.discount_from_start * advantages, clip=clip)


@dataclass
class LearningPolicy:
    """A policy and its optimiser."""

    policy: nn.Module
    optimiser: torch.optim.Adam

    @classmethod
    def create(cls, policy: nn.Module) -> "LearningPolicy":
        """A policy, which learning changes, with a new optimiser.

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
    learner: LearningPolicy,
    part: Part,
    objective: Objective,
    critic: ValueFunction | None,
    *,
    discount: float,
    unit: float,
    count: int,
    seed: tuple[int, ...],
) -> float:
    """Passes once over the episodes, with a step of the optimiser for each minibatch.

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
    reached = []
    for batch in part.batches():
        for minibatch in minibatches(batch, count, generator):
            values = values_of(minibatch, critic)
            value = objective.value(_sample(learner.policy, minibatch, discount), values)
            learner.optimiser.zero_grad()
            (-value / unit).backward()
            learner.optimiser.step()
            reached.append(float(value.detach()))
    return sum(reached) / len(reached)


def values_of(batch: Batch, critic: ValueFunction | None) -> Tensor:
    """A value function's values of all steps, `[S]` float64; 0 without one."""
    return torch.zeros_like(batch.rewards) if critic is None else critic(batch)


def _sample(policy: nn.Module, batch: Batch, discount: float) -> Sample:
    """The episodes of a batch, their log-probabilities under the policy differentiable."""
    log_prob = act(policy, batch.observations).log_prob(batch.actions)
    if not log_prob.isfinite().all():
        raise ValueError(
            "the policy gives NaN or a probability of 0 to an action that was taken: it has "
            "diverged, or cannot act as the log does; try a smaller pace"
        )
    return Sample(log_prob, batch.log_prob_behaviour, batch.segments, batch.rewards, discount)


@dataclass(frozen=True)
class Distance:
    """How far a policy is from the behaviour, on the episodes it learns from."""

    ess: float
    """Effective sample size of the estimator's weights, as a share of their number."""
    kl: float
    """`KL(θ ‖ φ)`, nats per step, estimated on the logged actions."""
    trajectories: WeightReading
    """Of the weights of whole episodes, by which the policy will be tested."""

    def broken(self, config: LearnConfig) -> str | None:
        """The bound that the policy is beyond, "ess" or "kl", or None."""
        if not self.ess >= config.min_episode_ess:
            return "ess"
        return None if self.kl <= config.max_kl_from_behaviour else "kl"

    def travelled(self, config: LearnConfig) -> float:
        """How far it has come: 0 at the behaviour, 1 where the episodes' weights reach the edge.

        Divergences grow with the square of the way, and so does the logarithm of the effective
        sample size, `-D_2`: their roots are in proportion to it.
        """
        least = max(config.min_episode_ess, 0.01)
        by_ess = math.log(max(self.trajectories.ess_share, 1e-300)) / math.log(least)
        return math.sqrt(max(by_ess, self.kl / config.max_kl_from_behaviour, 0.0))


def logged(part: Part, policy: nn.Module, *, discount: float) -> Iterator[Logged]:
    """The episodes under a policy, some at a time."""
    return (Logged.of(batch, policy, discount=discount) for batch in part.batches())


def measure(part: Part, policy: nn.Module, objective: Objective, *, discount: float) -> Distance:
    """How far a policy is from what sampled the episodes, in one pass.

    Raises:
        ValueError: The policy is of another space, or gives NaN; the log's log-probabilities are
            missing.
    """
    steps = trajectories = None
    for sample in (x.sample for x in logged(part, policy, discount=discount)):
        of_steps = weight_health(sample.log_ratios)
        of_trajectories = weight_health(sample.log_trajectory)
        steps = of_steps if steps is None else steps.merge(of_steps)
        trajectories = (
            of_trajectories if trajectories is None else trajectories.merge(of_trajectories)
        )
    assert steps is not None and trajectories is not None, "no part is empty"
    number = float(steps.sample_size)
    reading = read(trajectories).total
    size = float(kish_sample_size(steps.log_sum, steps.log_sum_of_squares))
    return Distance(
        size / number if objective.of_steps else reading.ess_share,
        float(steps.log_kl_from_target.exp()) / number,
        reading,
    )
