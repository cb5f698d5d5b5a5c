"""Checks on what a caller passes in: each names the argument, what came, and what to do next."""

from collections.abc import Sequence

from torch import Tensor, as_tensor, float32, float64
from torch import bool as torch_bool
from torch import int64 as torch_int64
from torch._C._functorch import is_functorch_wrapped_tensor


def vector(name: str, x: Tensor, length: int, unit: str) -> None:
    """Requires a tensor `[length]`, one number for each `unit` ("step" or "episode").

    Raises:
        ValueError: Not a tensor, or wrong shape.
    """
    if not isinstance(x, Tensor):
        raise ValueError(
            f"{name} must be a torch tensor of shape [{length}], got {type(x).__name__}"
        )
    if x.shape != (length,):
        raise ValueError(
            f"{name} must have shape [{length}], one number for each {unit} of the segments, "
            f"got {list(x.shape)}{': pass x.flatten()' if x.numel() == length else ''}"
        )


def rows(name: str, x: Tensor, length: int) -> None:
    """Requires a tensor `[length, A]`: a row of numbers, one for each action, at each position.

    Raises:
        ValueError: Not a tensor, or wrong shape.
    """
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[0] != length:
        found = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{name} must be a torch tensor of shape [{length}, actions], a row for each position "
            f"of the segments, got {found}"
        )


def integers(name: str, x: Tensor, count: int) -> None:
    """Requires int64 `[N]`.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    vector(name, x, count, "episode")
    if x.dtype != torch_int64:
        raise ValueError(f"{name} must be int64, got {x.dtype}")


def not_negative(name: str, x: Tensor) -> None:
    """Requires numbers of at least 0.

    Raises:
        ValueError: A negative one.
    """
    if bool((x < 0).any()):
        raise ValueError(f"{name} must not be negative, got {int(x.min())}")


def covered(name: str, mask: Tensor, inside: Tensor) -> None:
    """Requires that every position that is True in a mask belongs to an episode.

    Raises:
        ValueError: Some do not; says how many.
    """
    lost = int((mask & ~inside).sum())
    if lost:
        raise ValueError(
            f"{name} is True at {lost} positions that no episode reaches: lengths count positions, "
            "holes included (Segments.masked takes a mask alone)"
        )


def stretches(start: Tensor, stop: Tensor, size: int) -> None:
    """Requires stretches `[N]` of an axis of `size` positions, none of which overlap.

    Raises:
        ValueError: None; a bound outside or out of order; an overlap; says which episode's.
    """
    if start.numel() == 0:
        raise ValueError("segments need at least one episode, got none")
    outside = (start < 0) | (stop < start) | (stop > size)
    if bool(outside.any()):
        i = int(outside.nonzero()[0])
        raise ValueError(
            f"episode {i} spans positions {int(start[i])} to {int(stop[i])}, which do not lie in "
            f"order within the {size} positions of the mask"
        )
    occupied = (stop > start).nonzero().squeeze(1)
    occupied = occupied[start[occupied].argsort()]
    overlap = stop[occupied][:-1] > start[occupied][1:]
    if bool(overlap.any()):
        i = int(overlap.nonzero()[0])
        raise ValueError(f"episodes {int(occupied[i])} and {int(occupied[i + 1])} overlap")


def counts(name: str, given: Tensor | Sequence[int]) -> Tensor:
    """Requires non-negative integers `[N]`, and returns them as int64.

    Raises:
        ValueError: Wrong shape, a negative number or a fraction.
    """
    x = as_tensor(given)
    # An empty list becomes a float tensor; it goes on to the error about having no episode.
    if x.dim() != 1 or (x < 0).any() or (x != x.long()).any():
        raise ValueError(f"{name} must be non-negative integers [N], got {x.tolist()}")
    return x.long()


def precise(name: str, log_prob: Tensor) -> None:
    """Requires log-probabilities in float32 or float64.

    Raises:
        ValueError: Half precision: it is wrong by 0.2 nats after a thousand steps already, and no
            later summation repairs that. Another dtype.
    """
    if isinstance(log_prob, Tensor) and log_prob.dtype not in (float32, float64):
        raise ValueError(
            f"{name} is {log_prob.dtype}, whose rounding alone changes importance weights by tens "
            "of percent: compute it in float32 (log_softmax of logits.float())"
        )


def between(name: str, value: float, low: float, high: float) -> None:
    """Requires `low ≤ value ≤ high`.

    Raises:
        ValueError: Outside, or NaN.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}")


def at_least(name: str, value: int, least: int) -> None:
    """Requires an integer of at least `least`.

    Raises:
        ValueError: A smaller number, or a fraction.
    """
    if value < least or value != int(value):
        raise ValueError(f"{name} must be an integer of at least {least}, got {value}")


def positive(name: str, value: float) -> None:
    """Requires `value > 0` (infinity is allowed).

    Raises:
        ValueError: Zero, negative or NaN.
    """
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def proportions(name: str, x: Tensor, count: int) -> None:
    """Requires the shares `[count]` of a mixture: none negative, 1 in all.

    Raises:
        ValueError: Wrong shape, a negative share, or a sum other than 1.
    """
    vector(name, x, count, "source")
    total = float(x.sum())
    if not (bool((x >= 0).all()) and abs(total - 1.0) < 1e-6):
        raise ValueError(
            f"{name} must be non-negative and sum to 1, got {x.tolist()} with sum {total:g}: "
            "divide the counts by their sum"
        )


def boolean(name: str, x: Tensor) -> None:
    """Requires a tensor of bool.

    Raises:
        ValueError: Another dtype.
    """
    if x.dtype != torch_bool:
        raise ValueError(f"{name} must be bool, got {x.dtype}: compare it ({name} > 0)")


def can_look_at(x: Tensor) -> bool:
    """Whether values can be checked: not on an accelerator, which would stall, nor under vmap."""
    return x.device.type == "cpu" and not is_functorch_wrapped_tensor(x)


def groups(name: str, x: Tensor, count: int) -> None:
    """Requires a vector of int64 in [0, count); the range is checked on the CPU alone.

    Raises:
        ValueError: Another dtype or shape, or a number outside.
    """
    vector(name, x, x.numel() if isinstance(x, Tensor) else 0, "episode")
    if x.dtype != torch_int64:
        raise ValueError(f"{name} must be int64, got {x.dtype}: number the groups from 0")
    if can_look_at(x) and bool(((x < 0) | (x >= count)).any()):
        raise ValueError(
            f"{name} must lie in [0, {count}), got {int(x.min())} to {int(x.max())}: number the "
            "groups from 0 (torch.unique with return_inverse) and pass how many there are"
        )
