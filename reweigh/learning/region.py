"""The trust region: how far a policy is from what sampled the log, and how far it may be."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from reweigh.core.diagnostics import WeightReading, read, weight_health
from reweigh.core.sums import kish_sample_size
from reweigh.evaluation.sample import Sample
from reweigh.learning.config import LearnConfig
from reweigh.learning.division import Part
from reweigh.learning.estimators import Estimator


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
        if not self.ess >= config.min_ess:
            return "ess"
        return None if self.kl <= config.max_kl else "kl"

    def travelled(self, config: LearnConfig) -> float:
        """How far it has come: 0 at the behaviour, 1 where the episodes' weights reach the edge.

        Divergences grow with the square of the way, and so does the logarithm of the effective
        sample size, `-D_2`: their roots are in proportion to it.
        """
        least = max(config.min_ess, 0.01)
        by_ess = math.log(max(self.trajectories.ess_share, 1e-300)) / math.log(least)
        return math.sqrt(max(by_ess, self.kl / config.max_kl, 0.0))


def samples(part: Part, policy: nn.Module, *, discount: float) -> Iterator[Sample]:
    """The episodes under a policy, some at a time."""
    return (Sample.of(batch, policy, discount=discount) for batch in part.batches())


def measure(part: Part, policy: nn.Module, estimator: Estimator, *, discount: float) -> Distance:
    """How far a policy is from what sampled the episodes, in one pass.

    Raises:
        ValueError: The policy is of another space, or gives NaN; the log's log-probabilities are
            missing.
    """
    steps = trajectories = None
    for sample in samples(part, policy, discount=discount):
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
        size / number if estimator.of_steps else reading.ess_share,
        float(steps.log_kl_from_target.exp()) / number,
        reading,
    )
