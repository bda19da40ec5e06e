"""Work done ahead on other threads, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
WORKERS = 2
"""Decoding a photo takes a fraction of explaining it: more threads would only take cores from the
model.
"""


def ahead(tasks: Iterable[Callable[[], T]], *, most: int = WORKERS) -> Iterator[T]:
    """Every task's result, in order; up to `most` of the next ones are being done meanwhile.

    A task's exception is raised when its turn comes.
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
