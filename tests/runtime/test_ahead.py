"""Work done ahead: in order, concurrent, and faults when their turn comes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from lrp_onnx.runtime.ahead import ahead


def test_results_come_in_order() -> None:
    def task(index: int) -> Callable[[], int]:
        return lambda: threading.Event().wait(0.01 * (index % 3)) or index

    assert list(ahead([task(i) for i in range(20)])) == list(range(20))
    assert list(ahead([])) == []


def test_the_next_ones_are_done_while_one_is_used() -> None:
    done = [threading.Event() for _ in range(3)]
    results = ahead([lambda e=e: e.set() for e in done])
    next(results)
    assert done[1].wait(5) and done[2].wait(5)
    list(results)


def test_a_fault_is_raised_in_its_turn_and_nothing_is_left_running() -> None:
    ran: list[int] = []

    def task(index: int) -> Callable[[], int]:
        def run() -> int:
            ran.append(index)
            if index == 2:
                raise ValueError("two")
            return index

        return run

    before, results = threading.active_count(), ahead([task(i) for i in range(50)])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert threading.active_count() == before and len(ran) <= 6


def test_one_task_needs_no_thread() -> None:
    assert list(ahead([threading.get_ident])) == [threading.get_ident()]
    assert threading.get_ident() not in list(ahead([threading.get_ident] * 2))

    def fault() -> int:
        raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        list(ahead([fault]))


def test_stopping_early_stops_the_work() -> None:
    ran: list[int] = []
    results = ahead([lambda i=i: ran.append(i) for i in range(100)])
    next(results)
    results.close()
    assert len(ran) <= 5
