"""The passes of the normalisation, in order. A pass may change its argument in place."""

from __future__ import annotations

from collections.abc import Callable

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.batch import free_batch, resolve_shapes
from lrp_onnx.model.normalize.depth_to_space import depth_to_space_as_moves
from lrp_onnx.model.normalize.fused import split_fused
from lrp_onnx.model.normalize.fused_conv import split_fused_convs
from lrp_onnx.model.normalize.gathers import ordered_gathers_as_reshapes
from lrp_onnx.model.normalize.guards import unguarded_softmaxes
from lrp_onnx.model.normalize.masks import finite_masks
from lrp_onnx.model.normalize.settle import settle
from lrp_onnx.model.normalize.sums import differences_as_sums, sums_of_one_shape
from lrp_onnx.model.normalize.tidy import check, inline_functions, tidy

GraphPass = Callable[[Graph], Graph]
PASSES: tuple[GraphPass, ...] = (
    inline_functions,
    split_fused_convs,
    tidy,
    split_fused,
    check,
    settle,
    unguarded_softmaxes,
    ordered_gathers_as_reshapes,
    resolve_shapes,
    free_batch,
    depth_to_space_as_moves,
    finite_masks,
    differences_as_sums,
    sums_of_one_shape,
)
