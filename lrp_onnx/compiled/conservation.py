"""The conservation ledger: the relevance that each layer received, passed on and absorbed.

The metadata of a compiled file names the inner tensors of the ledger; this module sums their
values. Per sample and layer, with s = R/stabilize(z): the bias absorbs Σ s·b, the stabilizer
absorbs Σ R − Σ s·z, and the rest, Σ s·(z − b), must arrive at the layer's input.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.contract import Contract
from lrp_onnx.errors import ContractError, first_line
from lrp_onnx.relevance.rules.table import parse_rule

TOLERANCE = 1e-3
"""Largest unexplained relevance of a layer, relative to the larger of the start and the relevance
received. Rounding of float32 sums of millions of terms reaches 1e-4.
"""

GROWTH = 100.0
"""Relevance without its signs, over the start, from which on a map shows what cancelled rather than
what counted.
"""

MOST_ABSORBED = 0.5
"""The part of the relevance that stabilizers may take before a note says so."""
LARGEST_PRODUCT = 64
"""Elements of a product of the ledger's tensors, over those of its largest factor, at most."""

Array = NDArray[np.generic]
NO_CASTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Account:
    """One layer's account: sums of relevance per sample, (N,) float64."""

    step: str
    """Name of the layer's node."""
    rule: str
    """The layer's rule as text."""
    conserves: bool
    """Whether the rule loses relevance to bias and stabilizer only."""
    received: NDArray[np.float64]
    """Relevance that arrived at the layer's output."""
    passed: NDArray[np.float64]
    """Relevance that the layer passed on to its inputs."""
    bias: NDArray[np.float64]
    """Relevance that the bias absorbed."""
    epsilon: NDArray[np.float64]
    """Relevance that the stabilizer absorbed."""
    size_received: NDArray[np.float64]
    """Σ|R| of what arrived."""
    size_passed: NDArray[np.float64]
    """Σ|R| of what the layer passed on."""
    rounding: float = 0.0
    """How far rounding moves the model's own tensors, relative to each element."""

    @property
    def unexplained(self) -> NDArray[np.float64]:
        """Relevance received that was neither passed on nor absorbed, (N,)."""
        return self.received - self.passed - self.bias - self.epsilon

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, numbers per sample."""
        numbers = {
            "received": self.received,
            "passed": self.passed,
            "bias": self.bias,
            "epsilon": self.epsilon,
            "unexplained": self.unexplained,
            "size_received": self.size_received,
            "size_passed": self.size_passed,
        }
        head = {"step": self.step, "rule": self.rule, "conserves": self.conserves}
        return head | {name: values.tolist() for name, values in numbers.items()}

    def fault(self, start: NDArray[np.float64]) -> str | None:
        """A message if too much relevance is unexplained, else None.

        `start` is the relevance at the logits, (N,). What rounding moves of the sums of relevance
        without signs is explained.
        """
        if not self.conserves:
            return None
        scale = np.maximum(np.abs(start), np.abs(self.received)) + 1e-12
        rounded = self.rounding * (self.size_received + self.size_passed)
        worst = float(np.max((np.abs(self.unexplained) - rounded) / scale))
        if worst <= TOLERANCE:
            return None
        return f"{self.step} ({self.rule}): {worst:.1e} of the relevance is unexplained"


def growth(rows: Sequence[Account], start: NDArray[np.float64]) -> str | None:
    """A note if Σ|R| becomes more than `GROWTH` times the start, else None: which rule did most of
    it, and what to do.

    `rows` are every layer's accounts; layers whose rules promise no conservation are left out.
    """
    kept = [row for row in rows if row.conserves]
    scale = np.abs(start) + 1e-12
    size = max((float(np.max(row.size_passed / scale)) for row in kept), default=0.0)
    if not size > GROWTH:
        return None
    by_rule: dict[str, dict[str, float]] = {}
    for row in kept:
        factor = float(np.max((row.size_passed + 1e-30) / (row.size_received + 1e-30)))
        by_rule.setdefault(row.rule, {})[row.step] = max(float(np.log(factor)), 0.0)
    rule, steps = max(by_rule.items(), key=lambda item: sum(item[1].values()))
    worst = max(steps, key=lambda step: steps[step])
    return (
        f"without its signs, relevance grows to {size:.1e} times the start: the map shows what "
        f"cancels, more than what counts. Most of it comes from the rule {rule} ({len(steps)} "
        f"layers, most at {worst}), where outputs are far smaller than what they add up. What "
        "keeps relevance small: ratio or z-plus-join at sums, layer-norm at layer normalisations, "
        "gamma or z-plus at linear layers (--rule '@join=ratio')"
    )


def absorbed(rows: Sequence[Account]) -> str | None:
    """A note if stabilizers took more than `MOST_ABSORBED` of the relevance at the logits, without
    its signs, or if there is none; else None.
    """
    start = rows[0].size_received
    if not np.any(start):
        return (
            "there is no relevance at the logits: they are zero, or those that are compared are "
            "equal, so that the maps explain nothing"
        )
    taken = sum(np.abs(row.epsilon) for row in rows if row.conserves)
    share = float(np.max(taken / np.maximum(start, np.finfo(np.float64).tiny)))
    if not share > MOST_ABSORBED:
        return None
    return (
        f"stabilizers took {min(share, 1):.0%} of the relevance: the model's values are as small "
        "as epsilon, and the map shows what is left; rules with a smaller epsilon keep more"
    )


def tensors_of(contract: Contract) -> frozenset[str]:
    """Names of every tensor in the ledger."""
    return names_of(contract.ledger)


def names_of(ledger: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Names of every tensor in a ledger; in place of a view that of its tensor."""
    names: set[str] = set()
    for entry in ledger:
        own = {*entry["received"], *(name for passed in entry["passed"] for name in passed)}
        for term in entry["terms"]:
            own.update((term["s"], term["z"], term["b"]))
        views = entry.get("views", {})
        names.update(views[name]["of"] if name in views else name for name in own)
    return frozenset(names)


