"""Checks of values that came as JSON: of their type and range, all faults at once.

A check takes a value and its place in words, and yields one message for every fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any, str], Iterator[str]]


def text(*choices: str) -> Check:
    """A text; one of `choices` if there are any."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{where} is {_told(value)}, not a text"
        elif choices and value not in choices:
            yield f"{where} is {_told(value)}, not one of {', '.join(choices)}"

    return check


def whole(least: int, most: int = 2**62) -> Check:
    """A whole number from `least` to `most`."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"{where} is {_told(value)}, not a whole number"
        elif not least <= value <= most:
            yield f"{where} is {_told(value)}, not from {least} to {most}"

    return check


def number(value: Any, where: str) -> Iterator[str]:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        yield f"{where} is {_told(value)}, not a number"
    elif abs(value) > _LARGEST or not isfinite(value):
        yield f"{where} is {_told(value)}, not a finite number"


_LARGEST = 1e300


def real(least: float, most: float) -> Check:
    """A number from `least` to `most`."""

    def check(value: Any, where: str) -> Iterator[str]:
        faults = [*number(value, where)]
        if not faults and not least <= value <= most:
            faults = [f"{where} is {_told(value)}, not from {least:g} to {most:g}"]
        yield from faults

    return check


def flag(value: Any, where: str) -> Iterator[str]:
    """True or false."""
    if not isinstance(value, bool):
        yield f"{where} is {_told(value)}, not true or false"


def optional(check: Check) -> Check:
    """Null, or what `check` takes."""
    return lambda value, where: iter(()) if value is None else check(value, where)


def listed(check: Check, least: int = 0, most: int | None = None) -> Check:
    """A list of `least` to `most` values that `check` takes each."""

    def check_all(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            yield f"{where} is {_told(value)}, not a list"
            return
        if len(value) < least or (most is not None and len(value) > most):
            some = f"{least} or more" if most is None else f"{least} to {most}"
            yield f"{where} has {len(value)} entries, not {some}"
            return
        for index, one in enumerate(value):
            yield from check(one, f"{where}[{index}]")

    return check_all


def mapped(check: Check, least: int = 0) -> Check:
    """An object of at least `least` names with values that `check` takes each."""

    def check_all(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{where} is {_told(value)}, not an object"
            return
        if len(value) < least:
            yield f"{where} is empty"
        for name, one in value.items():
            yield from check(one, f"{where}[{_told(name)}]")

    return check_all


def record(checks: Mapping[str, Check], others: Mapping[str, Check] | None = None) -> Check:
    """An object with the names of `checks`, and perhaps some of `others`."""

    def check_all(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{where} is {_told(value)}, not an object"
            return
        if missing := [name for name in checks if name not in value]:
            yield f"{where} has no {', '.join(missing)}"
        for name, check in {**checks, **(others or {})}.items():
            if name in value:
                yield from check(value[name], f"{where}.{name}")

    return check_all


LONGEST_TOLD = 40
"""Characters of a value in a message."""


def _told(value: Any) -> str:
    """A value in a message, cut short."""
    try:
        told = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number that is too long"
    return told if len(told) <= LONGEST_TOLD else f"{told[:LONGEST_TOLD]}…"
