"""Confidence intervals of an estimate: what each assumes, and what it holds for.

An interval is a function of `Evidence` and a level. Those that rest on the central limit theorem
(`normal`, `student_t`, `bootstrap`, `bias_corrected_bootstrap`) hold for any estimator, on samples
that are large enough; `hoeffding` and `empirical_bernstein` hold on every sample, for means of
terms whose range is known beforehand. All are two-sided: a bound on one side at 95 % is that side
of an interval at 90 %.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor
from torch.special import ndtr, ndtri

from reweigh import contracts
from reweigh.core.terms import Terms
from reweigh.evaluation.resampling import leave_one_out, resampled

_ROUNDING = 1e-9


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """An estimate, and what its error is read from."""

    value: float
    influence: Tensor
    """`[N]` float64: `terms.influence`, of all parts of the sample."""
    parts: Callable[[], Iterable[Terms]]
    """The terms of each part, again."""

    @cached_property
    def terms(self) -> Terms:
        """Those of the whole sample, in memory."""
        return Terms.concatenate(list(self.parts()))

    @property
    def standard_error(self) -> float:
        """`sqrt(Σ_i (e_i - V̂)² / (N (N - 1)))`; NaN for a single unit."""
        count = len(self.influence)
        return float(self.influence.std()) / math.sqrt(count) if count > 1 else math.nan


ConfidenceInterval = Callable[[Evidence, float], Interval]
"""Makes the interval of a level in (0, 1) from what an estimate rests on."""


def normal(evidence: Evidence, level: float) -> Interval:
    """`V̂ ± z SE`, with the standard error of the jackknife (`terms.influence`).

    For a ratio of means the pseudo-values count the error of the normaliser too. Right as N grows;
    on few or heavily weighted episodes too narrow.

    Raises:
        ValueError: A level outside (0, 1).
    """
    _require_level(level)
    return _symmetric(evidence, float(ndtri(_tails(level)[1])))


def student_t(evidence: Evidence, level: float) -> Interval:
    """`V̂ ± t SE`, with Student's quantile at the degrees of freedom that the variance has.

        ν = min(N - 1, 2 N m_2² / (m_4 - m_2²)),    m_k = mean of (e_i - ē)^k

    Satterthwaite 1946: `2 σ⁴ / Var(s²)`, with the variance that `s²` has by the fourth moment. `N -
    1` for normal terms and lighter tails; few where a few terms make up the variance, since it is
    then a guess. Never narrower than `normal`.

    Raises:
        ValueError: A level outside (0, 1).
    """
    _require_level(level)
    freedom = _freedom(evidence.influence)
    t = float(stdtrit(freedom, (1 + level) / 2)) if freedom else math.nan
    return _symmetric(evidence, t)


def _freedom(influence: Tensor) -> float:
    """The degrees of freedom of the variance of `[N]` terms; 0 of a single one."""
    squares = (influence - influence.mean()).square()
    variance, spread = float(squares.mean()), float(squares.var(correction=0))
    most = len(influence) - 1
    return min(most, 2 * len(influence) * variance**2 / spread) if spread > 0 else most


def bootstrap(
    evidence: Evidence, level: float, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over episodes, each resample normalised by its own weights.

    Efron and Tibshirani 1993, chapter 13. Quantiles of the estimates of samples that are drawn from
    the episodes with replacement. Values that were normalised before they are drawn, as elsewhere,
    would leave out the normaliser's error.

    Args:
        evidence: The estimate; its terms are held in memory.
        level: In (0, 1).
        resamples: How many.
        seed: Draws them; the global random state is neither used nor changed.

    Raises:
        ValueError: A level outside (0, 1); fewer than one resample; an estimator whose units are
            not episodes.
    """
    _require_level(level)
    drawn = _resampled(evidence, resamples, seed)
    return Interval(*drawn.quantile(_tails(level)).tolist())


