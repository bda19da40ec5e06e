"""The conservation ledger: layer by layer, what relevance
came in, what went on, and what bias and stabilizer absorbed.

A compiled file's metadata says which of its inner tensors are which; here they are read back and
summed. Per sample and layer, with s = R/stabilize(z): the bias absorbs Σ s·b, the stabilizer Σ R −
Σ s·z, and the rest, Σ s·(z − b), must arrive at the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.contract import Contract
from lrp_onnx.relevance.rules.table import parse_rule

TOLERANCE = 1e-3
"""Largest unexplained relevance at a layer, relative to the larger of the start and the relevance
received: float32 sums of millions of terms reach 1e-4.
"""

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Account:
    """One layer's account, every number summed per sample, (N,) float64."""

    step: str
    rule: str
    conserves: bool
    """Whether the rule is one that loses no relevance but to bias and stabilizer."""
    received: NDArray[np.float64]
    passed: NDArray[np.float64]
    bias: NDArray[np.float64]
    epsilon: NDArray[np.float64]

    @property
    def unexplained(self) -> NDArray[np.float64]:
        """What neither arrived nor was absorbed."""
        return self.received - self.passed - self.bias - self.epsilon

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, numbers per sample."""
        numbers = {
            "received": self.received,
            "passed": self.passed,
            "bias": self.bias,
            "epsilon": self.epsilon,
            "unexplained": self.unexplained,
        }
        head = {"step": self.step, "rule": self.rule, "conserves": self.conserves}
        return head | {name: values.tolist() for name, values in numbers.items()}

    def fault(self, start: NDArray[np.float64]) -> str | None:
        """What is wrong with this account, if anything;
        `start` is the relevance at the logits, (N,).
        """
        if not self.conserves:
            return None
        scale = np.maximum(np.abs(start), np.abs(self.received)) + 1e-12
        worst = float(np.max(np.abs(self.unexplained) / scale))
        return (
            None
            if worst <= TOLERANCE
            else f"{self.step} ({self.rule}): {worst:.1e} of the relevance is unexplained"
        )


def tensors_of(contract: Contract) -> frozenset[str]:
    """Names of every tensor that the ledger speaks of."""
    names: set[str] = set()
    for entry in contract.ledger:
        names.update(entry["received"], *entry["passed"])
        for term in entry["terms"]:
            names.update((term["s"], term["z"], term["b"]))
    return frozenset(names)


def expose(model: onnx.ModelProto, names: frozenset[str]) -> onnx.ModelProto:
    """A copy of `model` with those of the tensors `names`
    as outputs that its nodes compute or its inputs are.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    already = {value.name for value in model.graph.output}
    computed = [name for node in model.graph.node for name in node.output]
    exposed.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in computed if name in names - already
    )
    return exposed


def constants_of(model: onnx.ModelProto, names: frozenset[str]) -> dict[str, Array]:
    """The values of those of the tensors `names` that are stored."""
    return {
        t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names
    }


def accounts_of(contract: Contract, values: Mapping[str, Array]) -> list[Account]:
    """Every layer's account, from the logits down; `values` holds every tensor of `tensors_of`."""
    return list(_accounts(contract, values))


def _accounts(contract: Contract, values: Mapping[str, Array]) -> Iterator[Account]:
    for entry in contract.ledger:
        rule = contract.rules[entry["step"]]
        received = _total(values, entry["received"])
        passed = np.sum(
            [_total(values, factors) for factors in entry["passed"]], axis=0
        ) + np.zeros_like(received)
        terms: Sequence[Mapping[str, Any]] = entry["terms"]
        bias = np.sum(
            [t["factor"] * _total(values, (t["s"], t["b"])) for t in terms], axis=0
        ) + np.zeros_like(received)
        shared = np.sum([t["factor"] * _shared(values, t) for t in terms], axis=0)
        epsilon = received - shared if terms else np.zeros_like(received)
        yield Account(
            entry["step"], rule, parse_rule(rule).conserves, received, passed, bias, epsilon
        )


def _shared(values: Mapping[str, Array], term: Mapping[str, Any]) -> NDArray[np.float64]:
    """What a quotient hands out: Σ s·z, without the stabilizer that z may hold."""
    stabilizer: float = term.get("e", 0.0)
    return _total(values, (term["s"], term["z"])) - stabilizer * _total(values, (term["s"],))


def _total(values: Mapping[str, Array], factors: Sequence[str]) -> NDArray[np.float64]:
    """Per sample, the sum over all elements of the product of the tensors named `factors`."""
    product = np.asarray(values[factors[0]], np.float64)
    for name in factors[1:]:
        product = product * np.asarray(values[name], np.float64)
    return product.reshape(product.shape[0], -1).sum(1) if product.ndim else product.reshape(1)
