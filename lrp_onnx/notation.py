"""The one grammar of choices written as text: ``name(parameter=value, …)`` ⇄ a frozen dataclass.

Rules, methods of an evaluation, steps of post-processing and preprocessing are all written so:

    c3                              every parameter as it is by default
    c3(size=14, outside=rank)       two parameters stated
    quantize(16)                    the first parameter without its name, unless it is keyword-only
    c3:size=14,outside=rank         the same without brackets, since a shell reads brackets itself
    quantize:16
    average+c3:component=peak       several in a row

A value is a number, ``true`` or ``false``, a word, numbers joined by ``/``, or a size: ``480x640``.
It may hold brackets, and inside them what is special outside: ``@join=signed(epsilon=1)``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from lrp_onnx.errors import LrpOnnxError, RuleError

T = TypeVar("T")
_FORM = re.compile(r"([a-z0-9-]+)\s*(?:\((.*)\)|:(.*))?", re.DOTALL)
_LONGEST_SIDE = 2**15


@dataclass(frozen=True, slots=True)
class Call:
    """A name with its arguments, as written."""

    name: str
    arguments: tuple[tuple[str, str], ...] = ()
    """(parameter, value); the parameter is "" where the first value stands without its name."""

    def __str__(self) -> str:
        """The call in brackets."""
        inside = ", ".join(f"{key}={value}" if key else value for key, value in self.arguments)
        return f"{self.name}({inside})" if inside else self.name


def split(text: str, mark: str, *, error: type[LrpOnnxError] = RuleError) -> list[str]:
    """`text` cut at every `mark` outside brackets; a plus before a digit belongs to it (1e+3).

    Raises:
        `error`: brackets do not match.
    """
    parts, depth = [""], 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        in_number = letter == "+" and text[index + 1 : index + 2].isdigit()
        if letter == mark and depth == 0 and not in_number:
            parts.append("")
        else:
            parts[-1] += letter
    if depth != 0:
        raise error(f"the brackets of {text!r} do not match")
    return parts


def parse(text: str, *, what: str, error: type[LrpOnnxError] = RuleError) -> Call:
    """`text` as a call; `what` says in errors what it should be.

    Raises:
        `error`: it has another form, or a parameter is given twice.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise error(f"{text!r} is not a {what}: write NAME, NAME(parameter=value, …) or NAME:value")
    parts = [part.strip() for part in split(form[2] or form[3] or "", ",", error=error)]
    arguments: dict[str, str] = {}
    for part in filter(None, parts):
        key, *values = split(part, "=", error=error)
        if not values and arguments:
            raise error(f"{text}: {part!r} is not parameter=value")
        name, value = (key.strip(), "=".join(values).strip()) if values else ("", part)
        if name in arguments:
            raise error(f"{text}: {name} is given twice")
        arguments[name] = value
    return Call(form[1], tuple(arguments.items()))


def build(
    text: str | Call,
    table: Mapping[str, T],
    *,
    what: str,
    error: type[LrpOnnxError] = RuleError,
) -> T:
    """The dataclass that `text` describes.

    Args:
        text: as the module's docstring has it, or already parsed.
        table: name → a frozen dataclass, whose values are the defaults. Fields are read by their
            annotation.
        what: what `text` should be, for errors: ``rule``, ``step``.
        error: what is raised.

    Raises:
        `error`: a name or parameter is unknown, a parameter stands twice, or a value does not fit.
    """
    call = parse(text, what=what, error=error) if isinstance(text, str) else text
    if call.name not in table:
        raise error(f"there is no {what} {call.name!r}; {suggestion(call.name, table)}")
    entry: Any = table[call.name]
    values = _values(call, type(entry), what, error)
    try:
        built: T = replace(entry, **values)
    except (ValueError, LrpOnnxError) as fault:
        raise error(f"the {what} {call.name}: {fault}") from fault
    return built