def bias_corrected_bootstrap(
    evidence: Evidence, level: float, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The bootstrap, bias-corrected and accelerated (BCa): quantiles moved for bias and skewness.

    Efron 1987; Efron and Tibshirani 1993, section 14.3, with the acceleration from leaving out one
    episode at a time. Second-order accurate where `bootstrap` is first-order.

    Args:
        evidence: The estimate; its terms are held in memory.
        level: In (0, 1).
        resamples: How many.
        seed: Draws them.

    Raises:
        ValueError: As `bootstrap`.
    """
    _require_level(level)
    drawn = _resampled(evidence, resamples, seed)
    difference = drawn - evidence.value
    # Resamples of the same value, as of a few returns that differ, are so up to rounding.
    size = abs(evidence.value) + float(difference.abs().max())
    tied = difference.abs() <= _ROUNDING * size
    below = ((difference < 0) & ~tied).double().mean() + tied.double().mean() / 2
    # Within the resolution of the resamples, lest the correction be infinite.
    bias = ndtri(below.clamp(0.5 / resamples, 1 - 0.5 / resamples))
    left_out = leave_one_out(evidence.terms)
    difference = left_out.mean() - left_out
    spread = difference.square().sum()
    acceleration = difference.pow(3).sum() / (6 * spread.pow(1.5)) if spread > 0 else spread
    z = bias + ndtri(_tails(level))
    moved = ndtr(bias + z / (1 - acceleration * z))
    return Interval(*drawn.quantile(moved).tolist())


def hoeffding(evidence: Evidence, level: float, *, lowest: float, highest: float) -> Interval:
    """Hoeffding's: `V̂ ± (b - a) sqrt(ln(2/δ) / 2N)`, with `δ = 1 - level`.

    Hoeffding 1963, theorem 2. Holds on every sample of terms that lie in [a, b]; wide, since it
    knows nothing but their range.

    Args:
        evidence: The estimate, a mean.
        level: In (0, 1).
        lowest: a, below which no term of any sample can lie.
        highest: b, above which none can.

    Raises:
        ValueError: A level outside (0, 1); an estimator that is no mean; a term outside the range.
    """
    _require_level(level)
    _require_range(evidence, lowest, highest)
    half = (highest - lowest) * math.sqrt(math.log(2 / (1 - level)) / (2 * len(evidence.influence)))
    return Interval(evidence.value - half, evidence.value + half)


def empirical_bernstein(
    evidence: Evidence, level: float, *, lowest: float, highest: float
) -> Interval:
    """Maurer and Pontil's: `V̂ ± (sqrt(2 s² ln(4/δ) / N) + 7 (b - a) ln(4/δ) / 3(N - 1))`.

    Maurer and Pontil 2009, theorem 4, for both sides. Holds on every sample, as `hoeffding`, and is
    the narrower where the terms vary little in their range.

    Args:
        evidence: The estimate, a mean.
        level: In (0, 1).
        lowest: a, below which no term of any sample can lie.
        highest: b, above which none can.

    Raises:
        ValueError: As `hoeffding`; a single episode.
    """
    _require_level(level)
    _require_range(evidence, lowest, highest)
    count = len(evidence.influence)
    if count < 2:
        raise ValueError("empirical_bernstein needs the variance of at least 2 episodes, got 1")
    log_term = math.log(4 / (1 - level))
    variance = float(evidence.influence.var())
    half = math.sqrt(2 * variance * log_term / count)
    half += 7 * (highest - lowest) * log_term / (3 * (count - 1))
    return Interval(evidence.value - half, evidence.value + half)


def of_returns(
    interval: Callable[..., Interval], *, lowest: float, highest: float
) -> ConfidenceInterval:
    """`hoeffding` or `empirical_bernstein` for returns of a known range.

    Args:
        interval: Either.
        lowest: The lowest return that any policy can have.
        highest: The highest.

    Returns:
        The interval, with the range that terms have by the estimator's largest weight.

    Raises:
        ValueError: A range that is none.
    """
    if not -math.inf < lowest < highest < math.inf:
        raise ValueError(
            f"returns cannot range from {lowest:g} to {highest:g}: give LOW, then HIGH"
        )

    def for_returns(evidence: Evidence, level: float) -> Interval:
        spread = evidence.terms.maximum_weight * (highest - lowest)
        return interval(evidence, level, lowest=lowest, highest=lowest + spread)

    for_returns.__name__ = interval.__name__
    return for_returns


def _tails(level: float) -> Tensor:
    """The probabilities below the two ends."""
    return torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)


def _symmetric(evidence: Evidence, quantile: float) -> Interval:
    half = quantile * evidence.standard_error
    return Interval(evidence.value - half, evidence.value + half)


def _resampled(evidence: Evidence, resamples: int, seed: int) -> Tensor:
    contracts.require_at_least("resamples", resamples, 1)
    if evidence.terms.refitted:
        raise ValueError(
            "a bootstrap would have to fit this estimator's model again for each resample; its "
            "standard error comes from leaving out groups of episodes: use student_t"
        )
    if len(evidence.influence) < 2:
        raise ValueError("a bootstrap draws from 2 episodes at least, got 1")
    return resampled(evidence.terms, resamples=resamples, seed=seed)


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, got {level}")


def _require_range(evidence: Evidence, lowest: float, highest: float) -> None:
    if math.isinf(evidence.terms.maximum_weight):
        raise ValueError(
            "a concentration interval is of a mean of terms whose range is known, and the weights "
            "of this estimator have no bound: use truncated_importance_sampling, or another "
            "interval"
        )
    least, most = (float(x) for x in evidence.terms.plain.aminmax())
    if not lowest <= least <= most <= highest:
        raise ValueError(
            f"the terms lie in [{least:g}, {most:g}], outside the range "
            f"[{lowest:g}, {highest:g}] that was given: no bound follows from it"
        )
