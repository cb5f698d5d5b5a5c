"""Estimates of other samples made from the same episodes: drawn again, or some of them left out."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.sums import sum_of_others
from reweigh.core.terms import Terms, totals
from reweigh.evaluation.logged import Logged

CELLS = 4_000_000
"""Numbers of the tables that are held at once."""


def resampled(terms: Terms, *, resamples: int, seed: int, cells: int = CELLS) -> Tensor:
    """The estimates of samples drawn from the episodes with replacement, `[resamples]`.

    Each is normalised by the weights of the episodes that it drew.

    Args:
        terms: Of the whole sample.
        resamples: How many.
        seed: Draws them; the global random state is neither used nor changed.
        cells: Numbers of the tables that are held at once.

    Returns:
        `[resamples]` float64. If all episodes are alike, they are the estimate.
    """
    count = len(terms)
    generator = torch.Generator().manual_seed(seed)
    terms, log_sums = _packed(terms)
    estimates = []
    for chunk in torch.arange(resamples).split(max(cells // count, 1)):
        drawn = torch.randint(count, (len(chunk), count), generator=generator)
        times_drawn = torch.zeros(len(chunk), count, dtype=torch.float64)
        times_drawn.scatter_add_(1, drawn, torch.ones_like(times_drawn))
        estimate = times_drawn @ terms.plain / count
        for shares, weighted in _tables(terms, log_sums, cells):
            weights = times_drawn @ shares
            estimate += torch.where(weights > 0, times_drawn @ weighted / weights, 0.0).sum(1)
        estimates.append(estimate)
    return torch.cat(estimates)


def leave_one_out(terms: Terms, *, cells: int = CELLS) -> Tensor:
    """The estimates without each episode in turn, `[N]` float64.

    Args:
        terms: Of the whole sample, of two episodes at least.
        cells: As in `resampled`.

    Returns:
        `[N]`. Of a mean alone they are `(N V̂ - x_i) / (N - 1)`.
    """
    count = len(terms)
    terms, log_sums = _packed(terms)
    estimates = (terms.plain.sum() - terms.plain) / (count - 1)
    for shares, weighted in _tables(terms, log_sums, cells):
        # Summed over the others, not subtracted from all: one weight may be nearly all of them.
        remaining, values = sum_of_others(shares), sum_of_others(weighted)
        estimates += torch.where(remaining > 0, values / remaining, 0.0).sum(1)
    return estimates


def _packed(terms: Terms) -> tuple[Terms, Tensor]:
    """The terms end to end without holes, and the log of their weights' sum at each time."""
    return Terms.concatenate([terms]), totals(terms).log_sums


def _tables(terms: Terms, log_sums: Tensor, cells: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shares `w_it / Σ_j w_jt`, and shares times values, `[N, t]` each, some times at a time."""
    if terms.weighted is None:
        return
    values, log_weights, segments = terms.weighted
    # An episode without steps has weight 1 and value 0, read from a place at the very end.
    log_weights = torch.cat([log_weights, log_weights.new_zeros(1)])
    values = torch.cat([values, values.new_zeros(1)])
    lengths, last = segments.lengths.unsqueeze(1), (segments.stop - 1).unsqueeze(1)
    last = torch.where(lengths > 0, last, len(values) - 1)
    for time in torch.arange(len(log_sums)).split(max(cells // len(terms), 1)):
        step = torch.where(time < lengths, segments.start.unsqueeze(1) + time, last)
        scale = torch.where(log_sums[time] == -torch.inf, 0.0, log_sums[time])
        shares = (log_weights[step] - scale).exp()
        yield shares, torch.where(time < lengths, shares * values[step], 0.0)


def refit(point: Callable[[Logged], float | Tensor], log: Logged, *, groups: int = 20) -> Terms:
    """Delete-a-group jackknife: `G` pseudo-values whose spread is the error of the estimate.

        p_g = h_g V̂ - (h_g - 1) V̂_(-g),   SE² = (1/G) Σ_g (p_g - p̄)² / (h_g - 1),   h_g = N / n_g

    Efron and Tibshirani 1993, chapter 11; for groups of unequal size Busing et al. 1999. What a
    linearisation with the model held fixed does not see, the error of the fit, is in it. The
    pseudo-values are scaled to their common size and shifted to the estimate, so that their mean is
    `V̂` (not corrected for bias) and the standard error of the mean is `SE`; Student's quantile at
    `G - 1` degrees of freedom makes the interval.

    Args:
        point: The estimate from some episodes; called `groups + 1` times.
        log: The episodes.
        groups: `G`; episode `i` is in group `i mod G`. With fewer episodes, one a group.

    Returns:
        Terms of `G` units that are no episodes, `refitted`; a single one for a single episode. If
        the estimate is the mean of something over episodes and `G = N`, they are that.

    Raises:
        ValueError: Fewer than 2 groups; the estimate is not finite.
    """
    contracts.require_at_least("groups", groups, 2)
    episodes = len(log)
    value = _finite(point(log), "all episodes")
    if episodes < 2:
        return Terms(torch.tensor([value], dtype=torch.float64), refitted=True)
    group = torch.arange(episodes) % min(groups, episodes)
    sizes = group.bincount().double()
    left_out = torch.tensor(
        [
            _finite(point(log.select((group != g).nonzero().squeeze(1))), f"group {g} left out")
            for g in range(len(sizes))
        ],
        dtype=torch.float64,
    )
    share = episodes / sizes
    pseudo = share * value - (share - 1) * left_out
    scaled = (pseudo - pseudo.mean()) * ((len(sizes) - 1) / (share - 1)).sqrt()
    return Terms(value + scaled - scaled.mean(), refitted=True)


def _finite(value: float | Tensor, of: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"the estimate from {of} is {number}: the model cannot be fitted to them")
    return number
