"""The package's exceptions.

Every message is one paragraph: what was found, what is supported, what to do.
"""

from __future__ import annotations

import copyreg
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar


class LrpOnnxError(Exception):
    """Base of every error that a user can cause.

    The command line prints it and exits with status 1.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled and copied: with its message and fields, whatever `__init__` takes."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class ModelFileError(LrpOnnxError):
    """The model file is missing, truncated or not ONNX, or its external data is missing."""


class UnsupportedModelError(LrpOnnxError):
    """The model can be read but not explained.

    The message has one line for every kind of reason; `faults` lists every reason.
    """

    by_running: ClassVar[bool] = True
    """Whether methods that only run the model may explain it."""

    def __init__(self, summary: str, faults: Sequence[str]) -> None:
        self.summary, self.faults = summary, tuple(faults)
        super().__init__("\n".join([summary, *_grouped(self.faults)]))

    @property
    def whole(self) -> str:
        """The message with every reason."""
        return "\n".join([self.summary, *(f"  - {fault}" for fault in self.faults)])


MOST_LINES = 20
"""Lines of a message that lists reasons, at most."""


def _grouped(faults: Sequence[str]) -> list[str]:
    """One line for every kind of fault: those that differ in names and numbers alone are one."""
    groups: dict[str, list[str]] = {}
    for fault in faults:
        groups.setdefault(_NAMES_AND_NUMBERS.sub("", fault), []).append(fault)
    lines = []
    largest_first = sorted(groups.values(), key=len, reverse=True)
    for group in largest_first:
        more = f" (and {len(group) - 1} more like it)" if len(group) > 1 else ""
        lines.append(f"  - {group[0]}{more}")
    if len(lines) <= MOST_LINES:
        return lines
    left = sum(map(len, largest_first[MOST_LINES - 1 :]))
    return [
        *lines[: MOST_LINES - 1],
        f"  … and {left} others: `lrp-onnx plan MODEL --all` lists them",
    ]


_NAMES_AND_NUMBERS = re.compile(r"'[^']*'|\d+|None|[(\[][^)\]]*[)\]]")
"""What differs between faults of one kind: names in quotes, numbers, shapes."""


class ChoiceError(UnsupportedModelError):
    """The model can be explained, but not with what was chosen: another choice helps."""

    by_running = False

    def __init__(self, summary: str, faults: Sequence[str]) -> None:
        super().__init__(summary, faults)
        if len(faults) == 1:
            self.args = (f"{summary} {faults[0]}",)


class RuleError(LrpOnnxError):
    """A composite, rule or override is unknown, has wrong parameters, or does not fit its layer."""


class ContractError(LrpOnnxError):
    """A file has no valid metadata of a compiled file, or has a newer format."""


class VerificationError(LrpOnnxError):
    """A compiled model failed a check; `faults` lists every failed check."""

    def __init__(self, summary: str, faults: Sequence[str]) -> None:
        self.faults: tuple[str, ...] = tuple(faults)
        super().__init__("\n".join([summary, *(f"  - {fault}" for fault in self.faults)]))


class ProviderError(LrpOnnxError):
    """The requested execution provider (CUDA) is not available."""


class ImageError(LrpOnnxError):
    """An image cannot be read, or does not fit the model's input."""


class OutputError(LrpOnnxError):
    """An output path cannot be written."""


class OutputExistsError(OutputError):
    """An output path exists and `force` was not given."""


@contextmanager
def going_on(
    done: Callable[[], int],
    total: int,
    what: str,
    report: Callable[[str], None] | None = None,
    *,
    force: bool = False,
) -> Iterator[None]:
    """Whatever ends the block too early carries a note of how many results are kept; an error of
    ours does not where there are none.

    Where the block is a generator's, that is also an error of who reads it, if it closes the
    generator while it handles that (`contextlib.closing`).

    Args:
        done: how many there are, asked when the block ends too early.
        total: how many there would be.
        what: what they are, for example ``pictures are done``.
        report: is told where there is no error to carry it: who reads the results has enough.
        force: whether the command starts over, so that with results it does not go on.
    """
    try:
        yield
    except BaseException as error:
        kept = done()
        text = f"{kept} of {total} {what}: {what_goes_on(force=force and kept > 0)}"
        stopped: BaseException | None = error
        while isinstance(stopped, GeneratorExit):
            stopped = stopped.__context__
        if stopped is not None and not isinstance(stopped, BrokenPipeError):
            if kept or not isinstance(stopped, LrpOnnxError):
                stopped.add_note(text)
        elif report is not None:
            report(text)
        raise


def what_goes_on(*, force: bool) -> str:
    """Which command goes on with the results of one that had ``--force`` or not."""
    return f"the same command{' without --force' if force else ''} goes on"


NATIVE_ERRORS = (RuntimeError, ValueError, IndexError, OverflowError, MemoryError)
"""The Python exceptions that bindings (pybind11, nanobind) make of standard C++ exceptions."""


def first_line(error: BaseException) -> str:
    """The first line of the message of `error`'s innermost cause, or the name of its type.

    Messages of other libraries can have many lines.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


_JOINERS = "\u200c\u200d"
"""Characters without width that words and emoji need; they move nothing in a terminal."""


MOST_NUMBERS = 16
"""Numbers of a list in a message, at most."""


def few(numbers: Sequence[float]) -> str:
    """The first numbers of a list from a file, as text: it may have very many."""
    more = len(numbers) - MOST_NUMBERS
    return f"{[*numbers[:MOST_NUMBERS]]}" + (f" and {more:,} more" if more > 0 else "")


def shown(text: object, *, lines: bool = False) -> str:
    """`text` as it may stand in a message: on one line, and without power over a terminal.

    Control characters, those that turn the direction of writing, and what is not Unicode (bytes in
    the name of a file) are written as in Python: ``\\n``, ``\\x1b``, ``\\u202e``.

    Args:
        text: a name, or a whole message.
        lines: whether line breaks stay, for a message of several lines.
    """
    return "".join(letter if lines and letter == "\n" else _shown(letter) for letter in str(text))


def shown_message(text: object) -> str:
    """A whole message as `shown` writes it, but for the lines of its list of reasons: a name with a
    line break begins no line of its own.
    """
    return "\n".join(map(shown, _REASON.split(str(text))))


_REASON = re.compile(r"\n(?=  (?:- |… ))")
"""What stands before the reasons of a message."""


def _shown(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind not in ("Cc", "Cf", "Cs", "Zl", "Zp") or letter in _JOINERS:
        return letter
    if "\udc80" <= letter <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
