"""A function of many parts, some of them at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[R]:
    """`map`, in as many threads as there are workers, the results in the order of the items.

    No more items are held than there are workers, and one that waits. With a single worker or a
    single item all is done in the calling thread.

    Args:
        function: What is done with each item; it must be safe to call from several threads.
        items: Taken in the calling thread.
        workers: At least 1.
    """
    remaining = iter(items)
    begun = list(islice(remaining, 2))
    if workers == 1 or len(begun) < 2:
        yield from map(function, chain(begun, remaining))
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        waiting.extend(pool.submit(function, begun.pop(0)) for _ in range(2))
        for item in remaining:
            waiting.append(pool.submit(function, item))
            del item  # its memory is the worker's to free
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
