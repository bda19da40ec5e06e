"""MaxPool behind Pad: guarded in every file where a guard says
the same, and named where none does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import run_onnx
from networks import Network

from lrp_onnx.compiler import compile_model
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.load import load_model
from lrp_onnx.model.normalize.padded_pools import guard_pools, padded_pools, runnable

Save = Callable[[onnx.ModelProto], Path]
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no pads": {"pads": [0, 0, 0, 0]},
    "valid": {"auto_pad": "VALID"},
    "same": {"auto_pad": "SAME_UPPER"},
    "pads": {"pads": [1, 0, 0, 1]},
    "dilated": {"dilations": [2, 1]},
}
NEED_INDICES = ("pads", "dilated")


def network(**attributes: Any) -> onnx.ModelProto:
    net = Network(0)
    y = net.conv("x", (3, 4))
    y = net.node("Add", y, net.constant("low", np.full((1, 4, 1, 1), -9, np.float32)))
    y = net.node("Pad", y, net.constant("ones", np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    y = net.node("Transpose", net.node("Transpose", y, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    y = net.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], **attributes)
    pooled = net.node("Flatten", net.node("GlobalAveragePool", y))
    return net.model(net.dense(pooled, (4, 5)), ["N", 3, 9, 9], classes=5)


def logits(graph: Graph | onnx.ModelProto, *, optimize: bool = True) -> np.ndarray[Any, Any]:
    model = graph if isinstance(graph, onnx.ModelProto) else ir.to_proto(graph.model)
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 9)).astype(np.float32)
    return next(iter(run_onnx(model, {"x": x}, optimize=optimize).values()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("indices", [False, True])
def test_a_guarded_pool_is_right_under_default_options(
    form: str, indices: bool, saved: Save
) -> None:
    model = network(**FORMS[form])
    graph = load_model(saved(model))
    guarded = guard_pools(graph, indices=indices)
    truth = logits(model, optimize=False)
    np.testing.assert_array_equal(logits(guarded, optimize=False), truth)
    assert (np.abs(logits(guarded) - truth).max() < 1e-4) == (indices or form not in NEED_INDICES)
    assert np.abs(logits(runnable(model)) - truth).max() < 1e-4
    assert len(padded_pools(graph)) == 1 and len(padded_pools(graph)[0].outputs) == 1, (
        "the graph is not changed"
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_note_says_what_is_not_guarded(form: str, saved: Save) -> None:
    notes = compile_model(saved(network(**FORMS[form])), composite="gradient").plan.notes
    (note,) = [note for note in notes if "Pad_Fusion" in note]
    assert ("in files for tensorrt, web and portable" in note) == (form in NEED_INDICES)
