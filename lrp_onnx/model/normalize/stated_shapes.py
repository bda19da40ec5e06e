"""Shapes that files state of inner tensors: none is believed, all are inferred anew."""

from __future__ import annotations

import onnx


def without_stated_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `proto` without the shapes that it states of inner tensors.

    Some exporters state wrong ones (jax2onnx 0.17 does), for which ONNX Runtime
    refuses the file. Sizes of 0 or −1 of inputs and outputs mean any size to
    those who write them, and crash libraries that take them at their word.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for value in (*bare.graph.input, *bare.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.Clear()
    return bare
