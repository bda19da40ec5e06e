"""The grammar of options that are written as text: ``name(parameter=value, …)`` ⇄ frozen dataclass.

Rules, methods of an evaluation, preprocessing and steps of post-processing are written so:

    c3                              all parameters have their defaults
    c3(size=14, outside=rank)       two parameters have other values
    quantize(16)                    the first parameter needs no name, unless it is keyword-only
    c3:size=14,outside=rank         the same without brackets, which a shell would interpret
    quantize:16
    average+c3:component=peak       several, one after the other

A value is a number, ``true`` or ``false``, a word, numbers joined by ``/``, or a size such as
``480x640``. It may contain brackets, and inside them any character: ``@join=signed(epsilon=1)``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from lrp_onnx.errors import LrpOnnxError, RuleError

T = TypeVar("T")
_FORM = re.compile(r"([a-z0-9-]+)\s*(?:\((.*)\)|:(.*))?", re.DOTALL)
_SIDE_LIMIT = 2**15
"""Sides of a size are smaller than this number of pixels."""


@dataclass(frozen=True, slots=True)
class Call:
    """A name with its arguments as text."""

    name: str
    arguments: tuple[tuple[str, str], ...] = ()
    """(parameter, value); the parameter is "" for a first value without a name."""

    def __str__(self) -> str:
        """The call written with brackets."""
        arguments = ", ".join(f"{key}={value}" if key else value for key, value in self.arguments)
        return f"{self.name}({arguments})" if arguments else self.name


def split(text: str, mark: str, *, error: type[LrpOnnxError] = RuleError) -> list[str]:
    """The parts of `text` between the `mark` characters that are outside brackets.

    A plus before a digit is part of a number, as in 1e+3, and does not split.

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
    """Read `text` as a call.

    Args:
        text: as the module's docstring has it.
        what: what `text` describes, for messages: ``rule``, ``step``.
        error: the exception that is raised.

    Raises:
        `error`: `text` has another form, or a parameter is given twice.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise error(
            f"{text!r} is not a {what}: write NAME, NAME(parameter=value, …) or NAME:value; names "
            "are of small letters, digits and hyphens"
        )
    parts = [part.strip() for part in split(form[2] or form[3] or "", ",", error=error)]
    arguments: dict[str, str] = {}
    for part in filter(None, parts):
        key, *values = split(part, "=", error=error)
        if not values and arguments:
            raise error(f"{text}: {part!r} is not parameter=value")
        name, value = "", part
        if values:
            name, value = key.strip(), "=".join(values).strip()
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
        table: name → a frozen dataclass with the default values. The annotation of a field says
            how its value is read.
        what: what `text` describes, for messages: ``rule``, ``step``.
        error: the exception that is raised.

    Raises:
        `error`: a name or parameter is unknown, a parameter is given twice, or a value does not
            fit.
    """
    call = parse(text, what=what, error=error) if isinstance(text, str) else text
    if call.name not in table:
        raise error(f"there is no {what} {call.name!r}; {suggestion(call.name, table)}")
    entry: Any = table[call.name]
    values = _values(call, type(entry), what, error)
    try:
        result: T = replace(entry, **values)
    except (ValueError, LrpOnnxError) as fault:
        raise error(f"the {what} {call.name}: {fault}") from fault
    return result


def write(value: T, table: Mapping[str, T], *, digits: int | None = None) -> str:
    """The text that `build` reads as `value`, with the parameters that are not defaults.

    Args:
        value: a dataclass of a type in `table`. Of several entries with this type the one that
            needs the fewest parameters is named.
        table: as for `build`.
        digits: significant digits of floats; None for as many as restore the exact number.

    Raises:
        KeyError: `table` has no entry of this type.
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
    """A hint for an unknown `name`: similar known names, or all known names."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 2)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"


def read_size(text: str) -> tuple[int, int]:
    """``224`` or ``480x640`` as (height, width).

    Raises:
        ValueError: `text` is not a size, or a side is not 1 to 32767.
    """
    sides = text.strip().lower().split("x")
    if len(sides) > 2 or not all(_is_side(side) for side in sides):
        raise ValueError(f"{text!r} is not a size: write 224, or 480x640")
    return int(sides[0]), int(sides[-1])


def read_sizes(text: str) -> tuple[int, ...]:
    """``224`` as (224,), which stands for every axis, ``480x640`` as (480, 640), ``16x112x112`` as
    (16, 112, 112).

    Raises:
        ValueError: as `read_size`.
    """
    sides = text.strip().lower().split("x")
    if len(sides) > 3 or not all(_is_side(side) for side in sides):
        raise ValueError(f"{text!r} is not a size: write 224, 480x640, or 16x112x112")
    return tuple(map(int, sides))


def for_axes(size: Sequence[int], axes: int) -> tuple[int, ...]:
    """A size for so many axes: one number stands for all of them."""
    return tuple(size) * axes if len(size) == 1 else tuple(size)


def size_text(size: Sequence[int]) -> str:
    """The text of a size, as ``480x640``."""
    return "x".join(map(str, size))


def is_size(text: str) -> bool:
    """Whether `text` has the form of a size; its sides may be out of range."""
    return all(side.isdecimal() for side in text.strip().lower().split("x"))


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < _SIDE_LIMIT


def _values(call: Call, kind: Any, what: str, error: type[LrpOnnxError]) -> dict[str, Any]:
    """Parameter → value, read as the annotations of the dataclass `kind` say."""
    known = {field.name: field for field in _fields(kind)}
    by_position = next((name for name, field in known.items() if not field.kw_only), None)
    values: dict[str, Any] = {}
    for name, text in call.arguments:
        key = name or by_position
        if key is None:
            raise error(f"the {what} {call.name}: {text!r} is not parameter=value")
        if key not in known:
            parameters = ", ".join(known) or "none"
            raise error(f"the {what} {call.name} has no parameter {key!r}; it takes {parameters}")
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
    """Parameter → value as text, for the parameters in which `value` differs from `entry`."""
    kind: Any = type(value)
    differing, hints = {}, _hints(kind)
    for field in _fields(kind):
        content = getattr(value, field.name)
        if content != getattr(entry, field.name):
            differing[field.name] = _text(content, hints[field.name], digits)
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
    """A whole number, also in the form 1e+3."""
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
"""Annotation → (reader of a value, description). ``str`` reads any text: it is last."""


def _alternatives(hint: Any) -> list[tuple[Callable[[str], Any], str]]:
    """The readers for an annotation: for a union several, in the order of `_READERS`."""
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
