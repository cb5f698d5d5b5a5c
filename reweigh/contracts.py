"""Checks on arguments: the error names the argument, the user's value, and the next thing to do."""

from collections.abc import Sequence

from torch import Tensor, as_tensor, float32, float64
from torch import bool as torch_bool
from torch import int64 as torch_int64

# Private, for want of a public question: torch has none that tells a tensor under vmap, whose
# values no `if` can look at, from another.
from torch._C._functorch import is_functorch_wrapped_tensor


def require_vector(name: str, x: Tensor, length: int, unit: str) -> None:
    """Requires a tensor `[length]`, one number for each `unit` ("step" or "episode").

    Raises:
        ValueError: Not a tensor; wrong shape.
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


def require_rows(name: str, x: Tensor, length: int) -> None:
    """Requires a tensor `[length, A]`: a row of numbers, one for each action, at each position.

    Raises:
        ValueError: Not a tensor; wrong shape.
    """
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[0] != length:
        came = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{name} must be a torch tensor of shape [{length}, actions], a row for each position "
            f"of the segments, got {came}"
        )


def require_integers(name: str, x: Tensor, count: int) -> None:
    """Requires int64 `[N]`.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    require_vector(name, x, count, "episode")
    if x.dtype != torch_int64:
        raise ValueError(f"{name} must be int64, got {x.dtype}")


def require_not_negative(name: str, x: Tensor) -> None:
    """Requires numbers of at least 0.

    Raises:
        ValueError: A negative number.
    """
    if bool((x < 0).any()):
        raise ValueError(f"{name} must not be negative, got {int(x.min())}")


def require_covered(name: str, mask: Tensor, inside: Tensor) -> None:
    """Requires that every position that is True in a mask belongs to an episode.

    Raises:
        ValueError: Positions outside all episodes; says how many.
    """
    outside = int((mask & ~inside).sum())
    if outside:
        raise ValueError(
            f"{name} is True at {outside} positions that no episode reaches: lengths count "
            "positions, holes included (Segments.masked takes a mask alone)"
        )


def require_disjoint(start: Tensor, stop: Tensor, size: int) -> None:
    """Requires intervals `[N]`, at least one, of an axis of `size` positions, without overlaps.

    Raises:
        ValueError: No interval; a bound outside the axis or out of order; an overlap.
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
    # In the order of their starts, an interval can only overlap with the one before.
    occupied = (stop > start).nonzero().squeeze(1)
    occupied = occupied[start[occupied].argsort()]
    overlap = stop[occupied][:-1] > start[occupied][1:]
    if bool(overlap.any()):
        i = int(overlap.nonzero()[0])
        raise ValueError(f"episodes {int(occupied[i])} and {int(occupied[i + 1])} overlap")


def counts(name: str, given: Tensor | Sequence[int]) -> Tensor:
    """Non-negative integers `[N]` as int64.

    Raises:
        ValueError: Wrong shape; a negative number or a fraction.
    """
    x = as_tensor(given)
    # An empty list becomes a float tensor; it goes on to the error about having no episode.
    if x.dim() != 1 or (x < 0).any() or (x != x.long()).any():
        raise ValueError(f"{name} must be non-negative integers [N], got {x.tolist()}")
    return x.long()


def require_full_precision(name: str, log_prob: Tensor) -> None:
    """Requires log-probabilities in float32 or float64.

    Half precision is wrong by 0.2 nats after a thousand steps already, and no later summation
    repairs that.

    Raises:
        ValueError: Another dtype.
    """
    if isinstance(log_prob, Tensor) and log_prob.dtype not in (float32, float64):
        raise ValueError(
            f"{name} is {log_prob.dtype}, whose rounding alone changes importance weights by tens "
            "of percent: compute it in float32 (log_softmax of logits.float())"
        )


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Requires `low ≤ value ≤ high`.

    Raises:
        ValueError: Outside, or NaN.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}")


def require_at_least(name: str, value: int, least: int) -> None:
    """Requires an integer of at least `least`.

    Raises:
        ValueError: A smaller number, or a fraction.
    """
    if value < least or value != int(value):
        raise ValueError(f"{name} must be an integer of at least {least}, got {value}")


def require_positive(name: str, value: float) -> None:
    """Requires `value > 0` (infinity is allowed).

    Raises:
        ValueError: Zero, negative or NaN.
    """
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def require_proportions(name: str, x: Tensor, count: int) -> None:
    """Requires the shares `[count]` of a mixture: none negative, 1 in all.

    Raises:
        ValueError: Wrong shape; a negative share; a sum other than 1.
    """
    require_vector(name, x, count, "source")
    total = float(x.sum())
    if not (bool((x >= 0).all()) and abs(total - 1.0) < 1e-6):
        raise ValueError(
            f"{name} must be non-negative and sum to 1, got {x.tolist()} with sum {total:g}: "
            "divide the counts by their sum"
        )


def require_boolean(name: str, x: Tensor) -> None:
    """Requires a tensor of bool.

    Raises:
        ValueError: Another dtype.
    """
    if x.dtype != torch_bool:
        raise ValueError(f"{name} must be bool, got {x.dtype}: compare it ({name} > 0)")


def can_look_at(x: Tensor) -> bool:
    """Whether values can be checked: not on an accelerator, which would stall, nor under vmap."""
    return x.device.type == "cpu" and not is_functorch_wrapped_tensor(x)


def require_groups(name: str, x: Tensor, count: int) -> None:
    """Requires a vector of int64 in [0, count); the range is checked on the CPU alone.

    Raises:
        ValueError: Wrong shape or dtype; a number outside [0, count).
    """
    require_vector(name, x, x.numel() if isinstance(x, Tensor) else 0, "episode")
    if x.dtype != torch_int64:
        raise ValueError(f"{name} must be int64, got {x.dtype}: number the groups from 0")
    if can_look_at(x) and bool(((x < 0) | (x >= count)).any()):
        raise ValueError(
            f"{name} must lie in [0, {count}), got {int(x.min())} to {int(x.max())}: number the "
            "groups from 0 (torch.unique with return_inverse) and pass how many there are"
        )


def one_line(error: Exception, *, typed: bool = False, most: int | None = None) -> str:
    """What an error says, in one line.

    Args:
        error: The error.
        typed: Whether to begin with its type; others' errors often say little without.
        most: The most characters; None for all.
    """
    text = f"{type(error).__name__}: {error}" if typed else str(error)
    return " ".join(text.split())[:most]
