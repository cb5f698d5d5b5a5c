"""Estimates: a value, how far it may be off, and in words whether to believe it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one estimator says of a policy's value, `E_θ[Σ_t γ^t r_t]`."""

    method: str
    """The estimator's name."""
    value: float
    standard_error: float
    """Of the value, by linearisation; NaN where there is a single episode."""
    low: float
    high: float
    """The confidence interval."""
    level: float
    """Its level, such as 0.95."""
    interval: str
    """Its name, such as "student_t"."""
    episodes: int
    """How many episodes the estimate is from."""
    effective_sample_size: float
    """Kish's, of the weights: up to their number; NaN for an estimator without weights."""
    k_hat: float
    """Shape of the weights' tail; NaN for an estimator without weights."""
    k_hat_threshold: float
    """The largest `k_hat` at which a mean of so many weights is reliable."""
    warnings: tuple[str, ...] = ()
    """Why not to believe it, a sentence each; none where nothing speaks against it."""

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
    environment: str
    episodes: int
    steps: int
    discount: float
    behaviour: str
    """Where the behaviour's log-probabilities come from: `TrajectorySchema.behaviour`."""
    weight_histogram: tuple[int, ...]
    """Episodes by log10 of the trajectory weight, in equal bins from -4 to 4, the first and the
    last open to the outside."""
    ess_by_time: tuple[float, ...]
    """Effective sample size of the product of ratios so far, at each time, in episodes."""

    def __getitem__(self, method: str) -> Estimate:
        return self.estimates[method]
