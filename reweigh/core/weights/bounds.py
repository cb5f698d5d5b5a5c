"""How large a weight may grow: bounds in log space, each of which says what it touched."""

import math
from typing import NamedTuple

from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


class Bounded(NamedTuple):
    """Bounded log-weights and what the bound changed."""

    log_weights: Tensor
    """`[S]` float64."""
    touched: Tensor
    """`[S]` bool: steps whose weight the bound changed."""


def truncate(log_weights: Tensor, segments: Segments, *, maximum: float) -> Bounded:
    """Truncated importance sampling: `min(maximum, w)` (Ionides 2008).

    Biased; the weight's second moment is at most `maximum` times its mean. Truncating log-ratios
    before `prefix` bounds every factor instead of the product.

    Args:
        log_weights: `[S]`, or log-ratios.
        segments: Where the episodes lie.
        maximum: Largest weight, above 0; infinity changes nothing.

    Returns:
        The log-weights and the steps that were truncated.

    Raises:
        ValueError: `maximum` is not positive; another shape.
    """
    contracts.positive("maximum", maximum)
    log_weights = segments.read("log_weights", log_weights)
    # Before exp, which overflows float64 at 709.8: the gradient of min(c, inf) would be NaN.
    limit = math.log(maximum)
    return Bounded(log_weights.clamp(max=limit), segments.inside & (log_weights > limit))
