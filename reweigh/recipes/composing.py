"""What recipes are composed of, beside the stages of `reweigh.core`."""

from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from reweigh.core.sample import Sample
from reweigh.core.surrogates import weighted_log_prob
from reweigh.core.weights import truncate
from reweigh.recipes.expectation import BIASED
from reweigh.recipes.recipe import Recipe, ValueRecipe


def truncated(recipe: Recipe, *, maximum: float) -> Recipe:
    """A recipe with its prefix weights truncated: `min(maximum, w_t)` (Ionides 2008).

    Biased; the weights' second moment is at most `maximum` times their mean. The truncated weight
    is a constant factor of the score: where it is cut off, the step still learns, at the maximum.

    Args:
        recipe: One that reads `Sample.log_prefix`; called, the result refuses any other.
        maximum: Largest weight, above 0.

    Returns:
        A recipe with the same inputs. With an infinite maximum it is the recipe itself.
    """

    def function(sample: Sample, *inputs: Any, **knobs: Any) -> Any:
        whole = sample.log_prefix
        bounded = truncate(whole, sample.segments, maximum=maximum).log_weights
        changed = sample.with_prefix(with_gradient_of(whole, bounded))
        result = recipe.function(changed, *inputs, **knobs)
        if "log_prefix" not in vars(changed):  # the cached property was never asked for
            raise ValueError(
                f"{recipe.name} does not weigh by Sample.log_prefix, so that no weight of it would "
                "be truncated: truncate per_decision, weighted_per_decision or a doubly robust "
                "recipe (for a mixture, of sample.against(log_prob_sources, proportions))"
            )
        return result

    function.__doc__ = truncated.__doc__
    function.__signature__ = signature(recipe.function)  # type: ignore[attr-defined]
    return replace(
        recipe,
        function=function,
        expectation=BIASED,
        on_policy=recipe.on_policy if maximum >= 1 else BIASED,
        identity=None,
        name=f"truncated_{recipe.name}",
        origin=partial(truncated, recipe, maximum=maximum),
        **({"estimated": None} if isinstance(recipe, ValueRecipe) else {}),
    )


def with_gradient_of(log_weights: Tensor, bounded: Tensor) -> Tensor:
    """Bounded log-weights with the gradient of the unbounded: `∇w̄ = w̄ ∇log w`.

    So that the derivative of `w̄ r` is `w̄ r ∇log w`, the score weighed by what was bounded, and not
    0 wherever the bound was reached.
    """
    # A weight of 0 has no gradient, and -inf - (-inf) would be NaN.
    zero = log_weights.detach() == -torch.inf
    change = torch.where(zero, 0.0, log_weights - log_weights.detach())
    return bounded.detach() + change


def weighted_score(
    sample: Sample, weights: Tensor | float, continuation: Tensor, *, discounted: bool = True
) -> Tensor:
    """`sg(γ^t w_t C_t) log π_θ(a_t|s_t)`: what most policy gradients are, `[S]`.

    Args:
        weights: `[S]`, plain; or one number.
        continuation: `[S]`, what the weighted score is multiplied with.
        discounted: Whether the factor `γ^t` is there.
    """
    if not isinstance(weights, Tensor):
        weights = torch.full_like(sample.log_prob_target.detach(), weights)
    if discounted:
        continuation = sample.discount_from_start * continuation
    return weighted_log_prob(sample.log_prob_target, weights, continuation, sample.segments)
