"""Tasks run ahead on other threads, with their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
WORKERS = 2
"""Few, as decoding a photo is much faster than explaining it, and the model needs the cores."""


def ahead(tasks: Iterable[Callable[[], T]], *, most: int = WORKERS) -> Iterator[T]:
    """Every task's result, in order, while up to `most` of the next tasks run on other threads.

    A task's exception is raised in place of its result.
    """
    pool = ThreadPoolExecutor(most)
    pending: deque[Future[T]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(task))
            if len(pending) > most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
