"""The form that all estimators share: a mean, plus a sum over time of ratios of means.

    V̂ = (1/N) Σ_i x_i + Σ_t (Σ_i w_it v_it) / (Σ_i w_it)

Importance sampling is a mean alone, self-normalised estimators are ratios, and doubly robust ones
both. What an estimate needs besides its value, its error, its intervals, its resampling, follows
from this form and is written once, for all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from reweigh.core.scan import linear_recurrence
from reweigh.core.segments import Segments
from reweigh.core.weights import log_sum_by_time


class Weighted(NamedTuple):
    """Values that are averaged by their weights, at each time over all episodes."""

    values: Tensor
    """`[K]` float64: `v_it`; 0 after an episode has ended."""
    log_weights: Tensor
    """`[K]` float64: `log w_it`; an episode that has ended keeps its last weight."""
    segments: Segments
    """Where the episodes lie in `K`."""


@dataclass(frozen=True, eq=False)
class Terms:
    """What an estimator makes of a sample, or of a part of it: `N` units, usually episodes."""

    plain: Tensor
    """`[N]` float64: `x_i`."""
    weighted: Weighted | None = None
    """What is self-normalised, if anything is."""
    diagnosed: Tensor | None = None
    """`[M]` float64: the log-weights that tell how far to believe the estimate; None if it weighs
    nothing."""
    refitted: bool = False
    """The units are what is left out and fitted again (`resampling.refit`), not episodes."""
    maximum_weight: float = math.inf
    """The largest weight that a return can have in `x_i`: a bound of `x_i` follows from it."""

    def __len__(self) -> int:
        return len(self.plain)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The terms of all parts of a sample together."""
        weighted = [part.weighted for part in parts if part.weighted is not None]
        diagnosed = [part.diagnosed for part in parts if part.diagnosed is not None]
        joined = None
        if weighted:
            joined = Weighted(
                torch.cat([w.segments.fill(w.values)[w.segments.existing] for w in weighted]),
                torch.cat([w.log_weights[w.segments.existing] for w in weighted]),
                Segments.packed(torch.cat([w.segments.lengths for w in weighted])),
            )
        return cls(
            torch.cat([part.plain for part in parts]),
            joined,
            torch.cat(diagnosed) if diagnosed else None,
            any(part.refitted for part in parts),
            max(part.maximum_weight for part in parts),
        )


class Totals(NamedTuple):
    """What the estimate is computed from: it merges exactly over the parts of a sample."""

    units: int
    """N."""
    plain: Tensor
    """Scalar: the mean of `x_i`."""
    log_sums: Tensor
    """`[T]`: `log Σ_i w_it`; beyond `T` the last goes on."""
    ratios: Tensor
    """`[T]`: `Σ_i w_it v_it / Σ_i w_it`, 0 where all weights are 0; beyond `T` it is 0."""

    @property
    def value(self) -> Tensor:
        """Scalar: the estimate."""
        return self.plain + self.ratios.sum()


def totals(terms: Terms) -> Totals:
    """The totals of a sample, or of a part of it."""
    plain = terms.plain.mean()
    if terms.weighted is None:
        return Totals(len(terms), plain, plain.new_zeros(0), plain.new_zeros(0))
    values, log_weights, segments = terms.weighted
    sums = log_sum_by_time(log_weights, segments)
    shares = _shares(log_weights, sums, segments)
    ratios = torch.zeros_like(sums).index_add(0, segments.time, shares * segments.fill(values))
    return Totals(len(terms), plain, sums, ratios)


def merge(first: Totals, second: Totals) -> Totals:
    """The totals of two parts together, exact in any order."""
    units = first.units + second.units
    share = second.units / units
    plain = first.plain + (second.plain - first.plain) * share
    times = max(len(first.log_sums), len(second.log_sums))
    parts = [(_prolonged(part, times), part.ratios) for part in (first, second)]
    sums = torch.logaddexp(parts[0][0], parts[1][0])
    ratios = torch.zeros_like(sums)
    for log_sums, part in parts:
        here = log_sums[: len(part)] - sums[: len(part)]
        ratios[: len(part)] += torch.where(part == 0, 0.0, here.exp() * part)
    return Totals(units, plain, sums, ratios)


def influence(terms: Terms, whole: Totals) -> Tensor:
    """What each unit contributes, `[N]`: the estimate's linearisation, with the estimate as mean.

        e_i = x_i + Σ_t [R_t + N w_it (v_it - R_t) / Σ_j w_jt],    R_t the weighted mean at t

    The delta method for a sum of ratios of means (Owen 2013, section 9.2): the estimate's standard
    error is that of the mean of the `e_i`. For a mean alone they are `x_i`.

    Args:
        terms: Of the sample, or of a part of it.
        whole: The totals of the whole sample.
    """
    if terms.weighted is None:
        return terms.plain
    values, log_weights, segments = terms.weighted
    shares = _shares(log_weights, whole.log_sums, segments)
    alive = shares * (segments.fill(values) - whole.ratios[segments.time])
    # Once an episode has ended, w (0 - R_t) / Σ w goes on: the sum over the times that it misses.
    scaled, log_scale = _missed(whole)
    scaled, log_scale = scaled[segments.lengths], log_scale[segments.lengths]
    # No weight exceeds the sums that it is part of, and so nothing overflows here.
    missed = torch.where(scaled == 0, 0.0, (segments.last(log_weights) + log_scale).exp()) * scaled
    return terms.plain + whole.ratios.sum() + whole.units * (segments.total(alive) - missed)


def _shares(log_weights: Tensor, log_sums: Tensor, segments: Segments) -> Tensor:
    """`[K]`: `w_it / Σ_j w_jt`, 0 where all weights are 0."""
    log_sums = torch.where(log_sums == -torch.inf, 0.0, log_sums)
    return segments.fill((log_weights - log_sums[segments.time]).exp())


def _missed(whole: Totals) -> tuple[Tensor, Tensor]:
    """`Σ_{t≥L} R_t / Σ_j w_jt` for `L` from 0 to `T`, scaled, and the scale's logarithm."""
    log_inverse = torch.where(whole.ratios == 0, -torch.inf, -whole.log_sums)
    log_scale = log_inverse.flip(0).cummax(0).values.flip(0)
    log_scale = torch.where(log_scale == -torch.inf, 0.0, log_scale)
    log_scale = torch.cat([log_scale, log_scale.new_zeros(1)])
    times = Segments.packed([len(whole.ratios)])
    decay = (log_scale[1:] - log_scale[:-1]).clamp(max=0.0).exp()
    scaled = linear_recurrence(whole.ratios * (log_inverse - log_scale[:-1]).exp(), decay, times)
    return torch.cat([scaled, scaled.new_zeros(1)]), log_scale


def _prolonged(part: Totals, times: int) -> Tensor:
    last = part.log_sums[-1:]
    return torch.cat([part.log_sums, last.expand(times - len(part.log_sums))])
