"""The gate for originals that are run as they are: by methods that need no more, and to compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.inliner

from lrp_onnx.errors import ModelFileError, first_line
from lrp_onnx.files.budget import ONE_PICTURE, Footprint, Sizes
from lrp_onnx.files.loops import INFERENCE_ERRORS, loop_faults
from lrp_onnx.files.models import external_faults, external_weights
from lrp_onnx.files.structure import MOST_NODES, STANDARD, expanded, nested, where

INLINING_ERRORS = (onnx.checker.ValidationError, *INFERENCE_ERRORS)
"""What inlining raises."""


def check_original(
    proto: onnx.ModelProto,
    source: str,
    folder: Path,
    *,
    sizes: Sizes = ONE_PICTURE,
    max_memory: float | None = None,
) -> Footprint:
    """Check that a model ends, reads nothing outside its `folder`, and takes no more memory than
    it may.

    What it takes is known where the sizes of its input are: by itself or by `sizes`.

    Returns:
        What runs of other sizes take.

    Raises:
        ModelFileError: it does not.
    """
    if faults := [*external_faults(external_weights(proto.graph), folder)]:
        raise ModelFileError(f"{source} is not run: {'; '.join(faults)}")
    footprint = Footprint.of(proto, source, max_memory, folder=folder)
    footprint = replace(footprint, bare=_inlined(footprint.bare, source))
    if faults := loop_faults(footprint.bare.graph):
        raise ModelFileError(f"{source} is not run: {'; '.join(faults)}")
    if footprint.sized or sizes:
        footprint.check(sizes=sizes)
    return footprint


def _inlined(bare: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """A model with the nodes of its own functions in the place of their calls."""
    if not bare.functions:
        return bare
    count = expanded(bare)
    own = {(function.domain, function.name) for function in bare.functions}
    if count is None:
        fault = "its functions call each other in a circle"
    elif count > MOST_NODES:
        fault = f"it has {count:,} nodes, functions included; up to {MOST_NODES:,} are read"
    elif named := [name for domain, name in own if domain in STANDARD]:
        fault = f"its function {min(named)} is of the domain of the standard operators"
    else:
        try:
            inlined = onnx.inliner.inline_local_functions(bare)
        except INLINING_ERRORS as error:
            fault = f"its functions cannot be put in the place of their calls ({first_line(error)})"
        else:
            nodes = (inner for node in inlined.graph.node for inner in nested(node))
            left = [where(node) for node in nodes if (node.domain, node.op_type) in own]
            if not left:
                return inlined
            fault = f"its function {left[0]} cannot be put in the place of its calls"
    raise ModelFileError(f"{source} is not run: {fault}")
