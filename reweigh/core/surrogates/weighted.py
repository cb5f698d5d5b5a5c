"""Weighted score functions. Weights and advantages are detached here, and nowhere earlier."""

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def weighted_log_prob(
    log_prob_target: Tensor, weights: Tensor, advantages: Tensor, segments: Segments
) -> Tensor:
    """`sg(w_t A_t) log π_θ(a_t|s_t)`: its gradient is `w_t A_t ∇log π_θ(a_t|s_t)`.

    Published objectives differ in the weights alone: the bounded ratio (CISPO: MiniMax 2025), 1 or
    the bounded product of the whole sequence by the advantage's sign (TOPR: Le Roux et al. 2025),
    `exp(A/β)` at an advantage of 1 (AWR: Peng et al. 2019).

    Args:
        log_prob_target: `[S]` float32 or float64, of the policy being trained, differentiated.
        weights: `[S]`, plain weights (not their logarithms).
        advantages: `[S]`, any return or advantage.

    Returns:
        `[S]` float64. Where `w_t A_t` is exactly 0, value and gradient are exactly 0, even if
        `log_prob_target` is `-inf`.

    Raises:
        ValueError: Wrong shape; a half-precision log-probability.
    """
    contracts.require_full_precision("log_prob_target", log_prob_target)
    log_prob_target = segments.as_float64("log_prob_target", log_prob_target)
    coefficient = _coefficient(weights, advantages, segments)
    return coefficient * torch.where(coefficient == 0, 0.0, log_prob_target)


def weighted_ratio(
    log_ratios: Tensor, weights: Tensor, advantages: Tensor, segments: Segments
) -> Tensor:
    """`sg(w_t A_t / ρ_t) ρ_t`: value `w_t A_t`, gradient `w_t A_t ∇log π_θ(a_t|s_t)`.

    The ratio form of `weighted_log_prob`. Its gradient is the same, and its value estimates the
    objective: with step weights, the surrogate `E_φ[ρ A]` of TRPO.

    Args:
        log_ratios: `[S]` float32 or float64, differentiated; only its gradient matters.
        weights: `[S]`, plain weights.
        advantages: `[S]`, any return or advantage.

    Returns:
        `[S]` float64. With weights `ρ_t` it is `ρ_t A_t`. Where `w_t A_t` is exactly 0, value and
        gradient are exactly 0, even if the log-ratio is `-inf`.

    Raises:
        ValueError: Wrong shape; half-precision log-ratios.
    """
    contracts.require_full_precision("log_ratios", log_ratios)
    coefficient = _coefficient(weights, advantages, segments)
    log_ratios = segments.as_float64("log_ratios", log_ratios)
    log_ratios = torch.where(coefficient == 0, 0.0, log_ratios)
    # The quotient of the ratios, not of their exponentials, which overflow.
    return coefficient * (log_ratios - log_ratios.detach()).exp()


def expected_value(
    log_probs: Tensor, weights: Tensor, action_values: Tensor, segments: Segments
) -> Tensor:
    """`sg(w_t) Σ_a π_θ(a|s_t) sg(Q(s_t, a))`: its gradient is `w_t Σ_a Q ∇π_θ(a|s_t)`.

    The policy gradient of a state over all actions, none of them sampled. It completes an estimator
    that has taken Q out of its sampled term: doubly robust (weights exclusive of the step: Jiang
    and Li 2016; its gradient: Huang and Jiang 2020) and ACER's bias correction (Wang et al. 2017,
    section 3.2), where `[1 - c/ρ(a)]_+ (Q(s_t, a) - V(s_t))` is what to pass as action values.

    Args:
        log_probs: `[S, A]` float32 or float64, of every action under the policy being trained: what
            is differentiated. `-inf` (outside the support) is legal.
        weights: `[S]`, plain weights.
        action_values: `[S, A]`; a factor that depends on the action multiplies them.

    Returns:
        `[S]` float64. An action of probability 0 contributes exactly 0 to value and gradient,
        whatever its action value; so does a weight of 0. Constant action values have gradient 0.

    Raises:
        ValueError: Wrong shape; half-precision log-probabilities.
    """
    contracts.require_full_precision("log_probs", log_probs)
    log_probs = segments.rows_as_float64("log_probs", log_probs)
    action_values = segments.rows_as_float64("action_values", action_values.detach())
    if log_probs.shape != action_values.shape:
        raise ValueError(
            f"action_values must have the shape of log_probs, {list(log_probs.shape)}, a number "
            f"for each action, got {list(action_values.shape)}"
        )
    weights = _read_weights(weights, segments).unsqueeze(1)
    probabilities = log_probs.exp()
    # Selected before the product: 0 * inf would be NaN, in the value or in the gradient.
    alive = (weights != 0) & (probabilities > 0)
    values = torch.where(alive, action_values, 0.0)
    coefficients = torch.where(values == 0, 0.0, weights) * values
    return (coefficients * probabilities).sum(1)


def _coefficient(weights: Tensor, advantages: Tensor, segments: Segments) -> Tensor:
    """`sg(w_t A_t)`, `[S]`."""
    weights = _read_weights(weights, segments)
    advantages = segments.as_float64("advantages", advantages).detach()
    # 0 * inf counts as 0, on either side.
    return torch.where(advantages == 0, 0.0, weights) * torch.where(weights == 0, 0.0, advantages)


def _read_weights(weights: Tensor, segments: Segments) -> Tensor:
    weights = segments.as_float64("weights", weights).detach()
    if contracts.can_look_at(weights) and bool((weights < 0).any()):
        raise ValueError(
            f"weights hold {float(weights.min())}, and a ratio of probabilities is not negative: "
            "pass log_weights.exp(), and what may be negative as advantages"
        )
    return weights
