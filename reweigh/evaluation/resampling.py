"""The error of estimates that fit a model: fit it again without some of the episodes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.terms import Terms
from reweigh.evaluation.sample import Sample


def refit(point: Callable[[Sample], float | Tensor], sample: Sample, *, groups: int = 20) -> Terms:
    """Delete-a-group jackknife: `G` pseudo-values, whose spread is the error of the estimate.

        p_g = h_g V̂ - (h_g - 1) V̂_(-g),   SE² = (1/G) Σ_g (p_g - p̄)² / (h_g - 1),   h_g = N / n_g

    Efron and Tibshirani 1993, chapter 11; for groups of unequal size Busing et al. 1999. What a
    linearisation with the model held fixed does not see, the error of the fit, is in it. The
    pseudo-values are scaled to their common size and shifted to the estimate, so that their mean is
    `V̂` (not corrected for bias) and the standard error of the mean is `SE`; Student's quantile at
    `G - 1` degrees of freedom makes the interval.

    Args:
        point: The estimate from a sample. It is asked `groups + 1` times.
        sample: The episodes.
        groups: `G`; episode `i` is in group `i mod G`. With fewer episodes, one a group.

    Returns:
        Terms of `G` units that are no episodes, `refitted`; a single one for a single episode. If
        the estimate is the mean of something over episodes and `G = N`, they are that.

    Raises:
        ValueError: Fewer than 2 groups; the estimate is not finite.
    """
    contracts.require_at_least("groups", groups, 2)
    episodes = len(sample)
    value = _finite(point(sample), "all episodes")
    if episodes < 2:
        return Terms(torch.tensor([value], dtype=torch.float64), refitted=True)
    group = torch.arange(episodes) % min(groups, episodes)
    sizes = group.bincount().double()
    left_out = torch.tensor(
        [
            _finite(point(sample.select((group != g).nonzero().squeeze(1))), f"group {g} left out")
            for g in range(len(sizes))
        ],
        dtype=torch.float64,
    )
    share = episodes / sizes
    pseudo = share * value - (share - 1) * left_out
    scaled = (pseudo - pseudo.mean()) * ((len(sizes) - 1) / (share - 1)).sqrt()
    return Terms(value + scaled - scaled.mean(), refitted=True)


def _finite(value: float | Tensor, of: str) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"the estimate from {of} is {found}: the model cannot be fitted to them")
    return found
