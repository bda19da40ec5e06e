"""Activation functions: what each computes and what is
known of it. Their derivatives are `relevance`'s affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What is known of an activation function before its parameters have values."""

    formula: str
    parameters: tuple[str, ...] = ()
    nonnegative: bool = False
    """It is never negative."""
    rectifies: bool = False
    """It is zero or equal to its input."""


FUNCTIONS: Mapping[str, Function] = {
    "Relu": Function(formula="max(x, 0)", nonnegative=True, rectifies=True),
    "Clip": Function(formula="min(max(x, low), high)", parameters=("low", "high")),
    "LeakyRelu": Function(formula="x where x > 0, else slope · x", parameters=("slope",)),
    "PRelu": Function(
        formula="x where x > 0, else slope · x; learnt slopes", parameters=("slope",)
    ),
    "Sigmoid": Function(formula="1 / (1 + exp(−x))", nonnegative=True),
    "HardSigmoid": Function(
        formula="min(max(slope · x + offset, 0), 1)",
        parameters=("slope", "offset"),
        nonnegative=True,
    ),
    "Elu": Function(formula="x where x > 0, else alpha · (exp(x) − 1)", parameters=("alpha",)),
    "Erf": Function(formula="2/√π · ∫₀ˣ exp(−t²) dt"),
    "Exp": Function(formula="exp(x)"),
    "Gelu": Function(formula="x · Φ(x)"),
    "GeluTanh": Function(formula="½ · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))"),
    "HardSwish": Function(formula="x · min(max(x + 3, 0), 6) / 6"),
    "Mish": Function(formula="x · tanh(ln(1 + exp(x)))"),
    "Pow": Function(formula="x ^ exponent, a square or a cube", parameters=("exponent",)),
    "Softplus": Function(formula="ln(1 + exp(x))"),
    "Softsign": Function(formula="x / (1 + |x|)"),
    "Tanh": Function(formula="tanh(x)"),
}
"""Name, that of the ONNX operator where there is one → what it is."""
