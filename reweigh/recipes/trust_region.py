"""Estimators that keep the policy near one that is known."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import returns, surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments


def trpo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """TRPO's surrogate: `-(1/N) Σ_i Σ_t ρ_t A_t`.

    Schulman et al. 2015, equation 14, summed over steps. With advantages of the behaviour it is
    unbiased for `Σ_t E_{s~d_t^φ} Σ_a ∇π_θ(a|s) A^φ(s, a)`: to first order in `φ - θ`, `seed`
    removes half of its bias. Second moment: does not grow with `T`. Use it where the optimiser
    keeps the trust region (a bound on `divergences.kl_categorical` or `kl_gaussian`).

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        advantages: `[S]`; a constant.
        segments: Where the episodes lie.
        divisor: Instead of `N`.

    Returns:
        Scalar. It is `ppo` with a clip that nothing reaches.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    step = weights.step(ratios, segments).exp()
    objective = surrogates.weighted_ratio(ratios, step, advantages, segments)
    return loss(objective, segments, divisor=divisor)


def ppo(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    clip: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """PPO's clipped surrogate: `-(1/N) Σ_i Σ_t min(ρ_t A_t, clip(ρ_t, 1-ε, 1+ε) A_t)`.

    Schulman et al. 2017, equation 7, summed over steps. Biased once a ratio leaves the interval;
    before that, with logged advantages, it is `step` without `γ^t`. Weights never exceed `1 + ε`
    where the advantage is positive. Use it for several updates on nearly fresh data.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_behaviour: `[S]`.
        advantages: `[S]`; a constant.
        segments: Where the episodes lie.
        clip: ε, above 0.
        divisor: Instead of `N`.

    Returns:
        Scalar. At `φ = θ` its gradient is that of the plain policy gradient with these advantages.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    objective = surrogates.clipped_ratio(ratios, advantages, segments, clip=clip)
    return loss(objective, segments, divisor=divisor)


def geppo(
    log_prob_target: Tensor,
    log_prob_current: Tensor,
    log_prob_behaviour: Tensor,
    advantages: Tensor,
    age: Tensor,
    segments: Segments,
    *,
    shares: Tensor,
    clip: float,
    mean_age: float,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """GePPO: `-(1/N) Σ_i Σ_t α_i min(ρ_t A_t, clip(ρ_t, c_t - ε', c_t + ε') A_t)`.

    Queeney et al. 2021, section 5, on the data of the last policies: each step's trust region is
    around the ratio `c_t` that the current policy has to the step's behaviour. Its radius is
    `ε' = ε / mean_age`, so that an update moves the policy as far as one of PPO's. `α` are the most
    even proportions of that mean age, over the policies' shares of the steps. Biased as `ppo`, with
    the states of a mixture of old policies. Second moment: that of one ratio; weights never exceed
    `α (c + ε')` where the advantage is positive. Use it where a batch of fresh steps alone is too
    small.

    Args:
        log_prob_target: `[S]`, differentiated.
        log_prob_current: `[S]`, under the policy that the update begins from.
        log_prob_behaviour: `[S]`, each step's own.
        advantages: `[S]`; a constant.
        age: `[S]` int64 from 1, the newest policy's.
        segments: Where the episodes lie.
        shares: `[M]`, of the steps of each age in the whole batch, none of them 0 (from
            `torch.bincount(age - 1) / S`).
        clip: ε, above 0.
        mean_age: At least 1.
        divisor: Instead of `N`.

    Returns:
        Scalar. With one policy it is `ppo`.
    """
    contracts.require_vector("age", age, segments.size, "position")
    contracts.require_proportions("shares", shares, len(shares))
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    centre = log_ratios(log_prob_current, log_prob_behaviour, segments)
    index = segments.fill(age - 1)
    contracts.require_groups("age - 1", index, len(shares))
    proportions = weights.proportions_by_age(len(shares), mean_age=mean_age)
    counted = (proportions.to(shares.device) / shares)[index]
    objective = surrogates.clipped_ratio(
        ratios,
        counted * segments.as_float64("advantages", advantages),
        segments,
        clip=clip / mean_age,
        log_centre=centre,
    )
    return loss(objective, segments, divisor=divisor)


def pois(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    rewards: Tensor,
    divergences: Tensor,
    segments: Segments,
    *,
    discount: float,
    delta: float,
) -> Tensor:
    """A lower bound on the return: `-((1/N) Σ_i W_i R_i - max|R| √((1-δ) d̂_2 / (δ N)))`.

    Metelli et al. 2018 (POIS), section 5.1, action-based. The estimate of the return is unbiased,
    and with probability `1 - δ` the return is above the bound (with the true `d_2`). Maximising the
    bound stays near the behaviour by itself: `W` has the second moment `d_2`, exponential in `T`,
    and the bound pays for it. Use it for short horizons and few, costly episodes, with several
    updates each.

    Args:
        log_prob_target: `[S]`, differentiated through the weights.
        log_prob_behaviour: `[S]`.
        rewards: `[S]`.
        divergences: `[S]`, Rényi divergence of order 2 of the target from the behaviour at each
            state (`divergences.renyi2_categorical` or `renyi2_gaussian`), differentiated.
        segments: Where the episodes lie; whole episodes.
        discount: γ in [0, 1].
        delta: δ in (0, 1].

    Returns:
        Scalar. With `δ = 1` its gradient is that of `trajectory`, all rewards counted at each step.
    """
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    whole = weights.trajectory(ratios, segments)
    to_go = returns.reward_to_go(rewards, segments, discount=discount)
    total = segments.total(torch.where(segments.is_first, to_go, 0.0))
    size = surrogates.renyi_sample_size(divergences, segments)
    return -surrogates.pois_bound(whole, total, size, segments, delta=delta)


def awr(
    log_prob_target: Tensor,
    advantages: Tensor,
    segments: Segments,
    *,
    temperature: float,
    maximum: float = 20.0,
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Advantage-weighted regression: `-(1/N) Σ_i Σ_t min(e^(A_t / β), c) log π_θ(a_t|s_t)`.

    Peng et al. 2019, section 3: the logged actions are imitated, the better the more. Its fixed
    point is the behaviour tilted by `e^(A/β)`, the best policy within a divergence of it, and not
    a gradient of the return; biased by that for every `φ`. Needs no log-probabilities of the
    behaviour, and its weights do not depend on the target: no second moment that grows. Use it on
    logs whose probabilities are lost.

    Args:
        log_prob_target: `[S]`, differentiated.
        advantages: `[S]`, of the behaviour; a constant.
        segments: Where the episodes lie.
        temperature: β, above 0: the smaller, the greedier.
        maximum: `c`, above 0.
        divisor: Instead of `N`.

    Returns:
        Scalar. With equal advantages it is behaviour cloning, times a constant.
    """
    contracts.require_positive("temperature", temperature)
    tilted = segments.as_float64("advantages", advantages) / temperature
    weight = weights.truncate(tilted, segments, maximum=maximum).log_weights.exp()
    objective = surrogates.weighted_log_prob(
        log_prob_target, weight, torch.ones_like(weight), segments
    )
    return loss(objective, segments, divisor=divisor)
