"""What numbers are measured in, so that no rewards are too small, or too far from 0."""

from torch import Tensor

ROUNDING = 1e-12
"""The share of their size that numbers must vary by before it is more than rounding."""


def unit_of(numbers: Tensor, *, size: float) -> float:
    """The deviation of numbers; 1 if they are constant but for rounding.

    Args:
        numbers: What is to be measured.
        size: The largest of what they are differences of.
    """
    deviation = float(numbers.std(correction=0))
    return deviation if deviation > ROUNDING * size else 1.0
