"""What is public goes to other processes and is copied: every field comes back equal."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import resnet

import lrp_onnx.evaluation.black_box  # it has an error of its own  # noqa: F401
from lrp_onnx import Explainer, Options, Request, compile_model
from lrp_onnx.errors import LrpOnnxError
from lrp_onnx.evaluation.methods import BASELINES, read_method
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.rules.table import RULES
from lrp_onnx.runtime.preprocess import PRESETS, parse_preprocessing
from lrp_onnx.runtime.session import Tuning
from lrp_onnx.selection import Selection

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda value: pickle.loads(pickle.dumps(value)),
    lambda value: pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)),
]


def assert_equal(one: Any, other: Any) -> None:
    """Whether two values are of one type and equal, through all fields and elements."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif is_dataclass(one):
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, Mapping):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def public() -> Iterator[Any]:
    yield from RULES.values()
    yield from COMPOSITES.values()
    yield from map(parse_preprocessing, PRESETS)
    yield from map(parse_chain, ("none", "c3", "smooth+normalize"))
    yield from (read_method(name) for name in ("residual-c3+smooth", *BASELINES))
    yield Options(composite="lrp-resnet", rules={"@join": "ratio"}, resolution=(8, 8))
    photos, methods = [Path("photo.jpg")], ["residual-c3"]
    yield Request(model=Path("model.onnx"), photos=photos, methods=methods, metrics=["exact"])
    yield Selection.of(":, :, 12, 1:3", [1, 9, 20, 20])
    yield Tuning(spinning=False)


@pytest.mark.parametrize("again", COPIES)
def test_settings(again: Callable[[Any], Any]) -> None:
    for value in public():
        assert_equal(value, again(value))


@pytest.mark.parametrize("again", COPIES)
def test_a_compiled_model_and_an_explanation(again: Callable[[Any], Any], tmp_path: Path) -> None:
    onnx.save(resnet(size=(32, 32)), tmp_path / "model.onnx")
    made = compile_model(tmp_path / "model.onnx", outputs=("heatmap", "heatmap_raw", "c3"))
    assert_equal(made, again(made))
    assert_equal(made.model.SerializeToString(), again(made).model.SerializeToString())
    explainer = Explainer(made, provider="cpu", preprocessing="zero-one")
    found = explainer(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    assert_equal(found, again(found))
    np.testing.assert_array_equal(found.overlay(), again(found).overlay())


def kinds_of(kind: type[LrpOnnxError]) -> Iterator[type[LrpOnnxError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from kinds_of(inner)


@pytest.mark.parametrize("again", COPIES)
def test_errors(again: Callable[[Any], Any]) -> None:
    """Their texts, their fields, and what was noted on the way."""
    for kind in kinds_of(LrpOnnxError):
        listing = hasattr(kind, "whole") or kind.__name__ == "VerificationError"
        for faults in (["one"], ["one", "a second"]) if listing else ([],):
            error = kind("said", faults) if listing else kind("said")
            error.add_note("while it was compiled")
            other = again(error)
            assert type(other) is kind and str(other) == str(error)
            assert other.args == error.args and other.__dict__ == error.__dict__
