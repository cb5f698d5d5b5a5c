"""Estimates: a value, how far it may be off, and in words whether to believe it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one estimator says of a policy's value, `E_θ[Σ_t γ^t r_t]`."""

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


class Unfinished(NamedTuple):
    """What an evaluation left out because it has no end yet."""

    episodes: int
    steps: int
    of_episodes: int
    """Episodes of the log, the unfinished ones among them."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a policy is, by every estimator that was asked.

    `evaluation["per_decision"]` is one of them.
    """

    estimates: Mapping[str, Estimate]
    """By the estimator's name, the behaviour's own value first."""
    left_out: Mapping[str, str]
    """Estimators that do not apply to this log, and why."""
    environment: str | None
    """None if what was evaluated from is no log."""
    episodes: int
    steps: int
    discount: float
    level: float
    """The level of the confidence intervals."""
    interval: str
    """The name of the confidence intervals, such as "student_t"."""
    behaviour: str
    """Where the behaviour's log-probabilities come from: `TrajectorySchema.behaviour`."""
    weight_histogram: tuple[int, ...]
    """Episodes by log10 of the trajectory weight, in `profile.BINS` equal bins, the outer ones
    open; empty if there are no weights, since the behaviour's log-probabilities are missing."""
    ess_by_time: tuple[float, ...]
    """Effective sample size of the product of ratios so far, at each time, in episodes."""
    unfinished: Unfinished | None = None
    """None if every episode of the log has an end."""

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