def casts_of(contract: Contract) -> dict[str, str]:
    """Tensors of the ledger that no node computes → the tensor that each is as float32."""
    return {
        name: source for entry in contract.ledger for name, source in entry.get("casts", {}).items()
    }


def with_casts(
    model: onnx.ModelProto,
    ledger: Sequence[Mapping[str, Any]],
    casts: Mapping[str, str],
    *,
    stored: Iterable[str],
) -> tuple[dict[str, Any], ...]:
    """The ledger, in which stands how those of its tensors are made that are neither in the file
    nor `stored` in its metadata, since no node reads them.

    `casts` says which tensor each of them is as float32.
    """
    there = {name for node in model.graph.node for name in node.output}
    there |= {*stored, *(tensor.name for tensor in model.graph.initializer)}
    entries = []
    for entry in ledger:
        absent = sorted(names_of([entry]) - there)
        own = {name: casts[name] for name in absent if name in casts}
        entries.append({**entry, "casts": own} if own else dict(entry))
    return tuple(entries)


def expose(
    model: onnx.ModelProto, names: frozenset[str], casts: Mapping[str, str] = NO_CASTS
) -> onnx.ModelProto:
    """A copy of `model` that also outputs the tensors of `names` that its nodes compute.

    `casts` are tensors to compute too: name → the tensor that it is as float32.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.node.extend(
        onnx.helper.make_node("Cast", [source], [name], to=onnx.TensorProto.FLOAT)
        for name, source in casts.items()
    )
    new_names = names - {value.name for value in model.graph.output}
    computed = [name for node in exposed.graph.node for name in node.output]
    exposed.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in computed if name in new_names
    )
    return exposed


def constants_of(
    model: onnx.ModelProto, contract: Contract, names: frozenset[str]
) -> dict[str, Array]:
    """Name → values, for every tensor of `names` that the file stores, in its graph or in its
    metadata.
    """
    stored = {
        t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names
    }
    return {name: _decoded(value) for name, value in contract.constants.items()} | stored


def unread_constants(
    model: onnx.ModelProto, ledger: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Name → shape and values as JSON, for the stored tensors of the ledger that no node reads.

    A runtime warns of such tensors, so they move to the metadata.
    """
    read = {name for node in model.graph.node for name in node.input}
    unread = names_of(ledger) - read
    return {
        t.name: _encoded(onnx.numpy_helper.to_array(t))
        for t in model.graph.initializer
        if t.name in unread
    }


