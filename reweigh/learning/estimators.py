"""What learning maximises: estimates of the policy's value, differentiated.

An estimator is a function of a sample, whose log-probabilities are those of the policy that learns,
and of a value function's values at its steps, constants here. It gives a scalar to maximise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reweigh.core.advantages import one_step, vtrace
from reweigh.core.reduce import loss
from reweigh.core.returns import discount_from_start
from reweigh.core.surrogates import clipped_ratio
from reweigh.core.terms import Terms, Weighted, totals
from reweigh.core.weights import truncate, weigh
from reweigh.evaluation import importance
from reweigh.evaluation.sample import Sample
from reweigh.learning.units import unit_of

Objective = Callable[[Sample, Tensor], Tensor]
"""From a sample and the values `[S]` of its states to a scalar float64, to be maximised."""


@dataclass(frozen=True)
class Estimator:
    """What is maximised, and by which weights it may be believed."""

    objective: Objective
    critic: bool
    """Whether it takes a value function; without one the values are 0."""
    of_steps: bool = False
    """Whether its weights are single steps' ratios, so that the trust region bounds these, and not
    the products of whole episodes."""


def per_decision(sample: Sample, values: Tensor) -> Tensor:
    """Per-decision importance sampling: `(1/N) Σ_i Σ_t γ^t w_it r_it`.

    Its gradient is the recipe `per_decision`, unbiased for that of the policy's value.

    Returns:
        Scalar. It is `doubly_robust` where all values are 0.
    """
    del values
    return totals(importance.per_decision(sample)).value


def weighted_per_decision(sample: Sample, values: Tensor) -> Tensor:
    """Self-normalised per-decision importance sampling: `Σ_t γ^t Σ_i w_it r_it / Σ_i w_it`.

    Its gradient weighs each reward against the mean reward at its time, a baseline of time alone.

    Returns:
        Scalar. It is `weighted_doubly_robust` where all values are 0.
    """
    del values
    return totals(importance.weighted_per_decision(sample)).value


def doubly_robust(sample: Sample, values: Tensor) -> Tensor:
    """Doubly robust with values of states: `(1/N) Σ_i [V_i0 + Σ_t γ^t w_it δ_it]`.

    With `δ_t = r_t + γ V_{t+1} - V_t`, the value 0 where an episode ends. Jiang and Li 2016,
    equation 10, with `Q̂(s, a) = V(s)`. Unbiased for every V that is not fitted to this sample; the
    closer V to the policy's values, the smaller its variance.

    Returns:
        Scalar. With weights of 1 it is the mean return, whatever V.
    """
    differences = _differences(sample, values)
    weighted = weigh(sample.log_prefix, differences)
    return totals(Terms(_first(sample, values) + sample.segments.total(weighted))).value


def weighted_doubly_robust(sample: Sample, values: Tensor) -> Tensor:
    """Self-normalised `doubly_robust`: `(1/N) Σ_i V_i0 + Σ_t γ^t Σ_i w_it δ_it / Σ_i w_it`.

    Thomas and Brunskill 2016, equation 4, with `Q̂(s, a) = V(s)`. Consistent, as
    `weighted_per_decision`, and of smaller variance where V is good.

    Returns:
        Scalar. With weights of 1 it is the mean return, whatever V.
    """
    return totals(weighted_terms(sample, values)).value


def weighted_terms(sample: Sample, values: Tensor) -> Terms:
    """The terms of `weighted_doubly_robust`, by which an improvement is tested.

    Returns:
        Terms. With values of 0 they are those of `evaluation.importance.weighted_per_decision`.
    """
    weighted = Weighted(_differences(sample, values), sample.log_prefix, sample.segments)
    return Terms(_first(sample, values), weighted, sample.log_trajectory)


def step(
    sample: Sample, values: Tensor, *, clip: float = 0.2, trace_lambda: float = 0.95
) -> Tensor:
    """Single steps' clipped ratios: `(1/N) Σ_i Σ_t γ^t min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)`.

    Schulman et al. 2017, equation 7, around the behaviour, with V-trace's advantages (Espeholt et
    al. 2018). It keeps the behaviour's states, and no weight is a product over time: biased away
    from the behaviour, and of a variance that does not grow with the horizon.

    Args:
        sample: The episodes.
        values: `[S]`.
        clip: ε.
        trace_lambda: λ of V-trace.

    Returns:
        Scalar, in deviations of the advantages. Its gradient at the behaviour is that of the policy
        gradient with these advantages.
    """
    segments = sample.segments
    after = torch.zeros(len(segments), dtype=torch.float64)
    bounded = truncate(sample.log_ratios.detach(), segments, maximum=1.0).log_weights
    trace = vtrace(
        sample.rewards,
        values,
        after,
        bounded,
        bounded,
        segments,
        discount=sample.discount,
        trace_lambda=trace_lambda,
    )
    values = segments.as_float64("values", values)
    advantages = trace.action_values - values
    size = float(values.abs().max() + sample.rewards.abs().max())
    advantages = (advantages - advantages.mean()) / unit_of(advantages, size=size)
    discounted = discount_from_start(segments, discount=sample.discount) * advantages
    return -loss(clipped_ratio(sample.log_ratios, discounted, segments, clip=clip), segments)


def _differences(sample: Sample, values: Tensor) -> Tensor:
    """`γ^t δ_t`, `[S]`."""
    after = torch.zeros(len(sample), dtype=torch.float64)
    target = one_step(sample.rewards, values, after, sample.segments, discount=sample.discount)
    discount = discount_from_start(sample.segments, discount=sample.discount)
    return discount * (target - sample.segments.as_float64("values", values))


def _first(sample: Sample, values: Tensor) -> Tensor:
    """The values of the first states, `[N]`."""
    return sample.segments.total(torch.where(sample.segments.is_first, values.double(), 0.0))


ESTIMATORS: Mapping[str, Estimator] = {
    "per_decision": Estimator(per_decision, False),
    "weighted_per_decision": Estimator(weighted_per_decision, False),
    "doubly_robust": Estimator(doubly_robust, True),
    "weighted_doubly_robust": Estimator(weighted_doubly_robust, True),
    "step": Estimator(step, True, of_steps=True),
}
"""By the name that `LearnConfig.estimator` has for it."""
