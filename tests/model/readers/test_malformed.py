"""What a file does wrong is said of its node; what a reader
does wrong is not blamed on the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import resnet

from lrp_onnx.model.canonicalize import canonicalize
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.heads.classifier import find_head
from lrp_onnx.model.load import load_model
from lrp_onnx.model.readers.reading import READERS, Unreadable
from lrp_onnx.plan import kinds

Save = Callable[[onnx.ModelProto], Path]
PICTURE, ROW, FLAT, SCALAR = ("N", 4, 6, 6), ("N", 4, 6), ("N", 4), ()
Shape = tuple[str | int, ...]


def f(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


def i(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def node(
    op: str,
    shape: Shape,
    *constants: Any,
    outputs: tuple[Shape, ...] = (PICTURE,),
    **attributes: Any,
) -> tuple[Graph, ir.Node]:
    """A node on a tensor of `shape` and on constants, unchecked, as no valid file holds it."""
    names = ["x", *(f"c{n}" for n in range(len(constants)))]
    made = [f"y{n}" for n in range(len(outputs))]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, names, made, name="it", **attributes)],
        "graph",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [
            value(name, onnx.TensorProto.FLOAT, sizes)
            for name, sizes in zip(made, outputs, strict=True)
        ],
        [
            onnx.numpy_helper.from_array(c, name)
            for c, name in zip(constants, names[1:], strict=True)
        ],
    )
    model = ir.from_proto(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    )
    return Graph(model), next(iter(model.graph))


FAULTY: dict[str, tuple[tuple[Graph, ir.Node], str]] = {
    "conv pads": (node("Conv", PICTURE, f(2, 4, 3, 3), pads=[1, 1, 1]), "its pads"),
    "conv auto_pad": (node("Conv", PICTURE, f(2, 4, 3, 3), auto_pad="ODD"), "auto_pad"),
    "conv strides": (node("Conv", PICTURE, f(2, 4, 3, 3), strides=[1, 1, 1]), "strides has 3"),
    "conv weight": (node("Conv", PICTURE, f(2)), "its weight of shape"),
    "conv bias": (node("Conv", PICTURE, f(2, 4, 3, 3), f(3)), "its bias of shape"),
    "gemm weight": (node("Gemm", FLAT, f(4)), "two axes"),
    "gemm bias": (node("Gemm", FLAT, f(4, 5), f(3)), "its 5 outputs"),
    "affine": (node("Add", PICTURE, f(5, 1, 1)), "does not fit one picture"),
    "affine of more axes": (node("Add", PICTURE, f(1, 1, 4, 1, 1)), "does not fit one picture"),
    "division": (node("Div", PICTURE, np.float32(0)), "divides by zero"),
    "scalar": (node("Flatten", SCALAR), r"shape \(\)"),
    "mean axes": (node("ReduceMean", PICTURE, i(7)), "its axis 7"),
    "mean of odd axes": (node("ReduceMean", PICTURE, f(2)), "list of integers"),
    "softmax axis": (node("Softmax", FLAT, axis=3), "its axis 3"),
    "instance scale": (node("InstanceNormalization", PICTURE, f(3), f(4)), "4 numbers are needed"),
    "instance of nothing": (node("InstanceNormalization", ("N",), f(1), f(1)), "no channels"),
    "layer scale": (node("LayerNormalization", PICTURE, f(5), f(6)), "does not fit"),
    "layer axis": (node("LayerNormalization", PICTURE, f(6), f(6), axis=9), "its axis 9"),
    "no groups": (node("GroupNormalization", PICTURE, f(4), f(4), num_groups=0), "make 0 groups"),
    "odd groups": (node("GroupNormalization", PICTURE, f(3), f(3), num_groups=3), "make 3 groups"),
    "slice lengths": (node("Slice", PICTURE, i(0, 0), i(2)), "differ in number"),
    "slice axes": (node("Slice", PICTURE, i(0), i(2), i(4)), "its axis 4"),
    "slice of scalars": (node("Slice", PICTURE, f(1), i(2)), "list of integers"),
    "max pooling of a vector": (node("MaxPool", FLAT, kernel_shape=[2]), r"only \(N, C, L\)"),
    "average pooling of four axes": (
        node("AveragePool", ("N", 4, 6, 6, 6, 6), kernel_shape=[2] * 4),
        r"only \(N, C, L\)",
    ),
    "a kernel of another rank": (node("MaxPool", ROW, kernel_shape=[2, 2]), "2 entries for 1"),
    "no pads": (node("Pad", PICTURE, i()), "0 pads"),
    "odd pads": (node("Pad", PICTURE, i(0, 0, 1)), "3 pads"),
    "pads without axes": (
        node("Pad", PICTURE, i(0, 1), f(), i(2, 3)),
        "2 pads for 2 axes|zeros and mirrored",
    ),
    "pad mode": (node("Pad", PICTURE, i(0, 0, 1, 1, 0, 0, 1, 1), mode="odd"), "its mode is odd"),
    "endless pad": (
        node("Pad", PICTURE, i(0, 0, 2**40, 0, 0, 0, 0, 0), mode="reflect"),
        "contradict the size of its output",
    ),
    "resized channels": (
        node("Resize", PICTURE, outputs=(("N", 8, 6, 6),)),
        "it resizes channels",
    ),
    "resized without end": (
        node("Resize", PICTURE, outputs=(("N", 4, 6, 2**23),)),
        "too large",
    ),
    "resized mode": (node("Resize", PICTURE, mode="odd"), "its mode is odd"),
    "resized by nothing": (node("Resize", PICTURE, f(1), -f(4)), "must be positive"),
    "transposed convolution": (node("ConvTranspose", PICTURE, f(3, 2, 3, 3)), "4 input channels"),
    "transposed convolution bias": (
        node("ConvTranspose", PICTURE, f(4, 2, 3, 3), f(3)),
        "its bias of shape",
    ),
    "transposed convolution size": (
        node("ConvTranspose", PICTURE, f(4, 4, 3, 3), outputs=(("N", 4, 60, 8),)),
        "make no",
    ),
    "response size": (node("LRN", PICTURE, size=0), "its size is 0"),
    "norm axes": (node("ReduceL2", PICTURE, i(7)), "its axis 7"),
    "largest of the batch": (node("ReduceMax", PICTURE, i(0)), "over the batch"),
    "bounds": (node("Max", PICTURE, f(5, 1, 1)), "does not fit one picture"),
    "reciprocals": (node("Pow", PICTURE, np.float32(0)), "its exponent is 0"),
    "product of tokens": (node("MatMul", ROW, f(5, 2)), r"only \(N, …, in\)"),
    "concat axis": (node("Concat", PICTURE, axis=5), "its axis 5"),
    "split": (node("Split", PICTURE, outputs=(PICTURE, PICTURE), axis=1), "its parts"),
    "split ranks": (node("Split", PICTURE, outputs=(FLAT, FLAT), axis=3), "its parts"),
    "transpose": (node("Transpose", PICTURE, perm=[0, 1, 1, 2]), "its order"),
    "transposed scalar": (node("Transpose", SCALAR), "shape|order"),
    "slope": (node("PRelu", PICTURE, f(2, 4, 1, 1)), "its slope"),
    "slope of channels": (node("PRelu", PICTURE, f(3, 1, 1)), "its slope"),
    "clip": (node("Clip", PICTURE, f(2)), "one number"),
    "power": (node("Pow", PICTURE, f(2)), "its exponent"),
    "cast": (node("Cast", PICTURE, to=99), "type 99"),
    "dequantize": (node("DequantizeLinear", PICTURE, f(4), i(0, 0, 0, 0)), "every channel"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_what_the_file_does_wrong_is_said(fault: str) -> None:
    (graph, faulty), message = FAULTY[fault]
    with pytest.raises(Unreadable, match=message):
        READERS[faulty.op_type](graph, faulty)


@pytest.mark.parametrize("error", [KeyError, IndexError, TypeError, ValueError, ZeroDivisionError])
def test_a_reader_s_own_mistake_is_not_the_file_s(
    error: type[Exception], saved: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(graph: Graph, node: ir.Node) -> kinds.Relu:
        raise error("a mistake of ours")

    graph = load_model(saved(resnet()))
    monkeypatch.setitem(READERS, "Relu", mistaken)
    with pytest.raises(error, match="a mistake of ours"):
        canonicalize(graph, find_head(graph, source="it").logits)
