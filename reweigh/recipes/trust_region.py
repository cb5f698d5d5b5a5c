"""Estimators that keep the policy near one that is known."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import surrogates, weights
from reweigh.core.sample import Sample
from reweigh.recipes.actor_critic import USUAL
from reweigh.recipes.composing import weighted_score
from reweigh.recipes.expectation import BEHAVIOUR, BIASED, UNBIASED, Expectation, Gradient, Identity
from reweigh.recipes.recipe import gradient
from reweigh.recipes.values import importance_sampling


@gradient(Expectation(Gradient(BEHAVIOUR, BEHAVIOUR, discounted=False)))
def trpo(sample: Sample, advantages: Tensor) -> Tensor:
    """TRPO's surrogate: `(1/N) Σ_i Σ_t ρ_t A_t`.

    Schulman et al. 2015, equation 14, summed over steps. With advantages of the behaviour it is
    unbiased for `Σ_t E_{s~d_t^φ} Σ_a ∇π_θ(a|s) A^φ(s, a)`: `step` without `γ^t`. Second moment:
    does not grow with `T`. Use it where the optimiser keeps the trust region (a bound on a
    divergence, `rw.divergences`).

    Args:
        advantages: `[S]`; a constant.

    Returns:
        `[S]`. It is `ppo` with a clip that nothing reaches.
    """
    ratios = sample.log_ratios
    advantages = sample.steps("advantages", advantages)
    return surrogates.weighted_ratio(ratios, ratios.exp(), advantages, sample.segments)


@gradient(
    BIASED,
    on_policy=USUAL,
    identity=Identity(
        "with a clip that no ratio reaches, trpo",
        {"clip": torch.inf},
        lambda sample, advantages: trpo(sample, advantages),
    ),
)
def ppo(
    sample: Sample, advantages: Tensor, *, clip: float = 0.2, clip_high: float | None = None
) -> Tensor:
    """PPO's clipped surrogate: `(1/N) Σ_i Σ_t min(ρ_t A_t, clip(ρ_t, 1-ε, 1+ε') A_t)`.

    Schulman et al. 2017, equation 7, summed over steps. Biased once a ratio leaves the interval;
    before that, with the logged reward-to-go as advantages, it is `step` without `γ^t`. Weights
    never exceed `1 + ε'` where the advantage is positive. Use it for several updates on nearly
    fresh data.

    Args:
        advantages: `[S]`; a constant.
        clip: ε, above 0.
        clip_high: ε', above 0; without it, ε.

    Returns:
        `[S]`. At `φ = θ` its gradient is that of the plain policy gradient with these advantages.
    """
    advantages = sample.steps("advantages", advantages)
    return surrogates.clipped_ratio(
        sample.log_ratios, advantages, sample.segments, clip=clip, clip_high=clip_high
    )


@gradient(BIASED, on_policy=USUAL)
def geppo(
    sample: Sample,
    advantages: Tensor,
    log_prob_current: Tensor,
    *,
    clip: float = 0.2,
    policy_weights: Tensor | None = None,
) -> Tensor:
    """GePPO: `(1/N) Σ_i Σ_t α_t min(ρ_t A_t, clip(ρ_t, c_t - ε, c_t + ε) A_t)`.

    Queeney et al. 2021, section 5, on the data of the last policies: each step's trust region is
    around the ratio `c_t` that the policy before the update has to the step's behaviour. The
    paper's radius is PPO's over the policies' mean age, and `α` the most even proportions of that
    mean age over the policies' shares of the steps: `policy_weights(age, ...)`. Biased as `ppo`,
    with the states of a mixture of old policies. Second moment: that of one ratio; weights never
    exceed `α (c + ε)` where the advantage is positive. Use it where a batch of fresh steps alone is
    too small.

    Args:
        sample: The steps, each with its own behaviour.
        advantages: `[S]`; a constant.
        log_prob_current: `[S]`, under the policy before the update; a constant.
        clip: ε, above 0.
        policy_weights: `[S]`, `α_t`; without it 1.

    Returns:
        `[S]`. With one policy, `c = 1` and `α = 1`, it is `ppo`.
    """
    current = sample.log_prob("log_prob_current", log_prob_current)
    advantages = sample.steps("advantages", advantages)
    if policy_weights is not None:
        advantages = sample.steps("policy_weights", policy_weights) * advantages
    return surrogates.clipped_ratio(
        sample.log_ratios,
        advantages,
        sample.segments,
        clip=clip,
        log_centre=current - sample.require_behaviour(),
    )


def policy_weights(age: Tensor, *, shares: Tensor, mean_age: float) -> Tensor:
    """`α` of `geppo`: the most even proportions of the mean age, over the shares of the steps.

    Args:
        age: int64 from 1, the newest policy's; any shape.
        shares: `[M]`, of the steps of each age in the whole batch, none of them 0.
        mean_age: At least 1; the clip of `geppo` is then PPO's over it.

    Returns:
        float64 in the shape of `age`. With equal shares and their own mean age it is 1.

    Raises:
        ValueError: `shares` are no proportions; an age outside 1 to M; a mean age that M policies
            cannot have.
    """
    contracts.require_proportions("shares", shares, len(shares))
    index = age.flatten() - 1
    contracts.require_groups("age - 1", index, len(shares))
    proportions = weights.proportions_by_age(len(shares), mean_age=mean_age)
    return (proportions.to(shares.device) / shares.double())[index].reshape(age.shape)


@gradient(
    BIASED,
    on_policy=UNBIASED,
    identity=Identity(
        "with delta = 1, importance_sampling",
        {"delta": 1.0},
        lambda sample, divergences: importance_sampling(sample),
    ),
    divisor=None,
)
def pois(sample: Sample, divergences: Tensor, *, delta: float = 0.2) -> Tensor:
    """A lower bound on the return: `(1/N) Σ_i W_i R_i - max|R| √((1-δ) d̂_2 / (δ N))`.

    Metelli et al. 2018 (POIS), section 5.1, action-based. The estimate of the return is unbiased,
    and with probability `1 - δ` the return is above the bound (with the true `d_2`). Maximising the
    bound stays near the behaviour by itself: `W` has the second moment `d_2`, exponential in `T`,
    and the bound pays for it. Use it for short horizons and few, costly episodes, with several
    updates each.

    Args:
        sample: The episodes; the target is differentiated through the weights.
        divergences: `[S]`, Rényi divergence of order 2 of the target from the behaviour at each
            state (`divergences.renyi2_categorical` or `renyi2_gaussian`), differentiated.
        delta: δ in (0, 1].

    Returns:
        Scalar. With `δ = 1` it is the estimate of `importance_sampling`.
    """
    segments = sample.segments
    size = surrogates.renyi_sample_size(sample.steps("divergences", divergences), segments)
    whole = segments.spread(sample.log_trajectory)
    return surrogates.pois_bound(whole, sample.returns, size, segments, delta=delta)


@gradient(
    BIASED,
    on_policy=BIASED,
    identity=Identity(
        "at a high temperature, behaviour cloning",
        {"temperature": torch.inf},
        lambda sample, advantages: -sample.log_prob_target.sum() / len(sample),
    ),
)
def awr(
    sample: Sample, advantages: Tensor, *, temperature: float = 1.0, maximum: float = 20.0
) -> Tensor:
    """Advantage-weighted regression: `(1/N) Σ_i Σ_t min(e^(A_t / β), c) log π_θ(a_t|s_t)`.

    Peng et al. 2019, section 3: the logged actions are imitated, the better the more. Its fixed
    point is the behaviour tilted by `e^(A/β)`, the best policy within a divergence of it, and not
    a gradient of the return; biased by that for every `φ`. Needs no log-probabilities of the
    behaviour, and its weights do not depend on the target: no second moment that grows. Use it on
    logs whose probabilities are lost.

    Args:
        advantages: `[S]`, of the behaviour; a constant.
        temperature: β, above 0: the smaller, the greedier.
        maximum: `c`, above 0.

    Returns:
        `[S]`. With equal advantages it is behaviour cloning, times a constant.
    """
    contracts.require_positive("temperature", temperature)
    tilted = sample.steps("advantages", advantages) / temperature
    weight = weights.truncate(tilted, sample.segments, maximum=maximum).log_weights.exp()
    return weighted_score(sample, weight, torch.ones_like(weight), discounted=False)
