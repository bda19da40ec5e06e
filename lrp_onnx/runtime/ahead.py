"""Tasks run ahead on other threads, with their results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
WORKERS = 2
"""Few, as decoding a photo is much faster than explaining it, and the model needs the cores."""


def ahead(tasks: Iterable[Callable[[], T]], *, most: int = WORKERS) -> Iterator[T]:
    """Every task's result, in order, while up to `most` of the next tasks run on other threads.

    A task's exception is raised in place of its result. A single task has nothing to run beside:
    no thread is begun for it, of which OpenCV would keep a kilobyte for ever.

    Raises:
        RuntimeError: the process was forked since, and the other threads are not in it.
    """
    tasks, process = iter(tasks), os.getpid()
    begun = list(islice(tasks, 2))
    if len(begun) < 2:
        yield from (task() for task in begun)
        return
    pool = ThreadPoolExecutor(most)
    pending: deque[Future[T]] = deque()
    try:
        for task in chain(begun, tasks):
            pending.append(pool.submit(task))
            if len(pending) > most:
                yield _next(pending, process)
        while pending:
            yield _next(pending, process)
    finally:
        pool.shutdown(cancel_futures=True)


def _next(pending: deque[Future[T]], process: int) -> T:
    """The next result, in the process that started the work."""
    if os.getpid() != process:
        raise RuntimeError(
            "results that a process began to read cannot be read on in a process forked from it: "
            "begin again there"
        )
    return pending.popleft().result()
