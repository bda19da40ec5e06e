"""Appending what a builder collected to the forward model: nodes, constants, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from lrp_onnx.relevance.graph.builder import Builder


def append(
    builder: Builder,
    proto: onnx.ModelProto,
    inputs: Mapping[str, tuple[str, Sequence[int | str | None]]],
    defaults: Mapping[str, np.ndarray[Any, Any]],
    outputs: Mapping[str, Sequence[int | str]],
) -> onnx.ModelProto:
    """`proto` with the collected nodes after its own, and
    with further inputs and further float32 outputs.

    Args:
        proto: the forward model; it is not changed.
        inputs: further inputs, name → (onnx element type name, shape, None for the batch).
        defaults: the default values of those that are optional.
        outputs: further outputs, name → shape.
    """
    addition = gs.export_onnx(
        gs.Graph(
            nodes=builder.nodes,
            inputs=[],
            outputs=[],
            opset=proto.opset_import[0].version,
            ir_version=proto.ir_version,
        ),
        do_type_check=False,
    )
    taken = {node.name for node in proto.graph.node}
    for node in addition.graph.node:
        while node.name in taken:
            node.name += "_"
    extended = onnx.ModelProto()
    extended.CopyFrom(proto)
    stored = {tensor.name for tensor in proto.graph.initializer}
    extended.graph.node.extend(addition.graph.node)
    constants = [
        tensor
        for tensor in builder.tensors.values()
        if isinstance(tensor, gs.Constant) and tensor.name not in stored
    ]
    extended.graph.initializer.extend(
        onnx.numpy_helper.from_array(c.values, c.name) for c in constants
    )
    batch = builder.batch or proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param or "N"
    extended.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(
            n, onnx.TensorProto.FLOAT, [batch if d is None else d for d in dims]
        )
        for n, dims in builder.shapes.items()
    )
    for name, (element, shape) in inputs.items():
        extended.graph.input.append(
            onnx.helper.make_tensor_value_info(
                name,
                getattr(onnx.TensorProto, element),
                [batch if size is None else size for size in shape],
            )
        )
        if name in defaults:
            extended.graph.initializer.append(onnx.numpy_helper.from_array(defaults[name], name))
    for name, shape in outputs.items():
        extended.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        )
    return extended
