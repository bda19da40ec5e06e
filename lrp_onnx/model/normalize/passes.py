"""The passes of the normalisation, in order. A pass may change its argument in place."""

from __future__ import annotations

from collections.abc import Callable

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.batch import free_batch, resolve_shapes
from lrp_onnx.model.normalize.fused_conv import split_fused_convs
from lrp_onnx.model.normalize.settle import settle
from lrp_onnx.model.normalize.tidy import check, inline_functions, tidy

GraphPass = Callable[[Graph], Graph]
PASSES: tuple[GraphPass, ...] = (
    inline_functions,
    split_fused_convs,
    tidy,
    check,
    settle,
    resolve_shapes,
    free_batch,
)
