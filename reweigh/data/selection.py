"""Which rows of the log a batch holds: ranges of a sorted key."""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def matches(table: pa.Table, where: pc.Expression) -> np.ndarray:
    """Indices of the rows of which `where` is true."""
    numbered = table.append_column("row", pa.array(np.arange(len(table))))
    return numbered.filter(where).column("row").to_numpy()


def batches(keys: np.ndarray, lengths: np.ndarray, max_steps: int) -> Iterator[tuple[int, int]]:
    """Cut sorted rows into batches (first, stop) of at most max_steps, between unequal keys.

    Args:
        keys: [R, k], sorted; rows of one key stay together.
        lengths: [R], the steps of each row.
        max_steps: the most steps in a batch, unless a single key has more.
    """
    begins = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))[: len(keys)]
    bounds = np.append(begins, len(keys)).tolist()
    steps = np.append(0, np.cumsum(lengths)).tolist()
    first = 0
    for begin, stop in pairwise(bounds):
        if begin > first and steps[stop] - steps[first] > max_steps:
            yield first, begin
            first = begin
    if len(keys):
        yield first, len(keys)


def between(names: Sequence[str], first: np.ndarray, last: np.ndarray) -> pc.Expression:
    """Rows whose key lies from first to last, both included, in lexicographic order."""
    low, high = _bound(names, first, above=True), _bound(names, last, above=False)
    leading = pc.field(names[0])
    # This says nothing new, but it is all that the files' statistics can be held against.
    return (leading >= first[0]) & (leading <= last[0]) & low & high


def _bound(names: Sequence[str], key: np.ndarray, *, above: bool) -> pc.Expression:
    """Rows whose key is at least, or at most, the given one."""
    fields = [pc.field(name) for name in names]
    closed = fields[-1] >= key[-1] if above else fields[-1] <= key[-1]
    pairs = list(zip(fields[:-1], key[:-1], strict=True))
    return reduce(
        lambda rest, pair: (
            (pair[0] > pair[1] if above else pair[0] < pair[1]) | ((pair[0] == pair[1]) & rest)
        ),
        reversed(pairs),
        closed,
    )
