"""From per-step objectives to the scalar that an optimiser minimises."""

from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments


def loss(objective: Tensor, segments: Segments, *, divisor: float | None = None) -> Tensor:
    """`-(1/D) Σ_i Σ_t objective_it`, with `D` the number of episodes unless given.

    Dividing by episodes, not by steps, keeps the estimate unbiased: the number of steps depends on
    the policy. A micro-batch, or one of several devices, passes the *full* batch's divisor, and the
    parts then sum to the loss of the whole.

    Args:
        objective: `[S]`, to maximise.
        segments: Where the episodes lie.
        divisor: What to divide by, above 0.

    Returns:
        Scalar float64.

    Raises:
        ValueError: Another shape; a divisor that is not positive.
    """
    divisor = len(segments) if divisor is None else divisor
    contracts.positive("divisor", divisor)
    return -segments.read("objective", objective).sum() / divisor
