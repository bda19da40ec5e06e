"""Compiled files on the runtimes themselves, each in an environment that is made for it.

Those that install in less than a minute, on the embedded model; `python -m tools.runtimes table`
tries all. What cannot be had here is skipped with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("fcntl", reason="environments are made on Linux and macOS alone")

from tools.runtimes.errors import UnavailableError
from tools.runtimes.execute import execute, largest
from tools.runtimes.measure import COMPOSITES, EMBEDDED, REFERENCE, measure
from tools.runtimes.registry import PORTABLE, RUNTIMES, Form, Runtime

pytestmark = pytest.mark.runtimes

TRIED = [runtime for runtime in RUNTIMES if runtime.ci]
BY_NAME = {runtime.name: runtime for runtime in RUNTIMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled files lie, each made once."""
    return tmp_path_factory.mktemp("compiled")


def cells() -> Iterator[Any]:
    """Runtime, form and composite; the slow evaluator has the default composite alone."""
    for runtime in TRIED:
        for form in dict.fromkeys((runtime.forms[0], PORTABLE)):
            for composite in COMPOSITES[: 1 if runtime.small else None]:
                name = f"{runtime.name}-{form.optimize_for}-{composite}"
                yield pytest.param(runtime, form, composite, id=name)


@pytest.mark.parametrize(("runtime", "form", "composite"), list(cells()))
def test_a_file_is_right(runtime: Runtime, form: Form, composite: str, folder: Path) -> None:
    """It loads; outputs and maps, of a class that is asked for and of the predicted one, are what
    ONNX Runtime computes without optimisations.
    """
    try:
        cell = measure(runtime, form, EMBEDDED, composite, folder)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    assert cell.right, cell.said


def shared_weight(*, own: bool) -> onnx.ModelProto:
    """y = ConvTranspose(Conv(x, w), w) with a square w; `own` gives the second Neg(Neg(w))."""
    weight = np.random.default_rng(0).normal(size=(8, 8, 3, 3)).astype(np.float32)
    node = onnx.helper.make_node
    pads = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [node("Conv", ["x", "w"], ["z"], **pads)]
    if own:
        nodes += [node("Neg", ["w"], ["n"]), node("Neg", ["n"], ["v"])]
    nodes.append(node("ConvTranspose", ["z", "v" if own else "w"], ["y"], **pads))
    sizes = [1, 8, 10, 10]
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, sizes) for n in "xy")
    graph = onnx.helper.make_graph(
        nodes, "shared", [x], [y], [onnx.numpy_helper.from_array(weight, "w")]
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)


def test_openvino_confuses_a_shared_weight_and_not_one_of_its_own(tmp_path: Path) -> None:
    """The fact behind `Emission.separate_weights`, in its smallest case."""
    x = np.random.default_rng(1).normal(size=(1, 8, 10, 10)).astype(np.float32)
    found = {}
    for own in (False, True):
        path = tmp_path / f"{own}.onnx"
        onnx.save(shared_weight(own=own), path)
        try:
            there = execute(BY_NAME["openvino"], path, [{"x": x}], outputs=["y"])
        except UnavailableError as reason:
            pytest.skip(str(reason))
        right = execute(REFERENCE, path, [{"x": x}], outputs=["y"])
        found[own] = largest(there.runs[0]["y"], right.runs[0]["y"])
    assert found[True] < 1e-5
    assert found[False] > 0.1, "OpenVINO is repaired: say so in the fact"


def test_opencv_spreads_the_padding_of_a_denominator(tmp_path: Path) -> None:
    """The fact behind `Emission.stabilizer_in_bias`: 12 channels, which are padded to 16. What the
    padding's quotients become differs: no number, or a huge one.
    """
    rng = np.random.default_rng(0)
    first, second = (rng.random((12, 12, 3, 3)).astype(np.float32) for _ in range(2))
    x = rng.random((1, 12, 10, 10)).astype(np.float32)
    node, pads = onnx.helper.make_node, {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    found = {}
    for in_bias in (True, False):
        nodes = [
            node("Conv", ["x", "v"], ["a"], **pads),
            node("Conv", ["x", "w", *(["e"] if in_bias else [])], ["z"], **pads),
        ]
        if not in_bias:
            nodes.append(node("Add", ["z", "one"], ["s"]))
        nodes.append(node("Div", ["a", "z" if in_bias else "s"], ["q"]))
        nodes.append(node("Conv", ["q", "w"], ["y"], **pads))
        values = {
            "v": first,
            "w": second,
            "e": np.ones(12, np.float32),
            "one": np.ones(1, np.float32),
        }
        stored = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
        sizes = [1, 12, 10, 10]
        ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, sizes) for n in "xy"]
        graph = onnx.helper.make_graph(nodes, "padding", ends[:1], ends[1:], stored)
        opset = [onnx.helper.make_opsetid("", 17)]
        path = tmp_path / f"{in_bias}.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        try:
            there = execute(BY_NAME["opencv"], path, [{"x": x}], outputs=["y"])
        except UnavailableError as reason:
            pytest.skip(str(reason))
        right = execute(REFERENCE, path, [{"x": x}], outputs=["y"])
        found[in_bias] = largest(there.runs[0]["y"], right.runs[0]["y"])
    assert found[False] < 1e-5
    assert found[True] > 1, "OpenCV is repaired: say so in the fact"


def test_an_old_onnx_runtime_is_wrong_the_second_time_by_its_memory_plan(folder: Path) -> None:
    """Why the guide gives ONNX Runtime below 1.19 the portable form."""
    old = BY_NAME["onnxruntime-oldest"]
    unplanned = replace(old, options={"pattern": False})
    try:
        cells = [
            measure(one, Form("cpu"), EMBEDDED, "lrp-resnet", folder) for one in (old, unplanned)
        ]
    except UnavailableError as reason:
        pytest.skip(str(reason))
    assert cells[1].right, cells[1].said
    if cells[0].right:
        pytest.skip("on this processor the old runtime's memory plan does no harm")
    assert cells[0].fault is None and cells[0].map is not None and cells[0].map > 1


def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.runtimes.environments import Environment, python_of

    monkeypatch.setenv("LRP_ONNX_RUNTIMES", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UnavailableError, match="no-such-runtime==1"):
        python_of(Environment(("no-such-runtime==1",)))
