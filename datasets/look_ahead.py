"""Compute ahead in threads: the results in order, a bounded number of them at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def look_ahead(
    do: Callable[[T], R], items: Iterable[T], *, threads: int, depth: int, wait: bool = False
) -> Iterator[R]:
    """Yield do(item) for each item in order, as `map` does, but let threads compute up to `depth` items ahead.

    `items` are taken in the caller's thread. A generator that is closed or dropped forgets what it has not begun, and
    its threads end; wait: not before they have finished what they have begun.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="look-ahead")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def each(do: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return do(item) for each item."""
    return [do(item) for item in items]


def split(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Yield the items in lists of `count`, the last of which may be shorter."""
    rest = iter(items)
    while part := list(islice(rest, count)):
        yield part
