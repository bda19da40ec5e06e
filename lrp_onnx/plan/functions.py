"""Activation functions: formulas, parameters and properties.

Their derivatives are in `relevance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """The properties of an activation function that hold for all values of its parameters."""

    formula: str
    """The formula, with the parameters by their names."""
    parameters: tuple[str, ...] = ()
    """Names of the parameters."""
    nonnegative: bool = False
    """Whether it is never negative."""
    rectifies: bool = False
    """Whether it is zero or equal to its input."""


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
    "Abs": Function(formula="|x|", nonnegative=True),
    "Celu": Function(
        formula="x where x > 0, else alpha · (exp(x / alpha) − 1)", parameters=("alpha",)
    ),
    "Elu": Function(formula="x where x > 0, else alpha · (exp(x) − 1)", parameters=("alpha",)),
    "Erf": Function(formula="2/√π · ∫₀ˣ exp(−t²) dt"),
    "Exp": Function(formula="exp(x)"),
    "Gelu": Function(formula="x · Φ(x)"),
    "GeluTanh": Function(formula="½ · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))"),
    "HardSwish": Function(formula="x · min(max(x + 3, 0), 6) / 6"),
    "Max": Function(formula="max(x, bound), one learnt bound for every channel"),
    "Mish": Function(formula="x · tanh(ln(1 + exp(x)))"),
    "Pow": Function(formula="x ^ exponent", parameters=("exponent",)),
    "Reciprocal": Function(formula="numerator / x", parameters=("numerator",)),
    "Selu": Function(
        formula="gamma · x where x > 0, else gamma · alpha · (exp(x) − 1)",
        parameters=("alpha", "gamma"),
    ),
    "Softplus": Function(formula="ln(1 + exp(x))"),
    "Softsign": Function(formula="x / (1 + |x|)"),
    "Sqrt": Function(formula="√x", nonnegative=True),
    "Tanh": Function(formula="tanh(x)"),
}
"""Name of the function → its properties. The name is the ONNX operator's if there is one."""
