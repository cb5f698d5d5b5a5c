"""Confidence intervals of an estimate: what each assumes, and what it holds for.

An interval is a function of `Evidence` and a level. Those that follow from the central limit theorem
(`normal`, `student_t`, `bootstrap`, `bias_corrected_bootstrap`) hold for any estimator, for samples
that are large enough; `hoeffding` and `empirical_bernstein` hold for every sample, for means of
terms whose range is known.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from reweigh.evaluation.terms import Terms


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """An estimate and what its error is read from."""

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


Method = Callable[[Evidence, float], Interval]
