"""Policy gradients by weighted scores, whose expectations are known exactly.

`ĝ = (1/N) Σ_i Σ_t c_t score_t` with `score_t = ∇log π_θ(a_t|s_t)`, a constant `c_t` of weight and
continuation, `G_t = Σ_{t'≥t} γ^(t'-t) r_t'` the logged reward-to-go.
"""

from collections.abc import Sequence

from torch import Tensor

from reweigh import contracts
from reweigh.core import returns, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.sample import Sample
from reweigh.recipes.composing import weighted_score
from reweigh.recipes.expectation import (
    BEHAVIOUR,
    BIASED,
    TARGET,
    UNBIASED,
    Expectation,
    Gradient,
)
from reweigh.recipes.recipe import gradient


@gradient(BIASED, on_policy=UNBIASED)
def reinforce(sample: Sample) -> Tensor:
    """REINFORCE, without any correction: `c_t = γ^t G_t`.

    Williams 1992. Unbiased for `∇J_γ(θ)` only while `φ = θ`. On older data its expectation is no
    gradient, and even a baseline that depends on the state alone changes it. No weight, so no
    second moment to grow. Use it on fresh data, and as what the others must reduce to.

    Returns:
        `[S]`. At `φ = θ`, `per_decision`, `step` and `trajectory` have its gradient on every batch.
    """
    return weighted_score(sample, 1.0, sample.reward_to_go)


@gradient(Expectation(Gradient(BEHAVIOUR, BEHAVIOUR)))
def step(sample: Sample, *, bootstrap: Tensor | None = None) -> Tensor:
    """One ratio a step on the logged reward-to-go: `c_t = γ^t ρ_t G_t`.

    Unbiased for the gradient of the surrogate of TRPO (Schulman et al. 2015), which keeps the
    behaviour's states and values, not for `∇J_γ(θ)`. Second moment: does not grow with `T`. Use it
    for small steps away from the behaviour, and for fragments of episodes.

    Args:
        bootstrap: `[N]`, the value after each fragment's last step; without it 0.

    Returns:
        `[S]`. At `φ = θ` it is `reinforce`.
    """
    continuation = returns.reward_to_go(
        sample.require_rewards(), sample.segments, discount=sample.discount, bootstrap=bootstrap
    )
    return weighted_score(sample, sample.log_ratios.exp(), continuation)


@gradient(Expectation(Gradient(TARGET, BEHAVIOUR, discounted=False)))
def behaviour_continuation(sample: Sample) -> Tensor:
    """Prefix weights on the behaviour's continuation: `c_t = w_t G_t`.

    Visits states as the target would and continues as the behaviour did: its expectation is
    `Σ_t E_{s~d_t^θ, a~π_θ}[Q_t^φ score]`, undiscounted over time. That is the gradient of no
    function; at `φ = θ` it is the usual deep-RL policy gradient without `γ^t`. Second moment:
    exponential in `T`. To first order in `φ - θ` it removes half of the bias that `step` has;
    `per_decision` removes the other half at the same price. Use it where the behaviour's
    continuation is meant.

    Returns:
        `[S]`. With one step an episode it is `step`.
    """
    return weighted_score(sample, sample.log_prefix.exp(), sample.reward_to_go, discounted=False)


@gradient(UNBIASED)
def trajectory(sample: Sample) -> Tensor:
    """Whole-trajectory weights: `c_t = γ^t W G_t`.

    Precup et al. 2000, section 2, for the weights; each reward goes to the steps before it.
    Unbiased for `∇J_γ(θ)`. Second moment: exponential in `T`, and usually beyond that of
    `per_decision`, to which it is equal if the only reward is at the end. The reference that every
    other correction is a reduction of.

    Returns:
        `[S]`. With one step an episode it is `step`.
    """
    whole = sample.segments.spread(sample.log_trajectory).exp()
    return weighted_score(sample, whole, sample.reward_to_go)


@gradient(UNBIASED)
def state_marginal(sample: Sample, log_state_ratios: Tensor, action_values: Tensor) -> Tensor:
    """Ratio of the states, times that of the step: `c_t = γ^t m_t ρ_t Q_t`.

    Liu et al. 2019 (OPPOSD) with the states' ratio by time. With the true `m_t = d_t^θ/d_t^φ` and
    `Q^θ` it is unbiased for `∇J_γ(θ)`; with estimates (`core.marginal` has both from the same log),
    consistent as they are. Second moment: that of `m ρ`, which does not grow with `T`, where that
    of every product of ratios does. Use it for long horizons, where states can be counted or
    described by features.

    Args:
        log_state_ratios: `[S]`, `log m_t(s_t)`; a constant.
        action_values: `[S]`, `Q(s_t, a_t)`, or above a baseline of the state; a constant.

    Returns:
        `[S]`. With `m = 1` and the logged reward-to-go it is `step`.
    """
    state_ratios = sample.steps("log_state_ratios", log_state_ratios)
    marginal = weights.state_marginal(sample.log_ratios, state_ratios, sample.segments)
    return weighted_score(sample, marginal.exp(), sample.steps("action_values", action_values))


@gradient(BIASED, on_policy=UNBIASED)
def power_mean(
    sample: Sample,
    log_prob_sources: Tensor,
    source: Tensor,
    second_moments: Tensor,
    *,
    episodes: Sequence[int],
    delta: float = 0.2,
) -> Tensor:
    """RT-PG: `c_t = (α_j N / n_j) W / ((1-λ_j) + λ_j W) γ^t G_t`, `j` the episode's own source.

    Montenegro et al. 2025: every trajectory is weighted to its own source, by the power mean of its
    weight and 1, and stale sources count less. Biased by `O(λ)`, which vanishes as the data grows;
    no trajectory counts more than `α_j N / (n_j λ_j)`. Use it for many stale sources, each of which
    needs to know its own log-probabilities alone.

    Args:
        sample: The episodes; the behaviour's log-probabilities are not read.
        log_prob_sources: `[J, S]`; only each trajectory's own is read.
        source: `[N]` int64 in [0, J): who sampled each trajectory.
        second_moments: `[J]`, `E[W²]` of the target's weight to each source, at least 1 (from
            `divergences`, or as estimated).
        episodes: `J` numbers `n_j` of the sources' episodes, in the whole batch if this is a part.
        delta: δ of `weights.power_mean_parameters`.

    Returns:
        `[S]`. With one source it is `trajectory` with its weight in `weights.power_mean`.
    """
    contracts.require_vector("source", source, len(sample), "episode")
    segments = sample.segments
    own = source[segments.episode]
    behaviour = weights.select_behaviour(log_prob_sources.flatten(1), own, segments)
    whole = weights.trajectory(log_ratios(sample.log_prob_target, behaviour, segments), segments)
    share, proportion = weights.power_mean_parameters(second_moments, episodes, delta=delta)
    bounded = weights.power_mean(whole, segments, share=share[own]).log_weights.exp()
    counted = proportion * sum(episodes) / proportion.new_tensor(episodes)
    return weighted_score(sample, counted[own] * bounded, sample.reward_to_go)
