"""The weights of a log under a policy: how they are spread, and how they thin out over time."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from reweigh.core.diagnostics import ess_of_sums
from reweigh.core.weights import LogSums, log_sums
from reweigh.evaluation.sample import Sample

BINS, LIMIT = 40, 4
"""Bins of the histogram, over log10 of the weight from -LIMIT to LIMIT."""


class WeightProfile(NamedTuple):
    """The weights of a sample or of a part of it; profiles of parts merge exactly."""

    histogram: Tensor
    """`[BINS]` int64: episodes by log10 of the trajectory weight, the outer bins open."""
    sums: LogSums
    """Of the product of ratios so far, at each time."""
    sums_of_squares: LogSums

    @classmethod
    def of(cls, sample: Sample) -> Self:
        """The profile of a sample.

        Raises:
            ValueError: the behaviour's log-probabilities are missing.
        """
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
