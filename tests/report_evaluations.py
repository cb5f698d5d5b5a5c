"""Evaluations that are made up, so that a test knows every number that is to be shown."""

import math
from dataclasses import replace

from reweigh.data.episodes import Unfinished
from reweigh.evaluation.estimates import BINS, Estimate, Evaluation

K_HAT = "k-hat is 0.93, above 0.67, the limit for 1000 episodes: standard errors are unreliable."
MODEL = "It rests on a model that was fitted to the log, and no weight tells whether that is right."
MEAN = "The mean weight is 0.61 ± 0.05 (standard error) where 1 is expected."


def estimate(method, value, standard_error, **changes) -> Estimate:
    """An estimate from 1,000 episodes that can be believed, with weights."""
    made = Estimate(
        method=method,
        value=value,
        standard_error=standard_error,
        low=value - 2 * standard_error,
        high=value + 2 * standard_error,
        level=0.95,
        episodes=1000,
        effective_sample_size=412.3,
        weights=1000,
        k_hat=0.413,
        k_hat_threshold=0.667,
    )
    return replace(made, **changes)


def without_weights(method, value, standard_error, **changes) -> Estimate:
    """An estimate that weighs nothing."""
    nothing = dict.fromkeys(("effective_sample_size", "k_hat", "k_hat_threshold"), math.nan)
    return estimate(method, value, standard_error, weights=0, **nothing, **changes)


BEHAVIOUR = without_weights("behaviour", 20.31, 0.3)
ESTIMATES = (
    BEHAVIOUR,
    estimate("importance_sampling", 25.2, 1.31, warnings=(MEAN, K_HAT), k_hat=0.93),
    estimate("per_decision", 23.9, 0.42),
    estimate("weighted_importance_sampling", 24.1, 0.71),
    estimate("weighted_per_decision", 23.41, 0.48),
    without_weights("direct_method", 22.9, 0.05, warnings=(MODEL,)),
    estimate(
        "tabular_marginal", 22.13, 0.2, warnings=(K_HAT,), weights=20000, effective_sample_size=9000
    ),
)

NAN, INF = math.nan, math.inf
SURE = ESTIMATES[4]
HUGE = estimate("importance_sampling", 1.2e30, 3e29, warnings=(K_HAT,))
LOST = estimate(
    "per_decision", NAN, NAN, low=NAN, high=NAN, effective_sample_size=0.0, k_hat=INF,
    warnings=("The tail of 1 episodes cannot be judged.",),
)  # fmt: skip
OPEN = estimate("truncated_importance_sampling", 3.0, INF, low=-INF, high=INF, warnings=(K_HAT,))
ALONE = without_weights("behaviour", 7.0, NAN, low=NAN, high=NAN, episodes=1)


def evaluation(*estimates, **changes) -> Evaluation:
    """An evaluation of 1,000 episodes and 20,000 steps; of `ESTIMATES` unless others are given."""
    histogram = [0] * BINS
    histogram[0], histogram[BINS // 2 - 1], histogram[BINS // 2] = 100, 500, 400
    made = Evaluation(
        estimates={e.method: e for e in estimates or ESTIMATES},
        left_out={
            "kernel_marginal": "observations are not numbers",
            "doubly_robust": "there is one episode",
            "weighted_doubly_robust": "there is one episode",
        },
        unfinished=Unfinished(0, 0),
        environment="CartPole-v1",
        episodes=1000,
        steps=20000,
        discount=0.99,
        level=0.95,
        interval="student_t",
        behaviour="recorded",
        weight_histogram=tuple(histogram),
        ess_by_time=tuple(1000 * 0.97**t for t in range(30)),
    )
    return replace(made, **changes)
