"""The form that all estimators share: a mean, plus a sum over time of ratios of means.

    V̂ = (1/N) Σ_i x_i + Σ_t (Σ_i w_it v_it) / (Σ_i w_it)

Importance sampling is a mean alone, self-normalised estimators are ratios, and doubly robust ones
both. What an estimate needs besides its value, its error, its intervals, its resampling, follows
from this form and is written once, for all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from reweigh.core.scan import linear_recurrence
from reweigh.core.segments import Segments
from reweigh.core.weights import log_sum_by_time

_ALL_BUT = 1e-8
_SMALL = 0.01
_POWERS = 8
"""Of a share up to `_SMALL`: the rest of the series is below the rounding."""
_CELLS = 4_000_000
"""Numbers of a table that are held at once."""


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


@dataclass(frozen=True, eq=False)
class Totals:
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

    @cached_property
    def tails(self) -> tuple[Tensor, Tensor]:
        """`Σ_{t≥L} R_t / (Σ_j w_jt)^k`, `[k, L]` for `L` from 0 to `T`, and its log-scale."""
        powers = torch.arange(1, _POWERS + 1, dtype=torch.float64).unsqueeze(1)
        log_inverse = torch.where(self.ratios == 0, -torch.inf, -powers * self.log_sums)
        log_scale = log_inverse.flip(1).cummax(1).values.flip(1)
        log_scale = torch.where(log_scale == -torch.inf, 0.0, log_scale)
        log_scale = torch.cat([log_scale, log_scale.new_zeros(_POWERS, 1)], 1)
        times = Segments.packed([len(self.ratios)] * _POWERS)
        decay = (log_scale[:, 1:] - log_scale[:, :-1]).clamp(max=0.0).exp()
        terms = self.ratios * (log_inverse - log_scale[:, :-1]).exp()
        scaled = linear_recurrence(terms.flatten(), decay.flatten(), times).view(_POWERS, -1)
        return torch.cat([scaled, scaled.new_zeros(_POWERS, 1)], 1), log_scale


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
    """What each unit contributes, `[N]`: the jackknife's pseudo-values, `N V̂ - (N - 1) V̂_{-i}`.

        e_i = x_i + Σ_t [R_t + (N - 1) h_it (v_it - R_t) / (1 - h_it)],    h_it = w_it / Σ_j w_jt

    with `R_t` the weighted mean at t and `V̂_{-i}` the estimate without unit i, in closed form; the
    estimate's standard error is that of the mean of the `e_i` (Tukey 1958; Efron and Tibshirani
    1993, section 11.5). For a mean alone they are `x_i`. To first order in h they are the delta
    method's, which is too small where few units hold the weight: the mean follows those, and hardly
    differs from their values. Of a unit with all the weight but 1e-8 nothing can be said, and it
    counts as one with that much less.

    Args:
        terms: Of the sample, or of a part of it.
        whole: The totals of the whole sample.
    """
    if terms.weighted is None:
        return terms.plain
    values, log_weights, segments = terms.weighted
    shares = _shares(log_weights, whole.log_sums, segments)
    away = segments.fill(values) - whole.ratios[segments.time]
    alive = segments.total(_odds(shares) * away)
    # Once an episode has ended its last weight goes on, with value 0, at the times that it misses.
    others = alive - _missed(segments.last(log_weights), segments.lengths, whole)
    return terms.plain + whole.ratios.sum() + (whole.units - 1) * others


def _shares(log_weights: Tensor, log_sums: Tensor, segments: Segments) -> Tensor:
    """`[K]`: `w_it / Σ_j w_jt`, 0 where all weights are 0."""
    log_sums = torch.where(log_sums == -torch.inf, 0.0, log_sums)
    return segments.fill((log_weights - log_sums[segments.time]).exp())


def _odds(shares: Tensor) -> Tensor:
    """`h / (1 - h)`: a weight beside those of all others."""
    return shares / (1 - shares).clamp(min=_ALL_BUT)


def _missed(log_weights: Tensor, lengths: Tensor, whole: Totals) -> Tensor:
    """`[N]`: `Σ_{t≥L} R_t h_t / (1 - h_t)`, with `h_t = w / Σ_j w_jt`, for each `w` and `L`.

    As a power series in h, whose sums over t are the same for all `w`; the few units with a large h
    are added up time by time.
    """
    missed = torch.zeros_like(log_weights)
    for power, (scaled, log_scale) in enumerate(zip(*whole.tails, strict=True), 1):
        # No weight exceeds the sums that it is part of, and so nothing overflows here.
        scaled, exponent = scaled[lengths], power * log_weights + log_scale[lengths]
        missed += torch.where(scaled == 0, 0.0, exponent.exp() * scaled)
    relevant = torch.where(whole.ratios == 0, torch.inf, whole.log_sums)
    least = torch.cat(
        [relevant.flip(0).cummin(0).values.flip(0), relevant.new_full((1,), torch.inf)]
    )
    large = (log_weights - least[lengths] > math.log(_SMALL)).nonzero().squeeze(1)
    time = torch.arange(len(whole.ratios))
    for some in large.split(max(_CELLS // max(len(time), 1), 1)):
        shares = (log_weights[some].unsqueeze(1) - relevant).clamp(max=0.0).exp()
        late = time >= lengths[some].unsqueeze(1)
        missed[some] = torch.where(late, _odds(shares) * whole.ratios, 0.0).sum(1)
    return missed


def _prolonged(part: Totals, times: int) -> Tensor:
    last = part.log_sums[-1:]
    return torch.cat([part.log_sums, last.expand(times - len(part.log_sums))])
