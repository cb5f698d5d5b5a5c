"""Estimators with a critic: what it predicts, and what weights correct of it.

`Q̂` is the critic's, `V̂_t = E_{a~θ} Q̂_t(s_t, a)`, and `w_t` the product of the ratios up to `t`.
"""

from torch import Tensor

from reweigh.core import returns
from reweigh.core.returns import discount_from_start
from reweigh.core.terms import Terms, Weighted
from reweigh.evaluation.critics import Critic, cross_fitted, fitted_q
from reweigh.evaluation.resampling import refit
from reweigh.evaluation.sample import Sample
from reweigh.evaluation.states import first_steps, logged


def direct_method(sample: Sample, *, critic: Critic = fitted_q, groups: int = 20) -> Terms:
    """The critic's own estimate: `(1/N) Σ_i V̂_0(s_i0)`, no weights.

    Consistent if the critic is. Its variance does not grow with the horizon and its bias, which
    nothing here shows, is the critic's.

    Args:
        sample: The episodes; the behaviour's log-probabilities are not read.
        critic: Fitted to all episodes, and again without each group of them.
        groups: Of the jackknife, `resampling.refit`.

    Returns:
        Terms. With `tabular_critic` their mean is the target's value in the counted model.

    Raises:
        ValueError: The sample did not come from a log; those of the critic.
    """

    def value(some: Sample) -> Tensor:
        return critic(some, first_steps(some)).values.sum() / len(some)

    logged(sample)
    return refit(value, sample, groups=groups)


def doubly_robust(sample: Sample, *, critic: Critic = fitted_q, folds: int = 5) -> Terms:
    """Doubly robust: `(1/N) Σ_i V^DR_i0`, `V^DR_t = V̂_t + ρ_t (r_t + γ V^DR_{t+1} - Q̂_t)`.

    Jiang and Li 2016, equation 10, with the critic fitted to other episodes (`cross_fitted`).
    Unbiased for V whatever the critic, as `per_decision`; the better the critic, the less is left
    for the weights to vary. Every episode counts, also those with a return of 0.

    Args:
        sample: The episodes.
        critic: Fitted to some episodes, gives values for others.
        folds: Parts of the episodes that it is fitted without in turn.

    Returns:
        Terms. With a critic of 0 they are those of `per_decision`.

    Raises:
        ValueError: The sample did not come from a log, or holds a single episode; those of the
            critic.
    """
    logged(sample)
    log_ratios = sample.log_ratios  # missing ones are known before anything is fitted
    predicted = cross_fitted(critic, sample, folds=folds)
    robust = returns.doubly_robust_values(
        sample.rewards,
        log_ratios,
        predicted.values,
        predicted.action_values,
        sample.segments,
        discount=sample.discount,
    )
    return Terms(_first(robust.values, sample), diagnosed=sample.log_trajectory)


def weighted_doubly_robust(sample: Sample, *, critic: Critic = fitted_q, folds: int = 5) -> Terms:
    """Weighted doubly robust: `(1/N) Σ_i V̂_i0 + Σ_t γ^t Σ_i w_it (r + γ V̂' - Q̂)_it / Σ_i w_it`.

    Thomas and Brunskill 2016 (WDR), the corrections self-normalised at each time over all
    episodes: one that has ended keeps its last weight. Consistent whatever the critic, with a bias
    of `O(1/N)` that the critic makes smaller, and of less variance than `doubly_robust`.

    Args:
        sample: The episodes.
        critic: Fitted to some episodes, gives values for others.
        folds: As in `doubly_robust`.

    Returns:
        Terms. With a critic of 0 they are those of `weighted_per_decision`.

    Raises:
        ValueError: As `doubly_robust`.
    """
    logged(sample)
    log_prefix, segments = sample.log_prefix, sample.segments
    predicted = cross_fitted(critic, sample, folds=folds)
    nothing = predicted.values.new_zeros(len(sample))
    left = segments.as_float64("rewards", sample.rewards) - predicted.action_values
    left = left + sample.discount * segments.next(predicted.values, nothing)
    left = left * discount_from_start(segments, discount=sample.discount)
    weighted = Weighted(left, log_prefix, segments)
    return Terms(_first(predicted.values, sample), weighted, sample.log_trajectory)


def _first(x: Tensor, sample: Sample) -> Tensor:
    """At the first step of each episode: `[S]` to `[N]`; 0 for one without steps."""
    segments = sample.segments
    return segments.total(x.masked_fill(~segments.is_first, 0.0))
