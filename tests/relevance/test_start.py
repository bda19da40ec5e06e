"""Where relevance starts, to the number: the network's logits are its input, so that the gradient
at the input is the start itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from networks import Network
from numpy.typing import NDArray

from lrp_onnx.compiler import compile_model

Save = Callable[[onnx.ModelProto], Path]
Values = NDArray[np.float32]
Starts = Callable[..., Values]
CLASSES = 6


@pytest.fixture
def started(saved: Save) -> Starts:
    """(logits (N, 6), inputs of the compiled file, options) → what relevance starts from."""
    net = Network()
    eye = net.constant("eye", np.eye(CLASSES, dtype=np.float32))
    y = net.node("Gemm", net.node("Flatten", "x"), eye)
    path = saved(net.model(y, ["N", 3, 1, 2], classes=CLASSES))

    def start(logits: object, feeds: dict[str, object] | None = None, **options: object) -> Values:
        model = compile_model(path, composite="gradient", outputs=("relevance",), **options).model  # type: ignore[arg-type]
        x = np.asarray(logits, np.float32).reshape(-1, 3, 1, 2)
        given = {name: np.asarray(value) for name, value in (feeds or {}).items()}
        return run_onnx(model, {"x": x} | given)["relevance"].reshape(-1, CLASSES)

    return start


ROWS = np.array([[1, -2, 0.5, 3, 0, -1], [-4, -1, -3, -2, -9, -5]], np.float32)


def contrasted(logits: Values, target: int) -> NDArray[np.float64]:
    """The target's logit, and of the others minus their logit times their softmax without it."""
    others = np.delete(np.arange(CLASSES), target)
    z = logits.astype(np.float64)
    weights = np.exp(z[others] - z[others].max())
    start = z.copy()
    start[others] *= -weights / weights.sum()
    return start


@pytest.mark.parametrize("level", [0.0, -1e6, 1e6])
def test_a_contrastive_start_leaves_its_target_out(level: float, started: Starts) -> None:
    """Wherever the logits lie: what is left out has no share, however low the others are."""
    logits = ROWS + np.float32(level)
    found = started(logits, {"target": [3, 0]}, start="contrastive")
    expected = [contrasted(logits[0], 3), contrasted(logits[1], 0)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", ["logit", "probability", "one"])
def test_other_starts_are_at_the_target_alone(start: str, started: Starts) -> None:
    found = started(ROWS, {"target": [2, -1]}, start=start)
    size = {"logit": ROWS, "probability": softmax(ROWS), "one": np.ones_like(ROWS)}[start]
    expected = np.zeros_like(ROWS)
    for row, target in enumerate((2, 1)):
        expected[row, target] = size[row, target]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def softmax(z: Values) -> Values:
    return np.asarray(np.exp(z) / np.exp(z).sum(1, keepdims=True), np.float32)


@pytest.mark.parametrize("start", ["logit", "probability", "one", "contrastive"])
def test_classes_with_sigmoids_of_their_own(start: str, saved: Save) -> None:
    """Each is a question of its own: there is nothing to contrast it with."""
    net = Network()
    eye = net.constant("eye", np.eye(CLASSES, dtype=np.float32))
    y = net.node("Sigmoid", net.node("Gemm", net.node("Flatten", "x"), eye))
    path = saved(net.model(y, ["N", 3, 1, 2], classes=CLASSES))
    model = compile_model(path, composite="gradient", outputs=("relevance",), start=start).model
    feeds = {"x": ROWS.reshape(-1, 3, 1, 2), "target": np.array([2, 3])}
    found = run_onnx(model, feeds)["relevance"].reshape(-1, CLASSES)
    size = {"probability": 1 / (1 + np.exp(-ROWS)), "one": np.ones_like(ROWS)}.get(start, ROWS)
    expected = np.zeros_like(ROWS)
    for row, target in enumerate((2, 3)):
        expected[row, target] = size[row, target]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_start_is_given_where_any_entry_is_not_zero(started: Starts) -> None:
    """A row of zeros and negative numbers is given too; one of zeros is not."""
    given = np.zeros((3, CLASSES), np.float32)
    given[0, 4], given[2, 0] = -0.5, 2
    found = started(
        np.vstack([ROWS, ROWS[:1]]), {"start": given, "target": [1, 5, 1]}, start="logit"
    )
    expected = given.copy()
    expected[1, 5] = ROWS[1, 5]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("inputs", ["optional", "target,start"])
def test_a_start_of_one_axis_is_read_as_it_is(inputs: str, saved: Save) -> None:
    net = Network()
    y = net.dense(net.node("Flatten", "x"), (CLASSES, CLASSES))
    path = saved(net.model(y, ["N", 3, 1, 2], classes=CLASSES))
    graph = compile_model(path, composite="gradient", inputs=inputs).model.graph
    assert "Reshape" not in {node.op_type for node in graph.node if "start" in node.input}


def test_ranks_of_many_targets(started: Starts) -> None:
    """−k is the k-th largest logit; behind the last there is none, so nothing is explained."""
    targets = [-1, -2, -6, -9, 0, 5]
    found = started(ROWS[:1], {"target": targets}, many_targets=True, start="one")
    order = np.argsort(-ROWS[0])
    expected = np.eye(CLASSES, dtype=np.float32)[[order[0], order[1], order[5], 0, 0, 5]]
    expected[3] = 0
    np.testing.assert_array_equal(found, expected)


def test_no_inputs_are_the_largest_logit(started: Starts) -> None:
    found = started(ROWS, inputs="none", start="one")
    np.testing.assert_array_equal(found, np.eye(CLASSES, dtype=np.float32)[[3, 1]])
