"""From an untrusted file to a normalised graph: gate, opset, then the passes of `normalize`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from lrp_onnx.errors import ModelFileError, UnsupportedModelError, first_line
from lrp_onnx.files.budget import Footprint
from lrp_onnx.files.models import load_proto
from lrp_onnx.files.structure import opset_of
from lrp_onnx.model.gate import faults_of
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.fused import FusedError
from lrp_onnx.model.normalize.opset import to_working_opset
from lrp_onnx.model.normalize.passes import PASSES
from lrp_onnx.model.normalize.sizes import fix_size, oversized
from lrp_onnx.model.normalize.stated_shapes import without_stated_shapes

IR_VERSION = 10
"""IR version of every normalised model."""
INVALID = (ir.serde.SerdeError, ir.passes.PassError, onnx.checker.ValidationError)
"""What onnx-ir and the checker raise for a damaged file. Any other exception is a bug."""


def load_model(path: Path | str, *, input_size: Sequence[int] | None = None) -> Graph:
    """Read, check and normalise the model at `path`.

    Args:
        path: an ONNX file.
        input_size: height and width, for a model with a symbolic input size.

    Raises:
        ModelFileError: the file is missing, damaged or not ONNX, or its external data is missing.
        UnsupportedModelError: the model's opset, operators or sizes are not supported.
    """
    return normalise(load_proto(path), str(path), input_size=input_size)


def normalise(
    proto: onnx.ModelProto,
    source: str,
    *,
    input_size: Sequence[int] | None = None,
    explained: str | None = None,
    max_memory: float | None = None,
) -> Graph:
    """A model of opset 7 to 25 as a normalised graph.

    A normalised graph has opset 18 to 20 (22 with bfloat16 weights), constants as initializers,
    nodes sorted and named, and shapes inferred. `source` is the model's name in errors, `explained`
    that of the output that is explained, where it is known, and `max_memory` the bytes that a run
    of one picture may take, None for half of the machine's.

    Raises:
        ModelFileError: the model is damaged, or takes too much memory.
        UnsupportedModelError: the model's opset, operators or sizes are not supported.
    """
    faults = faults_of(proto, explained)
    if faults:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    opset = opset_of(proto)
    proto = to_working_opset(without_stated_shapes(proto), source)
    proto.ir_version = IR_VERSION
    try:
        with _quiet():
            graph = Graph(ir.from_proto(proto), opset=opset)
            if input_size is not None:
                graph = fix_size(graph, input_size, source=source)
            for graph_pass in PASSES:
                graph = graph_pass(graph)
    except FusedError as error:
        raise UnsupportedModelError(f"{source} cannot be compiled:", error.faults) from error
    except INVALID as error:
        raise ModelFileError(f"{source} is not a valid ONNX model: {first_line(error)}") from error
    faults = list(oversized(graph))
    if faults:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    with _quiet():
        made = ir.to_proto(graph.model)
    footprint = Footprint.of(made, source, max_memory)
    if footprint.sized:  # else no more than a plan is made, which says what is missing
        footprint.check()
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnx-ir's log: it logs a stack trace of every error that it also raises."""
    logger, handler = logging.getLogger("onnx_ir"), logging.NullHandler()
    propagate = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)
