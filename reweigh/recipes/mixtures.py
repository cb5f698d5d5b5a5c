"""Estimators for data that several behaviour policies sampled."""

from collections.abc import Sequence

from torch import Tensor

from reweigh import contracts
from reweigh.core import returns, surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments


def balance_heuristic(
    log_prob_target: Tensor,
    log_prob_sources: Tensor,
    proportions: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    discount: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Balance heuristic: `ĝ = (1/N) Σ_i Σ_t (Σ_{t'≥t} γ^t' b_t' r_t') score_t`.

    Per-decision weights `b_t` against the mixture of the sources (Veach and Guibas 1995, over
    prefixes of trajectories). Unbiased for `∇J_γ(θ)`, as long as some source can take every action
    that the target can. Second moment: at most that of `per_decision` with any one source, over its
    share. The default for several behaviours whose log-probabilities can be computed; with the
    target's own fresh data among the sources (`weights.defensive`) no weight exceeds one over its
    share.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_sources: `[J, S]`, of every logged action under every source.
        proportions: `[J]`, shares of the episodes.
        rewards: `[S]`.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].
        divisor: Instead of `N`.

    Returns:
        Scalar. With one source it is `per_decision`.
    """
    prefix = weights.balance_heuristic(log_prob_target, log_prob_sources, proportions, segments)
    continuation = returns.weighted_reward_to_go(rewards, prefix, segments, discount=discount)
    from_start = returns.discount_from_start(segments, discount=discount)
    objective = surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments)
    return loss(objective, segments, divisor=divisor)


def power_mean(
    log_prob_target: Tensor,
    log_prob_sources: Tensor,
    source: Tensor,
    second_moments: Tensor,
    rewards: Tensor,
    segments: Segments,
    *,
    episodes: Sequence[int],
    discount: float,
    delta: float = 0.2,
) -> Tensor:
    """RT-PG: `ĝ = Σ_j (α_j/n_j) Σ_i (W_i / ((1-λ_j) + λ_j W_i)) Σ_t γ^t G_t score_t`.

    Montenegro et al. 2025: every trajectory is weighted to its own source, by the power mean of its
    weight and 1, and stale sources count less. Biased by `O(λ)`, which vanishes as the data grows;
    no trajectory counts more than `α_j N / (n_j λ_j)`. Use it for many stale sources, each of which
    needs to know its own log-probabilities alone.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_sources: `[J, S]`; only each trajectory's own is read.
        source: `[N]` int64 in [0, J): who sampled each trajectory.
        second_moments: `[J]`, `E[W²]` of the target's weight to each source, at least 1 (from
            `divergences`, or as estimated).
        rewards: `[S]`.
        segments: Where the episodes lie; whole episodes.
        episodes: `J` numbers `n_j` of the sources' episodes, in the whole batch if this is a part.
        discount: γ in [0, 1].
        delta: δ of `weights.power_mean_parameters`.

    Returns:
        Scalar. With one source it is `trajectory` with its weight in `weights.power_mean`.
    """
    contracts.require_vector("source", source, len(segments), "episode")
    own = source[segments.episode]
    behaviour = weights.select_behaviour(log_prob_sources, own, segments)
    whole = weights.trajectory(log_ratios(log_prob_target, behaviour, segments), segments)
    share, proportion = weights.power_mean_parameters(second_moments, episodes, delta=delta)
    bounded = weights.power_mean(whole, segments, share=share[own]).log_weights.exp()
    counted = proportion * sum(episodes) / proportion.new_tensor(episodes)
    continuation = returns.reward_to_go(rewards, segments, discount=discount)
    discounted = returns.discount_from_start(segments, discount=discount) * continuation
    objective = surrogates.weighted_log_prob(
        log_prob_target, counted[own] * bounded, discounted, segments
    )
    return loss(objective, segments, divisor=sum(episodes))
