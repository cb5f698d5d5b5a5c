"""The recurrences over time that returns, advantages and products of ratios are made of.

They run in `log2(T)` doubling passes over the flat axis (Hillis and Steele 1986), so there is no
Python loop over time. A hole is the recurrence's neutral element, and no pass reads across an
episode's boundary. All are differentiable.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def prefix_sum(x: Tensor, segments: Segments) -> Tensor:
    """Sum of each step and the steps before it: `y_t = Σ_{k≤t} x_k`.

    Nothing is subtracted, unlike the difference of two global cumulative sums, so `-inf` in one
    episode reaches neither another episode nor its own earlier steps.

    Args:
        x: `[S]` float64.

    Returns:
        `[S]`.
    """
    total = segments.fill(x)
    for stride in _strides(segments.longest):
        earlier = torch.where(segments.offset >= stride, total.roll(stride), 0.0)
        total = total + earlier
    return segments.fill(total)


def window_sum(x: Tensor, segments: Segments, *, steps: int) -> Tensor:
    """Sum of each step and the `steps - 1` before it: `y_t = Σ_{t-steps<k≤t} x_k`.

    The windows of 1, 2, 4, ... steps that the binary digits of `steps` name, side by side. Nothing
    is subtracted, as in `prefix_sum`.

    Args:
        x: `[S]` float64.
        steps: Length of the window, at least 1; at an episode's start it is shorter.

    Returns:
        `[S]`. With `steps = 1` it is `x`; with the longest episode's length, `prefix_sum`.
    """
    steps = min(steps, segments.longest)
    window, age = x[segments.existing], segments.age
    total, covered = torch.zeros_like(window), 0
    for stride in _strides(steps + 1):
        if steps & stride:
            total = total + torch.where(age >= covered, window.roll(covered), 0.0)
            covered += stride
        window = window + torch.where(age >= stride, window.roll(stride), 0.0)
    return torch.zeros_like(x).index_copy(0, segments.existing, total)


def linear_recurrence(x: Tensor, a: Tensor, segments: Segments) -> Tensor:
    """Backward first-order recurrence `y_t = x_t + a_t y_{t+1}`, with `y = 0` after the last step.

    Discounted returns, λ-returns, GAE and V-trace are this recurrence with different `x` and `a`.
    Products of consecutive `a` are formed and must not overflow.

    Args:
        x: `[S]` float64.
        a: `[S]` float64. Its value at an episode's last step does not matter.

    Returns:
        `[S]`. With `a = 0` it is `x`; with `a = 1`, the sum of what remains.
    """
    value = segments.fill(x)
    product = segments.fill(a.masked_fill(segments.is_last, 0.0), 1.0)
    for stride in _strides(segments.longest):
        # Masked before it is multiplied: what lies across a boundary may be infinite, and 0 * inf
        # is NaN, in the value or in its gradient.
        reaches = segments.remaining >= stride
        later = torch.where(reaches, value.roll(-stride), 0.0)
        value = value + product * torch.where((product == 0) & later.isinf(), 0.0, later)
        product = product * torch.where(reaches, product.roll(-stride), 0.0)
    return segments.fill(value)


def max_plus_recurrence(x: Tensor, a: Tensor, segments: Segments) -> Tensor:
    """Backward recurrence `y_t = max(x_t, a_t + y_{t+1})`, with `y = -inf` after the last step.

    The logarithm of the largest term of a `linear_recurrence` with log-coefficients `a`: divided by
    it, no term overflows.

    Args:
        x: `[S]` float64.
        a: `[S]` float64, `-inf` allowed. Its value at an episode's last step does not matter.

    Returns:
        `[S]`. With `a = 0` it is the largest of what remains.
    """
    value = segments.fill(x, -torch.inf)
    total = segments.fill(a.masked_fill(segments.is_last, -torch.inf))
    for stride in _strides(segments.longest):
        reaches = segments.remaining >= stride
        value = value.maximum(total + torch.where(reaches, value.roll(-stride), -torch.inf))
        total = total + torch.where(reaches, total.roll(-stride), -torch.inf)
    return segments.fill(value)


def weighted_recurrence(
    x: Tensor,
    log_weights: Tensor,
    log_decay: Tensor,
    segments: Segments,
    *,
    discount: float,
    trace_lambda: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`y_t = w_t x_t + γ λ c_t y_{t+1}` as `y e^-m` and `m`, for weights that may overflow.

    `m_t ≥ 0` is the logarithm of the largest coefficient in the sum, so that no product overflows;
    if no weight exceeds 1 it is 0, and nothing is rounded. `unscale` of the two is `y`.

    Args:
        x: `[S]` float64.
        log_weights: `[S]` float64, `log w_t`; `-inf` is legal.
        log_decay: `[S]` float64, `log c_t`. Its value at an episode's last step does not matter.
        discount: γ in [0, 1].
        trace_lambda: λ in [0, 1].

    Returns:
        `[S]`, differentiable in all, and `[S]`, a constant.

    Raises:
        ValueError: λ outside [0, 1].
    """
    contracts.require_between("trace_lambda", trace_lambda, 0, 1)
    factor = discount * trace_lambda
    log_factor = math.log(factor) if factor > 0 else -math.inf
    x, log_weights, log_decay = (segments.fill(y) for y in (x, log_weights, log_decay))
    log_scale = max_plus_recurrence(
        log_weights.detach().clamp(min=0.0), log_decay.detach() + log_factor, segments
    )
    later_scale = segments.next(log_scale, log_scale.new_zeros(len(segments)))
    decay = (log_decay + later_scale - log_scale).exp()
    decay = times(discount, times(trace_lambda, decay))
    return linear_recurrence((log_weights - log_scale).exp() * x, decay, segments), log_scale


def times(factor: float, x: Tensor) -> Tensor:
    """`factor · x`, which is 0 for a factor of 0 even where `x` is infinite."""
    return torch.zeros_like(x) if factor == 0 else factor * x


def unscale(value: Tensor, log_scale: Tensor) -> Tensor:
    """`value · e^log_scale`, infinite only if the product is; a scale of `-inf` gives 0.

    Args:
        value: Any shape, finite.
        log_scale: The same shape.

    Returns:
        The same shape. With `log_scale = 0` it is `value`.
    """
    # In two halves, neither of which overflows: inf * 0 would be NaN, in value or gradient.
    half = (log_scale / 2).clamp(max=700.0).exp()
    return value * half * half


def _strides(length: int) -> Iterator[int]:
    stride = 1
    while stride < length:
        yield stride
        stride *= 2
