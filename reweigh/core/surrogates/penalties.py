"""Penalties to subtract from an objective: divergence from a reference, and entropy.

Samples come from a behaviour and carry an importance weight `w`, a constant: with the step weight
`π_θ/π_φ` (or 1, on-policy) every expectation below is over the target's actions, at the states that
the behaviour visited. With prefix weights it is over the target's states too, which are held fixed:
to count what an action does to the divergence at *later* states, put `-log(π_θ/π_ref)` into the
reward instead.

**Value and gradient are stated apart,** because automatic differentiation of an unbiased estimate
need not give an unbiased gradient: it leaves out that the actions come from `π_θ`. With
`ℓ = log(π_θ/π_ref)`, on-policy, `∇ℓ` has mean 0, and `∇k3 = (1 - e^-ℓ) ∇log π_θ` is in expectation
the gradient of `KL(π_ref ‖ π_θ)`, the other direction (`kl_from_reference` here). The gradient of
`KL(π_θ ‖ π_ref)` is `E[ℓ ∇log π_θ]`, and all three of k1, k2 and k3 have that. It is also, exactly
and at every sample, what differentiating `π_θ/π_φ · k3` through both factors gives.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments
from reweigh.core.surrogates.weighted import expected_value


def kl_k1(log_ratios: Tensor, weights: Tensor, segments: Segments) -> Tensor:
    """`KL(π_θ ‖ π_ref)` by k1: value `w ℓ`, gradient `w ℓ ∇log π_θ`.

    Schulman 2020 ("Approximating KL divergence"). Value and gradient are unbiased; the value may be
    negative and is the noisiest of the three.

    Args:
        log_ratios: `[S]` float32 or float64, `ℓ`, of the target to the *reference* (as
            `log_ratios(log_prob_target, log_prob_reference, segments)`); differentiated once.
        weights: `[S]`, plain weights of the target to the behaviour; a constant.

    Returns:
        `[S]` float64, 0 where the two policies agree. Where the weight is exactly 0, value and
        gradient are exactly 0, even if the log-ratio is infinite.

    Raises:
        ValueError: Wrong shape; half-precision log-ratios.
    """
    return _penalty(log_ratios, weights, segments, value=_itself, slope=_itself)


def kl_k2(log_ratios: Tensor, weights: Tensor, segments: Segments) -> Tensor:
    """`KL(π_θ ‖ π_ref)` by k2: value `w ℓ²/2`, gradient `w ℓ ∇log π_θ`.

    Schulman 2020. The value is biased by `O(ℓ³)`, never negative, and of low variance; the gradient
    is unbiased for the divergence (not for the value's own expectation), and is what automatic
    differentiation gives.

    Args:
        log_ratios: `[S]`, as in `kl_k1`.
        weights: `[S]`, as in `kl_k1`.

    Returns:
        `[S]` float64, as `kl_k1`.

    Raises:
        ValueError: As `kl_k1`.
    """
    return _penalty(log_ratios, weights, segments, value=lambda x: x.square() / 2, slope=_itself)


def kl_k3(log_ratios: Tensor, weights: Tensor, segments: Segments) -> Tensor:
    """`KL(π_θ ‖ π_ref)` by k3: value `w (e^-ℓ - 1 + ℓ)`, gradient `w ℓ ∇log π_θ`.

    Schulman 2020. Value and gradient are unbiased, if the target can take every action that the
    reference can; the value is never negative. Its other published gradients: with step weights
    differentiated, the same (DeepSeek-AI 2025, V3.2: "unbiased KL estimate"); by automatic
    differentiation alone, as in Shao et al. 2024 (GRPO), that of `kl_from_reference`.

    Args:
        log_ratios: `[S]`, as in `kl_k1`.
        weights: `[S]`, as in `kl_k1`.

    Returns:
        `[S]` float64, as `kl_k1`. `inf`, with a finite gradient, where `π_ref/π_θ` overflows.

    Raises:
        ValueError: As `kl_k1`.
    """
    return _penalty(log_ratios, weights, segments, value=lambda x: (-x).expm1() + x, slope=_itself)


def kl_from_reference(log_ratios: Tensor, weights: Tensor, segments: Segments) -> Tensor:
    """`KL(π_ref ‖ π_θ)`: value `w (1 - e^-ℓ - ℓ e^-ℓ)`, gradient `w (1 - e^-ℓ) ∇log π_θ`.

    The other direction: it grows where the target lacks what the reference does, instead of where
    it does what the reference lacks. Value and gradient are unbiased, if the target can take every
    action that the reference can; the value is never negative (it is k3 of the exchanged policies,
    sampled from the target). With weights 1 the gradient is that of k3 differentiated as it stands.

    Args:
        log_ratios: `[S]`, as in `kl_k1`, of the target to the reference.
        weights: `[S]`, as in `kl_k1`.

    Returns:
        `[S]` float64, as `kl_k1`; not finite where `π_ref/π_θ` overflows.

    Raises:
        ValueError: As `kl_k1`.
    """
    return _penalty(
        log_ratios,
        weights,
        segments,
        value=lambda x: 1 - (-x).exp() * (1 + x),
        slope=lambda x: -(-x).expm1(),
    )


def entropy(log_probs: Tensor, segments: Segments) -> Tensor:
    """Entropy `H = -Σ_a π_θ(a|s_t) log π_θ(a|s_t)` of each step's policy, in nats.

    Args:
        log_probs: `[S, A]` float32 or float64, normalised (log_softmax), differentiated;
            `-inf` (outside the support) adds 0.

    Returns:
        `[S]` float64. `log A` for a uniform policy. Its gradient, `-Σ_a log π ∇π`, is that along
        changes that keep the probabilities normalised.

    Raises:
        ValueError: Wrong shape; half-precision log-probabilities.
    """
    unit = torch.ones_like(segments.mask, dtype=torch.float64)
    return expected_value(log_probs, unit, -log_probs, segments)


def _itself(x: Tensor) -> Tensor:
    return x


def _penalty(
    log_ratios: Tensor,
    weights: Tensor,
    segments: Segments,
    *,
    value: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
) -> Tensor:
    """`sg(w · value(ℓ))`, with the gradient `w · slope(ℓ) ∇ℓ`."""
    contracts.require_full_precision("log_ratios", log_ratios)
    weights = segments.as_float64("weights", weights.detach())
    log_ratios = segments.as_float64("log_ratios", log_ratios)
    log_ratios = torch.where(weights == 0, 0.0, log_ratios)
    constant = log_ratios.detach()
    return weights * (value(constant) + slope(constant) * (log_ratios - constant))
