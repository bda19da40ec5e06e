"""What may be in a runtime's way."""

from __future__ import annotations


class UnavailableError(Exception):
    """A runtime cannot be had here; the message says why."""


class CannotRunError(Exception):
    """A runtime does not load or run a file; the message is its own."""
