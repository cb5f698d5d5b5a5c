"""Estimators that weigh what was logged: each makes `Terms` of a `Sample`, or of a part of one.

With `W` the product of all ratios of an episode, `w_t` that of the ratios up to `t`, and `G` the
logged return. All are of `V = E_θ[Σ_t γ^t r_t]`, over the horizon of the logged episodes.
"""

import torch

from reweigh.core.segments import Segments
from reweigh.core.terms import Terms, Weighted
from reweigh.core.weights import pareto_smooth, truncate, weigh
from reweigh.evaluation.sample import Sample


def behaviour(sample: Sample) -> Terms:
    """The behaviour's own value: `(1/N) Σ_i G_i`, no weights.

    Unbiased for the value of the policy that sampled the log. What any other is compared with.

    Returns:
        Terms whose mean is the mean logged return.
    """
    return Terms(sample.returns, maximum_weight=1.0)


def importance_sampling(sample: Sample) -> Terms:
    """Trajectory importance sampling: `(1/N) Σ_i W_i G_i`.

    Precup et al. 2000, section 2. Unbiased for V if the behaviour can take every action that the
    target can. Its variance grows exponentially in the horizon.

    Returns:
        Terms. With equal policies they are those of `behaviour`.
    """
    return Terms(weigh(sample.log_trajectory, sample.returns), diagnosed=sample.log_trajectory)


def per_decision(sample: Sample) -> Terms:
    """Per-decision importance sampling: `(1/N) Σ_i Σ_t γ^t w_it r_it`.

    Precup et al. 2000, section 3. Unbiased for V; no reward carries the ratios of later actions.

    Returns:
        Terms. With rewards at the end alone they are those of `importance_sampling`.
    """
    weighted = weigh(sample.log_prefix, sample.discounted_rewards)
    return Terms(sample.segments.total(weighted), diagnosed=sample.log_trajectory)


def weighted_importance_sampling(sample: Sample) -> Terms:
    """Self-normalised trajectory importance sampling: `Σ_i W_i G_i / Σ_i W_i`.

    Precup et al. 2000, section 2 (weighted importance sampling). Consistent, with a bias of
    `O(1/N)`; a mean of logged returns, never outside them.

    Returns:
        Terms. A constant added to all log-ratios of an episode's first step changes nothing.
    """
    weighted = Weighted(sample.returns, sample.log_trajectory, _one_step(sample))
    return Terms(torch.zeros_like(sample.returns), weighted, sample.log_trajectory)


def weighted_per_decision(sample: Sample) -> Terms:
    """Self-normalised per-decision importance sampling: `Σ_t γ^t Σ_i w_it r_it / Σ_i w_it`.

    Precup et al. 2000, section 3, normalised at each time over all episodes: one that has ended
    keeps its last weight, with reward 0. Consistent, with a bias of `O(1/N)`; normalised over the
    episodes still alive it would not be.

    Returns:
        Terms. With rewards at the end alone of episodes of one length, those of
        `weighted_importance_sampling`.
    """
    weighted = Weighted(sample.discounted_rewards, sample.log_prefix, sample.segments)
    nothing = torch.zeros(len(sample), dtype=torch.float64)
    return Terms(nothing, weighted, sample.log_trajectory)


def truncated(sample: Sample, *, maximum: float = 10.0, lowest_return: float = 0.0) -> Terms:
    """Truncated trajectory importance sampling: `(1/N) Σ_i [g + min(W_i, c) (G_i - g)]`.

    Ionides 2008, with the returns counted from `g` (Thomas et al. 2015, section 4). If no policy
    returns less than `g`, its expectation is at most V, so that a lower confidence bound holds for
    V whatever was truncated; if no weight exceeds `c`, it is V. Its terms lie between `g` and
    `g + c (highest return - g)`.

    Args:
        sample: The episodes.
        maximum: `c`, above 0.
        lowest_return: `g`.

    Returns:
        Terms. With `maximum` infinite and `g = 0` they are those of `importance_sampling`.

    Raises:
        ValueError: A maximum that is not positive; an episode returned less than `g`, so that what
            is cut off might be a loss.
    """
    if bool((sample.returns < lowest_return).any()):
        raise ValueError(
            f"an episode returned {float(sample.returns.min()):g}, less than lowest_return, "
            f"{lowest_return:g}: give the lowest return possible (--return-range LOW HIGH)"
        )
    bounded = truncate(sample.log_trajectory, _one_step(sample), maximum=maximum)
    terms = lowest_return + weigh(bounded.log_weights, sample.returns - lowest_return)
    return Terms(terms, diagnosed=sample.log_trajectory, maximum_weight=maximum)


def pareto_smoothed(sample: Sample) -> Terms:
    """Self-normalised importance sampling with Pareto-smoothed weights: `Σ_i W̃_i G_i / Σ_i W̃_i`.

    Vehtari et al. 2024: the largest weights become the quantiles of the tail fitted to them. Less
    variance than `weighted_importance_sampling`, and a bias that is small where `k̂` is.

    Returns:
        Terms. With equal policies they are those of `weighted_importance_sampling`.
    """
    smoothed = pareto_smooth(sample.log_trajectory).log_weights
    weighted = Weighted(sample.returns, smoothed, _one_step(sample))
    return Terms(torch.zeros_like(sample.returns), weighted, sample.log_trajectory)


def _one_step(sample: Sample) -> Segments:
    """A step for each episode: what holds one number an episode, as estimators over time see it."""
    return Segments.packed(torch.ones(len(sample), dtype=torch.int64))
