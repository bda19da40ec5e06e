"""From a file that nobody vouches for to a normalised graph: gate, external data, opset, normalisation passes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import Sequential, common

from lrp_onnx.errors import LrpOnnxError, ModelFileError, UnsupportedModelError, first_line
from lrp_onnx.files.models import load_proto
from lrp_onnx.model.gate import faults_of
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.batch import (
    TRIALS,
    depends_on_batch,
    forget_shapes,
    free_batch,
    with_batch,
    write_constants,
)
from lrp_onnx.model.normalize.fold import fold_constants
from lrp_onnx.model.normalize.opset import to_working_opset
from lrp_onnx.model.normalize.rewrite import rewrite_nodes, unfuse, without_stated_shapes
from lrp_onnx.model.shapes import shape_of

IR_VERSION = 10
LARGEST_PICTURE = 1 << 25
"""Numbers in one picture; three channels of 3,300 × 3,300 pixels."""
LONGEST_SIDE = 1 << 15
LARGEST_TENSOR = 1 << 28
"""Elements of one picture's largest activation; 64 channels at 2,048 × 2,048 pixels."""


def load_model(path: Path | str, *, input_size: Sequence[int] | None = None) -> Graph:
    """Read, check and normalise the model at `path`.

    Args:
        path: an ONNX file.
        input_size: height and width for a model that leaves them open.

    Raises:
        ModelFileError: the file is missing, damaged, or not ONNX, or its external data is not there.
        UnsupportedModelError: it is ONNX, but of an opset or with operators that cannot be read here.
    """
    return normalise(load_proto(path), str(path), input_size=input_size)


def normalise(proto: onnx.ModelProto, source: str, *, input_size: Sequence[int] | None = None) -> Graph:
    """Bring a model of any opset from 7 to 25 to one shape: opset 18 to 20, constants as initializers, sorted, named,
    shapes known.
    """
    faults = faults_of(proto)
    if faults:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    notes: list[str] = []
    proto = unfuse(proto, notes)
    proto = to_working_opset(without_stated_shapes(proto), source)
    proto.ir_version = IR_VERSION
    try:
        with _quiet():
            model = _checked(proto)
            _fix_size(model, input_size, source)
            _settle(model)
            _resolve(model)
            freed = free_batch(model)
    except LrpOnnxError:
        raise
    except Exception as error:  # any of three libraries may find the file broken, each with its own error type
        raise ModelFileError(f"{source} is not a valid ONNX model: {first_line(error)}") from error
    if freed is not model:
        notes.append("the file's batch has a fixed size; the compiled file takes any")
    if faults := [*_oversized(freed)]:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    return Graph(freed, notes=tuple(notes))


def _checked(proto: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(proto)
    passes = Sequential(
        common.InlinePass(),
        common.TopologicalSortPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.IdentityEliminationPass(),
        common.NameFixPass(),
        common.RemoveUnusedNodesPass(),
    )
    passes(model)
    onnx.checker.check_model(ir.to_proto(model))
    return model


def _settle(model: ir.Model) -> None:
    """Infer shapes, evaluate what is constant, rewrite what is written in a roundabout way, until nothing changes."""
    common.ShapeInferencePass()(model)
    while fold_constants(model) or rewrite_nodes(model):
        common.RemoveUnusedNodesPass()(model)
        common.ShapeInferencePass()(model)


def _resolve(model: ir.Model) -> None:
    """Shape arithmetic that involves the batch: what it comes to is found by trying two batches."""
    if not depends_on_batch(model):
        return
    trials = []
    for batch in TRIALS:
        trial = with_batch(model, batch)
        _settle(trial)
        trials.append(trial)
    if write_constants(model, *trials):
        common.RemoveUnusedNodesPass()(model)
        forget_shapes(model)
        common.ShapeInferencePass()(model)
        _settle(model)


def _fix_size(model: ir.Model, input_size: Sequence[int] | None, source: str) -> None:
    """Give the picture input the height and width that it leaves open."""
    if input_size is None:
        return
    height, width = input_size
    pictures = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    for value in pictures:
        shape = shape_of(value)
        if shape is None or len(shape) != 4:
            continue
        last = shape[1] is None and shape[3] in (1, 3)
        wanted = (shape[0], height, width, shape[3]) if last else (shape[0], shape[1], height, width)
        if any(have not in (None, want) for have, want in zip(shape[1:], wanted[1:], strict=True)):
            raise UnsupportedModelError(
                f"{source} cannot be compiled:",
                [f"its input '{value.name}' has the fixed shape {shape}, which is not {height}×{width}"],
            )
        assert value.shape is not None
        value.shape = ir.Shape([value.shape[0], *wanted[1:]])
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None


def _oversized(model: ir.Model) -> Iterator[str]:
    for value in model.graph.inputs:
        sizes = [size for size in shape_of(value) or () if size is not None]
        if prod(sizes) > LARGEST_PICTURE or max(sizes, default=0) > LONGEST_SIDE:
            yield (
                f"the input '{value.name}' has the shape {shape_of(value)}: up to {LARGEST_PICTURE:,} numbers, and "
                f"{LONGEST_SIDE:,} a side, can be explained"
            )
    for node in model.graph:
        for value in node.outputs:
            sizes = [size for size in (shape_of(value) or ())[1:] if size is not None]
            if prod(sizes) > LARGEST_TENSOR or any(size < 0 for size in sizes):
                yield (
                    f"{node.op_type} '{node.name}' makes {sizes} numbers of every picture: up to {LARGEST_TENSOR:,} "
                    "can be explained"
                )


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
