"""What goes wrong, as types. Every message is one
paragraph: what was found, what is supported, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class LrpOnnxError(Exception):
    """Base of every error that a user can cause; the
    command line prints it and exits with status 1.
    """


class ModelFileError(LrpOnnxError):
    """The model file cannot be read: it is missing,
    truncated, not ONNX, or its external data is not there.
    """


class UnsupportedModelError(LrpOnnxError):
    """The model can be read but not explained. `faults` names
    every reason at once, one per entry.
    """

    def __init__(self, summary: str, faults: Sequence[str]) -> None:
        self.faults: tuple[str, ...] = tuple(faults)
        super().__init__("\n".join([summary, *(f"  - {fault}" for fault in self.faults)]))


class RuleError(LrpOnnxError):
    """A composite, a rule or an override is unknown, has
    wrong parameters, or does not fit its layer.
    """


class ContractError(LrpOnnxError):
    """A file was taken for a compiled one and lacks the
    metadata of a compiled file, or is of a newer format.
    """


class VerificationError(LrpOnnxError):
    """A compiled model failed a check. `faults` names every failed check."""

    def __init__(self, summary: str, faults: Sequence[str]) -> None:
        self.faults: tuple[str, ...] = tuple(faults)
        super().__init__("\n".join([summary, *(f"  - {fault}" for fault in self.faults)]))


class ProviderError(LrpOnnxError):
    """The asked-for execution provider (CUDA) is not there."""


class ImageError(LrpOnnxError):
    """An image cannot be read, or does not fit the model's input."""


class OutputError(LrpOnnxError):
    """An output path cannot be written."""


class OutputExistsError(OutputError):
    """An output path exists and `force` was not given."""


def first_line(error: BaseException) -> str:
    """The first line of what the innermost cause of `error` says;
    other libraries write paragraphs.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
