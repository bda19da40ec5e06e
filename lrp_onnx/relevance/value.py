"""A tensor of the graph being built, and arithmetic on it: operators append nodes.

What is known of a tensor (its sign, that it is one constant number, where it is zero) travels with it, so that ``|x|``
of a post-ReLU tensor, or the negative part of it, costs no node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrp_onnx.relevance.builder import Builder


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor in the graph being built."""

    builder: Builder
    name: str
    nonnegative: bool = False
    nonpositive: bool = False
    number: float | None = None
    """The one number that every element equals, where that is known."""
    vanishes: str | None = None
    """Name of a tensor of the same shape: where it is zero, so is this."""

    def __add__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        if self.number == 0.0:
            return other
        if other.number == 0.0:
            return self
        signs = self.nonnegative and other.nonnegative, self.nonpositive and other.nonpositive
        return self.builder.node("Add", self, other, signs=signs)

    def __sub__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        if other.number == 0.0:
            return self
        signs = self.nonnegative and other.nonpositive, self.nonpositive and other.nonnegative
        return self.builder.node("Sub", self, other, signs=signs)

    def __mul__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        for one, two in ((self, other), (other, self)):
            if one.number == 0.0 or two.number == 1.0:
                return one
        positive = (self.nonnegative and other.nonnegative) or (self.nonpositive and other.nonpositive)
        negative = (self.nonnegative and other.nonpositive) or (self.nonpositive and other.nonnegative)
        return self.builder.node("Mul", self, other, signs=(positive, negative))

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        if other.number == 1.0 or self.number == 0.0:
            return self
        positive = (self.nonnegative and other.nonnegative) or (self.nonpositive and other.nonpositive)
        negative = (self.nonnegative and other.nonpositive) or (self.nonpositive and other.nonnegative)
        return self.builder.node("Div", self, other, signs=(positive, negative))

    def __neg__(self) -> Value:
        if self.number is not None:
            return self.builder.value(-self.number)
        return self.builder.node("Neg", self, signs=(self.nonpositive, self.nonnegative))

    def pos(self) -> Value:
        """``max(x, 0)``."""
        if self.nonnegative:
            return self
        if self.nonpositive:
            return self.builder.value(0.0)
        return self.builder.node("Relu", self, signs=(True, False))

    def neg(self) -> Value:
        """``min(x, 0)``."""
        if self.nonpositive:
            return self
        if self.nonnegative:
            return self.builder.value(0.0)
        return self.builder.node("Min", self, self.builder.value(0.0), signs=(False, True))

    def abs(self) -> Value:
        """``|x|``."""
        if self.nonnegative:
            return self
        return -self if self.nonpositive else self.builder.node("Abs", self, signs=(True, False))

    def where_positive(self, then: Value | float, otherwise: Value | float = 0.0) -> Value:
        """`then` where x > 0, else `otherwise`."""
        then, otherwise = self.builder.value(then), self.builder.value(otherwise)
        condition = self.builder.node("Greater", self, self.builder.value(0.0))
        signs = then.nonnegative and otherwise.nonnegative, then.nonpositive and otherwise.nonpositive
        return self.builder.node("Where", condition, then, otherwise, signs=signs)

    def where_negative(self, then: Value | float, otherwise: Value | float = 0.0) -> Value:
        """`then` where x < 0, else `otherwise`."""
        then, otherwise = self.builder.value(then), self.builder.value(otherwise)
        condition = self.builder.node("Less", self, self.builder.value(0.0))
        signs = then.nonnegative and otherwise.nonnegative, then.nonpositive and otherwise.nonpositive
        return self.builder.node("Where", condition, then, otherwise, signs=signs)

    def where_zero(self, then: Value | float, otherwise: Value | float) -> Value:
        """`then` where x = 0, else `otherwise`."""
        then, otherwise = self.builder.value(then), self.builder.value(otherwise)
        condition = self.builder.node("Equal", self, self.builder.value(0.0))
        return self.builder.node("Where", condition, then, otherwise)

    def ones_like(self) -> Value:
        """A constant's shape, filled with ones."""
        if self.number is not None:
            return self.builder.value(1.0)
        return self.builder.node(
            "Expand", self.builder.value(1.0), self.builder.node("Shape", self), signs=(True, False)
        )

    def reshape(self, *shape: int) -> Value:
        """The same elements in another shape; -1 is the batch."""
        if self.number is not None:
            return self
        return self.builder.node(
            "Reshape", self, self.builder.integers(shape), signs=(self.nonnegative, self.nonpositive)
        )

    def vanishing(self, where: Value) -> Value:
        """The same tensor, known to be zero wherever `where` is."""
        return replace(self, vanishes=where.name)

    def signed(self, *, nonnegative: bool = False, nonpositive: bool = False) -> Value:
        """The same tensor with its sign known."""
        return Value(
            self.builder, self.name, nonnegative or self.nonnegative, nonpositive or self.nonpositive, self.number
        )
