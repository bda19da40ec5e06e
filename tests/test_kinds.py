"""A kind of layer is whole or not there at all: traits, a
reader, a layer, and a rule in every composite.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_type_hints

import pytest

from lrp_onnx.model import canonicalize  # noqa: F401 (it imports every reader)
from lrp_onnx.model.readers.reading import READERS
from lrp_onnx.model.written_out import write_together
from lrp_onnx.plan import kinds
from lrp_onnx.plan.functions import FUNCTIONS
from lrp_onnx.plan.kinds import Composed, Kind
from lrp_onnx.relevance.composites.assign import WHICH
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.layers.activations import DERIVATIVES
from lrp_onnx.relevance.layers.table import LAYERS
from lrp_onnx.relevance.rules.table import RULES

REWRITTEN = {Composed: write_together}
"""Kinds that no operator is read as: several steps become one."""
SPECIAL = {"softmax": "gate path"}
"""Categories that composites speak of by another name."""


def every_kind() -> list[type[Kind]]:
    """Every kind that steps may have: the records of the module."""
    named = [
        value
        for value in vars(kinds).values()
        if isinstance(value, type) and issubclass(value, Kind)
    ]
    return [kind for kind in named if kind is not Kind and "__dataclass_params__" in vars(kind)]


def made(annotation: Any) -> set[type]:
    """The kinds that a reader's return annotation names."""
    parts = get_args(annotation)
    return set().union(*map(made, parts)) if parts else {annotation}


def missing(some: Iterable[type[Kind]]) -> list[str]:
    """What the kinds lack, one line each."""
    read = set(REWRITTEN).union(
        *(made(get_type_hints(reader)["return"]) for reader in READERS.values())
    )
    faults = []
    for kind in some:
        name = kind.__name__
        if kind not in read:
            faults.append(f"{name} has no reader")
        if kind not in LAYERS:
            faults.append(f"{name} has no layer")
        category = getattr(kind, "category", None)
        if category is None:
            faults.append(f"{name} has no category")
            continue
        which = SPECIAL.get(category, category)
        if which not in WHICH:
            faults.append(f"{name}: composites cannot speak of '{which}'")
        for composite, entries in ((n, [e[0] for e in c.entries]) for n, c in COMPOSITES.items()):
            if which not in entries and (kind.merges or "everything" not in entries):
                faults.append(f"{name} has no rule in {composite}")
    return faults


def test_every_kind_is_whole() -> None:
    assert len(every_kind()) >= 18
    assert not missing(every_kind())
    assert set(LAYERS) == set(every_kind())


def test_nothing_is_read_that_is_no_kind() -> None:
    for operator, reader in READERS.items():
        assert made(get_type_hints(reader)["return"]) <= set(every_kind()), operator


def test_every_category_is_used() -> None:
    categories = {kind.category for kind in every_kind()}
    assert categories - set(SPECIAL) <= set(WHICH)


def test_merging_kinds_have_rules_of_their_own() -> None:
    """What a rule serves is a category of kinds with
    several inputs, and each of these has such a rule.
    """
    merging = {kind.category for kind in every_kind() if kind.merges}
    assert {category for rule in RULES.values() for category in rule.serves} == merging


def test_every_function_is_whole() -> None:
    assert set(FUNCTIONS) == set(DERIVATIVES)


@pytest.mark.parametrize("place", ["plan", "reader", "layer"])
def test_a_kind_in_one_place_alone_is_seen(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, slots=True)
    class Half(Kind):
        category: ClassVar[str] = "half"

    def reader(graph: Any, node: Any) -> Half:
        raise NotImplementedError

    reader.__annotations__["return"] = Half
    if place == "reader":
        monkeypatch.setitem(READERS, "Half", reader)
    if place == "layer":
        monkeypatch.setattr(f"{__name__}.LAYERS", {**LAYERS, Half: object})
    faults = missing([Half])
    assert ("Half has no reader" in faults) == (place != "reader")
    assert ("Half has no layer" in faults) == (place != "layer")
    assert "Half: composites cannot speak of 'half'" in faults
    assert (
        "Half has no rule in lrp-resnet" in faults and "Half has no rule in gradient" not in faults
    )