def _encoded(values: Array) -> dict[str, Any]:
    """A float32 tensor as JSON-ready data."""
    data = np.asarray(values, "<f4")
    return {"shape": list(data.shape), "float32": b64encode(data.tobytes()).decode()}


def _decoded(value: Mapping[str, Any]) -> Array:
    """The inverse of `_encoded`."""
    return np.frombuffer(b64decode(value["float32"]), "<f4").reshape(value["shape"])


def accounts_of(
    contract: Contract, values: Mapping[str, Array], *, rounding: float = 0.0
) -> list[Account]:
    """Every layer's account, from the logits down; `values` holds every tensor of `tensors_of`, and
    `rounding` is how far rounding moves them, relative to each element.

    Raises:
        ContractError: the ledger's tensors do not fit each other, or are no numbers.
    """
    try:
        return list(_accounts(contract, dict(values), rounding))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ContractError(
            f"the compiled file's ledger does not fit its tensors ({first_line(error)}): compile "
            "it again"
        ) from error


def _accounts(contract: Contract, tensors: dict[str, Array], rounding: float) -> Iterator[Account]:
    for entry in contract.ledger:
        values = tensors | _views(entry, tensors)
        rule = contract.rules[entry["step"]]
        received = _total(values, entry["received"])
        zeros = np.zeros_like(received)
        passed = zeros + np.sum([_total(values, names) for names in entry["passed"]], axis=0)
        terms: Sequence[Mapping[str, Any]] = entry["terms"]
        bias_parts = [t["factor"] * _total(values, (t["s"], t["b"])) for t in terms]
        bias = zeros + np.sum(bias_parts, axis=0)
        shared = np.sum([t["factor"] * _shared(values, t) for t in terms], axis=0)
        epsilon = received - shared if terms else zeros
        sizes = [_total(values, names, size=True) for names in entry["passed"]]
        yield Account(
            entry["step"],
            rule,
            parse_rule(rule).conserves,
            received,
            passed,
            bias,
            epsilon,
            _total(values, entry["received"], size=True),
            zeros + np.sum(sizes, axis=0),
            rounding,
        )


def _views(entry: Mapping[str, Any], values: Mapping[str, Array]) -> dict[str, Array]:
    """The views of an entry of the ledger, by name."""
    views = {}
    for name, view in entry.get("views", {}).items():
        tensor = np.asarray(values[view["of"]])
        views[name] = tensor.reshape(view["shape"] or tensor.shape).transpose(view["order"])
    return views


def _shared(values: Mapping[str, Array], term: Mapping[str, Any]) -> NDArray[np.float64]:
    """The relevance that a quotient s distributes: Σ s·z, without the stabilizer in z, (N,)."""
    stabilizer: float = term.get("e", 0.0)
    return _total(values, (term["s"], term["z"])) - stabilizer * _total(values, (term["s"],))


def _total(
    values: Mapping[str, Array], factors: Sequence[str], *, size: bool = False
) -> NDArray[np.float64]:
    """The product of the tensors `factors`, summed over all elements per sample, (N,); its absolute
    values if `size`.
    """
    shapes = [np.shape(values[name]) for name in factors]
    if prod(np.broadcast_shapes(*shapes)) > LARGEST_PRODUCT * max(map(prod, shapes)):
        raise ValueError(f"the product of {', '.join(factors)} is too large")
    product = np.asarray(values[factors[0]], np.float64)
    for name in factors[1:]:
        product = product * np.asarray(values[name], np.float64)
    product = np.abs(product) if size else product
    return product.reshape(product.shape[0], -1).sum(1) if product.ndim else product.reshape(1)
