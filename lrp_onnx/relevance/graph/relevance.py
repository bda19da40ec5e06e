"""Relevance on its way back, kept factored as
``activation ⊙ coefficient`` for as long as nobody needs the product.

Proportional rules telescope: from R = y⊙c the quotient R/y is c itself, with nothing multiplied and
nothing divided. And behind a ReLU ``a = max(z, 0)`` a relevance of the form a⊙c may be divided by
`a` instead of `z`: they are equal wherever R is not zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lrp_onnx.relevance.graph.builder import Term, Value, Zeros


@dataclass(frozen=True, slots=True, eq=False)
class Relevance:
    """The relevance at one tensor: ``activation ⊙ coefficient``,
    or `coefficient` alone where `activation` is None.
    """

    coefficient: Value
    activation: Value | None = None
    alias: str | None = None
    """Name of a pre-activation that this is the relevance of, and
    that equals `activation` wherever the relevance is not zero.
    """

    @property
    def total(self) -> Value:
        """The relevance itself, multiplied out."""
        return self.coefficient if self.activation is None else self.activation * self.coefficient

    @property
    def zeros(self) -> Zeros | None:
        """Where it is known to be zero whatever the picture."""
        factors = self.coefficient, self.activation
        return next((x.zeros for x in factors if x is not None and x.zeros), None)

    def without(self, zeros: Zeros) -> Relevance:
        """The part that may be anything else than `zeros`."""
        activation = self.activation and self.activation.without(zeros)
        return Relevance(self.coefficient.without(zeros), activation)

    def within(self, zeros: Zeros, x: Value, rank: int) -> Relevance:
        """The relevance of `x`, a tensor with `rank` axes, where this is that of its part."""
        if self.is_of(x.without(zeros)):
            return Relevance(self.coefficient.within(zeros, rank), x)
        return Relevance(self.total.within(zeros, rank))

    def is_of(self, z: Value) -> bool:
        """Whether this is ``z ⊙ coefficient``: as a multiple of `z` it
        vanishes wherever `z` does.
        """
        return self.activation is not None and self.activation.name == z.name

    def __add__(self, other: Relevance) -> Relevance:
        mine = self.activation
        if mine is not None and other.is_of(mine) and self.alias == other.alias:
            return Relevance(self.coefficient + other.coefficient, mine, self.alias)
        return Relevance(self.total + other.total)

    def over(
        self,
        z: Value,
        epsilon: float,
        *,
        signed: bool = True,
        held: float = 0.0,
        bias: Value | None = None,
        factor: float = 1.0,
        gate: Callable[[Value], Value] | None = None,
    ) -> Value:
        """``R / stabilize(z)`` with ``stabilize(z) = z + ε·sign(z)``,
        sign(0) = +1, or ``z + ε`` if not `signed`.

        At ε = 0 the quotient is 0 where z is: the limit for a relevance
        that vanishes with z. The quotient is noted for the ledger.

        Args:
            z: the denominator.
            epsilon: the stabilizer.
            signed: whether the stabilizer has the denominator's sign.
            held: the stabilizer that `z` holds already; none is then added.
            bias: the bias inside `z`, None for none.
            factor: what the rule will multiply the quotient by.
            gate: what is applied to the quotient, such as a mask.
        """
        s = self.per(z) if held else self._over(z, epsilon, signed=signed)
        s = gate(s) if gate else s
        z.builder.terms.append(Term(s, z, z.constant(0.0) if bias is None else bias, factor, held))
        return s

    def absorbed(self, share: Value) -> Value:
        """The relevance itself, of which constants absorb `share`: noted for the ledger."""
        total = self.total
        total.builder.terms.append(Term(total, total.constant(1.0), share, 1.0))
        return total

    def standing_for(self, z: Value) -> Value:
        """`z`, or what equals it wherever the relevance is not zero and is no negative number."""
        return self.activation if self.activation is not None and self.alias == z.name else z

    def _over(self, z: Value, epsilon: float, *, signed: bool) -> Value:
        behind_relu = self.alias == z.name
        if epsilon == 0.0 and self.activation is not None:
            if self.is_of(z):
                return self.coefficient
            if behind_relu:
                return self.activation.where_positive(self.coefficient)
        if behind_relu and self.activation is not None:
            z = self.activation
        if epsilon == 0.0:
            return z.where_zero(0.0, self.total / z.where_zero(1.0, z))
        if self.is_of(z) and z.builder.emission.ratios:
            # The ratio needs nothing but the forward pass; the
            # product with it keeps runtimes' blocked layouts.
            size = z.abs() if signed else z  # z / stabilize(z) = |z| / (|z| + ε)
            return (self.coefficient * (size / (size + epsilon))).vanishing(z)
        return self.total / stabilize(z, epsilon, signed=signed)

    def per(self, z: Value) -> Value:
        """``R / z``, as the coefficient times what the forward pass alone decides: runtimes need
        not hold that before relevance arrives, and several targets share it.
        """
        if self.activation is None or not z.builder.emission.ratios:
            return self.total / z
        return self.coefficient * (self.activation / z)

    def positive_only(self, z: Value) -> bool:
        """Whether this is known to be zero wherever `z` is not positive."""
        return self.alias == z.name or (self.is_of(z) and z.nonnegative)


def stabilize(z: Value, epsilon: float, *, signed: bool) -> Value:
    """``z + ε·sign(z)`` with sign(0) = +1; ``z + ε`` if not `signed`."""
    if epsilon == 0.0:
        return z
    if not signed or z.nonnegative:
        return z + epsilon
    return z + z.where_negative(-epsilon, epsilon)
