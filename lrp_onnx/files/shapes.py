"""Shapes of a model's tensors."""

from __future__ import annotations

import onnx

from lrp_onnx.errors import ModelFileError, first_line
from lrp_onnx.files.loops import INFERENCE_ERRORS


def with_shapes(
    model: onnx.ModelProto, source: str = "the model", *, data_prop: bool = False
) -> onnx.GraphProto:
    """The graph with the shapes that ONNX infers; with `data_prop` through values of shapes too.
    `source` is the model's name in errors.

    Raises:
        ModelFileError: shapes that the model states contradict each other.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop).graph
    except INFERENCE_ERRORS as error:
        raise ModelFileError(
            f"{source} is damaged: its shapes do not fit each other ({first_line(error)})"
        ) from error
