"""The recurrences over time that everything else is made of.

They run in `log2(T)` doubling passes over the flat axis (Hillis and Steele 1986), so there is no
Python loop over time. A hole is the recurrence's neutral element, and no pass reads across an
episode's boundary. All are differentiable.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from reweigh.core.segments import Segments


def prefix_sum(x: Tensor, segments: Segments) -> Tensor:
    """Sum of each step and the steps before it: `y_t = Σ_{k≤t} x_k`.

    Nothing is subtracted, unlike the difference of two global cumulative sums, so `-inf` in one
    episode reaches neither another episode nor its own earlier steps.

    Args:
        x: `[S]` float64.
        segments: Where the episodes lie.

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

    The windows of 1, 2, 4, ... steps that the binary digits of `steps` name, side by side: nothing
    is subtracted here either.

    Args:
        x: `[S]` float64.
        segments: Where the episodes lie.
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
        segments: Where the episodes lie.

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


def discounted_window_sum(x: Tensor, segments: Segments, *, steps: int, discount: float) -> Tensor:
    """Discounted sum of each step and the `steps - 1` after it: `y_t = Σ_{k<steps} γ^k x_{t+k}`.

    `window_sum` looking ahead, with a discount.

    Args:
        x: `[S]` float64.
        segments: Where the episodes lie.
        steps: Length of the window, at least 1; at an episode's end it is shorter.
        discount: γ.

    Returns:
        `[S]`. With `steps = 1` it is `x`; with the longest episode's length, `linear_recurrence`.
    """
    steps = min(steps, max(segments.longest, 1))
    window, age = x[segments.existing], segments.age
    after = segments.lengths[segments.episode[segments.existing]] - 1 - age
    total, covered = torch.zeros_like(window), 0
    for stride in _strides(steps + 1):
        if steps & stride:
            ahead = torch.where(after >= covered, window.roll(-covered), 0.0)
            total = total + discount**covered * ahead
            covered += stride
        ahead = torch.where(after >= stride, window.roll(-stride), 0.0)
        window = window + discount**stride * ahead
    return torch.zeros_like(x).index_copy(0, segments.existing, total)


def max_plus_recurrence(x: Tensor, a: Tensor, segments: Segments) -> Tensor:
    """Backward recurrence `y_t = max(x_t, a_t + y_{t+1})`, with `y = -inf` after the last step.

    `linear_recurrence` in the logarithm of its largest term: how large the terms of a recurrence
    with log-coefficients `a` become, and so what to divide them by lest they overflow.

    Args:
        x: `[S]` float64.
        a: `[S]` float64, `-inf` allowed. Its value at an episode's last step does not matter.
        segments: Where the episodes lie.

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
