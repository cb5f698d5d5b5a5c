"""What an evaluation reports: estimates, their errors and doubts, and the weights' profile."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from reweigh.core.diagnostics import ess_of_sums
from reweigh.core.sample import Sample
from reweigh.core.weights import LogSums, log_sums
from reweigh.data.episodes import Unfinished

BINS, LIMIT = 40, 4
"""Bins of the histogram, over log10 of the weight from -LIMIT to LIMIT."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One estimator's estimate of a policy's value, `E_θ[Σ_t γ^t r_t]`."""

    method: str
    """The estimator's name."""
    value: float
    standard_error: float
    """Of the value, by the jackknife; NaN where there is a single episode."""
    low: float
    high: float
    """The confidence interval."""
    level: float
    """Its level, such as 0.95."""
    episodes: int
    """How many episodes the estimate is from."""
    effective_sample_size: float
    """Kish's, of the weights: up to their number; NaN for an estimator without weights."""
    weights: int = 0
    """How many weights those are: of episodes, or of steps; 0 for an estimator without weights."""
    k_hat: float
    """Shape of the weights' tail; NaN for an estimator without weights."""
    k_hat_threshold: float
    """The largest `k_hat` at which a mean of so many weights is reliable."""
    warnings: tuple[str, ...] = ()
    """Why not to believe it, a sentence each; none where nothing speaks against it."""

    def __str__(self) -> str:
        return (
            f"{self.method}: {self.value:.4g} ± {self.standard_error:.2g} (standard error), "
            f"{self.level:.0%} interval {self.low:.4g} to {self.high:.4g}"
            f"{'' if self.believable else ', not to be believed: ' + ' '.join(self.warnings)}"
        )

    @property
    def believable(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.warnings


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a policy is, by every estimator that was asked.

    `evaluation["per_decision"]` is one of them.
    """

    estimates: Mapping[str, Estimate]
    """By the estimator's name, the behaviour's own value first."""
    left_out: Mapping[str, str]
    """Estimators that do not apply to this log, and why."""
    unfinished: Unfinished
    """Episodes without a start or an end, which are left out of all other counts."""
    environment: str | None
    """None for trajectories in memory."""
    episodes: int
    """How many whole episodes."""
    steps: int
    """How many steps they have."""
    discount: float
    level: float
    """The level of the confidence intervals."""
    interval: str
    """The name of the confidence intervals, such as "student_t"."""
    behaviour: str
    """Where the behaviour's log-probabilities come from: `TrajectorySchema.behaviour`."""
    weight_histogram: tuple[int, ...]
    """Episodes by log10 of the trajectory weight, in `BINS` equal bins, the outer ones
    open; empty if there are no weights, since the behaviour's log-probabilities are missing."""
    ess_by_time: tuple[float, ...]
    """Effective sample size of the product of ratios so far, at each time, in episodes."""

    def __getitem__(self, method: str) -> Estimate:
        """The estimate of an estimator.

        Raises:
            ValueError: There is none, or it does not apply; says why.
        """
        if method in self.left_out:
            raise ValueError(f"{method} does not apply: {self.left_out[method]}")
        if method not in self.estimates:
            raise ValueError(f"no estimator {method!r} was asked, only {', '.join(self.estimates)}")
        return self.estimates[method]


class WeightProfile(NamedTuple):
    """The weights of a sample or of a part of it; profiles of parts merge exactly."""

    histogram: Tensor
    """`[BINS]` int64: episodes by log10 of the trajectory weight, the outer bins open."""
    sums: LogSums
    """Of the product of ratios so far, at each time."""
    sums_of_squares: LogSums

    @classmethod
    def of(cls, sample: Sample) -> Self | None:
        """The profile of a sample; None if it has no log-probabilities of the behaviour."""
        if sample.log_prob_behaviour is None:
            return None
        log10 = sample.log_trajectory / torch.log(torch.tensor(10.0, dtype=torch.float64))
        place = ((log10 + LIMIT) * BINS / (2 * LIMIT)).floor().clamp(0, BINS - 1).long()
        return cls(
            torch.bincount(place, minlength=BINS),
            log_sums(sample.log_prefix, sample.segments),
            log_sums(2 * sample.log_prefix, sample.segments),
        )

    @property
    def ess_by_time(self) -> Tensor:
        """`[T]` float64: effective sample size at each time; ended episodes keep their weight."""
        return ess_of_sums(self.sums, self.sums_of_squares)[0]


def merge_profiles(
    first: WeightProfile | None, second: WeightProfile | None
) -> WeightProfile | None:
    """The profile of two parts together; None if one of them has none."""
    if first is None or second is None:
        return None
    return WeightProfile(
        first.histogram + second.histogram,
        first.sums.merge(second.sums),
        first.sums_of_squares.merge(second.sums_of_squares),
    )
