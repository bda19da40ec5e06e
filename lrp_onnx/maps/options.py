"""Checks of option values: each raises ValueError with the option's name, what fits, the value."""

from __future__ import annotations


def check_whole(name: str, value: object, *, least: int) -> None:
    """Raise ValueError unless `value` is an int, not a bool or float, of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")


def check_range(name: str, value: object, *, above: float, most: float) -> None:
    """Raise ValueError unless `value` is a number with ``above < value <= most``; NaN is not."""
    if not isinstance(value, (int, float)) or not above < value <= most:
        raise ValueError(
            f"{name} must be a number above {above:g} and up to {most:g}; got {value!r}"
        )


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`; 8.0 is not 8."""
    if value not in allowed or isinstance(value, float):
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}")