def write(value: T, table: Mapping[str, T], *, digits: int | None = None) -> str:
    """The text that `build` reads as `value`: the parameters that differ from their defaults.

    Args:
        value: a dataclass that `table` has an entry for; of several the nearest one is named.
        table: as for `build`.
        digits: of numbers that are not whole; None for as many as give exactly the same number.

    Raises:
        KeyError: `table` has no such dataclass.
    """
    texts = {
        name: _differences(value, entry, digits)
        for name, entry in table.items()
        if type(value) is type(entry)
    }
    if not texts:
        raise KeyError(type(value).__name__)
    name = min(texts, key=lambda candidate: len(texts[candidate]))
    return str(Call(name, tuple(texts[name].items())))


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to write in place of `name`: the nearest names, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 2)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"


def read_size(text: str) -> tuple[int, int]:
    """``224`` or ``480x640`` as (height, width).

    Raises:
        ValueError: it is neither, or a side is not 1 to 32767.
    """
    sides = text.strip().lower().split("x")
    if len(sides) > 2 or not all(_is_side(side) for side in sides):
        raise ValueError(f"{text!r} is not a size: write 224, or 480x640")
    return int(sides[0]), int(sides[-1])


def is_size(text: str) -> bool:
    """Whether `text` is written as a size, though perhaps an impossible one."""
    return all(side.isdecimal() for side in text.strip().lower().split("x"))


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < _LONGEST_SIDE


def _values(call: Call, kind: Any, what: str, error: type[LrpOnnxError]) -> dict[str, Any]:
    """Parameter → value, read by the annotations of the dataclass `kind`."""
    known = {field.name: field for field in _fields(kind)}
    by_position = next((name for name, field in known.items() if not field.kw_only), None)
    values: dict[str, Any] = {}
    for name, text in call.arguments:
        key = name or by_position
        if key is None:
            raise error(f"the {what} {call.name}: {text!r} is not parameter=value")
        if key not in known:
            takes = ", ".join(known) or "none"
            raise error(f"the {what} {call.name} has no parameter {key!r}; it takes {takes}")
        if key in values:
            raise error(f"the {what} {call.name}: {key} is given twice")
        hint = _hints(kind)[key]
        try:
            values[key] = _read(text, hint)
        except ValueError:
            place = f"the {what} {call.name}: {key}={text}"
            raise error(f"{place}: the value must be {_expected(hint)}") from None
    return values


def _differences(value: Any, entry: Any, digits: int | None) -> dict[str, str]:
    """Parameter → value as text, of the parameters in which `value` differs from `entry`."""
    kind: Any = type(value)
    differing, hints = {}, _hints(kind)
    for field in _fields(kind):
        own = getattr(value, field.name)
        if own != getattr(entry, field.name):
            differing[field.name] = _text(own, hints[field.name], digits)
    return differing


def _fields(kind: Any) -> list[Field[Any]]:
    return [field for field in fields(kind) if field.init]


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _whole(text: str) -> int:
    """A whole number; also one written as 1e+3."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(text) from None
        return int(number)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/")) if text else ()


_READERS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    bool: (_truth, "true or false"),
    int: (_whole, "a whole number"),
    float: (float, "a number"),
    tuple[float, ...]: (_numbers, "a number, or numbers joined by /"),
    tuple[int, int]: (read_size, "a size such as 224 or 480x640"),
    str: (str, "a word"),
}
"""Annotation → how its value is read, and what that is called. Any text is a word: last."""


def _alternatives(hint: Any) -> list[tuple[Callable[[str], Any], str]]:
    """The readers for an annotation, of a union in the order of `_READERS`."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return [reader for kind, reader in _READERS.items() if kind in kinds]


def _read(text: str, hint: Any) -> Any:
    for read, _ in _alternatives(hint):
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    raise ValueError(text)


def _expected(hint: Any) -> str:
    return " or ".join(name for _, name in _alternatives(hint))


def _text(value: Any, hint: Any, digits: int | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        as_size = read_size in (read for read, _ in _alternatives(hint))
        texts = [str(side) if as_size else _number(float(side), digits) for side in value]
        if as_size:
            return "x".join(dict.fromkeys(texts))
        return "/".join(texts)
    return _number(value, digits) if isinstance(value, float) else str(value)


def _number(value: float, digits: int | None) -> str:
    if digits is not None:
        return f"{value:.{digits}g}"
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
