"""Removal of the shapes that files state for inner tensors; all shapes are inferred instead."""

from __future__ import annotations

import onnx


def without_stated_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `proto` without the shapes of inner tensors, and without sizes below 1.

    Some exporters (jax2onnx 0.17) state wrong shapes, and ONNX Runtime then refuses the file.
    Exporters that write the size 0 or −1 of an input or output mean a symbolic size, but some
    libraries crash on these values.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for value in (*bare.graph.input, *bare.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.Clear()
    return bare
