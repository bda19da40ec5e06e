"""The backward fold, written once: for the graph, for a
residual block, for a written-out activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar


class Piece(Protocol):
    """What a fold goes over: a step, or a whole block."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that it reads."""

    @property
    def output(self) -> str:
        """Name of the tensor that it makes."""


class Addable(Protocol):
    """What meets at a tensor: a cotangent, or relevance."""

    def __add__(self, other: Self, /) -> Self: ...


P = TypeVar("P", bound=Piece)
T = TypeVar("T", bound=Addable)


def pull_back(
    pieces: Sequence[P], seed: dict[str, T], back: Callable[[P, T], Sequence[T | None]]
) -> dict[str, T]:
    """Fold backwards: what arrives at a piece's output goes
    to its inputs, and what meets at a tensor is added.

    Args:
        pieces: in the order of the computation; those that nothing reaches are left out.
        seed: what the fold starts from, tensor name → cotangent
            or relevance; it is filled with all others.
        back: a piece and what arrived at its output → what
            each of its inputs gets, None for nothing.

    Returns:
        `seed`.
    """
    for piece in reversed(pieces):
        if piece.output in seed:
            for name, share in zip(piece.inputs, back(piece, seed[piece.output]), strict=True):
                if share is not None:
                    seed[name] = seed[name] + share if name in seed else share
    return seed
