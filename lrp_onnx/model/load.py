"""From a file that nobody vouches for to a normalised
graph: gate, opset, then the passes of `normalize`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from lrp_onnx.errors import ModelFileError, UnsupportedModelError, first_line
from lrp_onnx.files.models import load_proto
from lrp_onnx.model.gate import faults_of
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.opset import to_working_opset
from lrp_onnx.model.normalize.passes import PASSES
from lrp_onnx.model.normalize.sizes import fix_size, oversized
from lrp_onnx.model.normalize.stated_shapes import without_stated_shapes

IR_VERSION = 10
INVALID = (ir.serde.SerdeError, ir.passes.PassError, onnx.checker.ValidationError)
"""What onnx-ir and the checker raise where a file is
broken; whatever else is raised is a mistake of ours.
"""


def load_model(path: Path | str, *, input_size: Sequence[int] | None = None) -> Graph:
    """Read, check and normalise the model at `path`.

    Args:
        path: an ONNX file.
        input_size: height and width for a model that leaves them open.

    Raises:
        ModelFileError: the file is missing, damaged, or not
            ONNX, or its external data is not there.
        UnsupportedModelError: it is ONNX, but of an opset
            or with operators that cannot be read here.
    """
    return normalise(load_proto(path), str(path), input_size=input_size)


def normalise(
    proto: onnx.ModelProto, source: str, *, input_size: Sequence[int] | None = None
) -> Graph:
    """Bring a model of any opset from 7 to 25 to one shape: opset 18 to 20, constants as
    initializers, sorted, named, shapes known.
    """
    faults = faults_of(proto)
    if faults:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    proto = to_working_opset(without_stated_shapes(proto), source)
    proto.ir_version = IR_VERSION
    try:
        with _quiet():
            graph = Graph(ir.from_proto(proto))
            if input_size is not None:
                graph = fix_size(graph, input_size, source=source)
            for step in PASSES:
                graph = step(graph)
    except INVALID as error:
        raise ModelFileError(f"{source} is not a valid ONNX model: {first_line(error)}") from error
    if faults := [*oversized(graph)]:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries log what they then raise, with a stack trace."""
    logger, handler = logging.getLogger("onnx_ir"), logging.NullHandler()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)
