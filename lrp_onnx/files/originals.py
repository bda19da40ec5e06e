"""The gate for originals that are run as they are: by methods that need no more, and to compare."""

from __future__ import annotations

from pathlib import Path

import onnx

from lrp_onnx.errors import ModelFileError
from lrp_onnx.files.budget import ONE_PICTURE, Footprint, Sizes
from lrp_onnx.files.loops import loop_faults
from lrp_onnx.files.models import external_faults


def check_original(
    proto: onnx.ModelProto,
    source: str,
    folder: Path,
    *,
    sizes: Sizes = ONE_PICTURE,
    max_memory: float | None = None,
) -> None:
    """Check that a model ends, reads nothing outside its `folder`, and takes no more memory than
    it may.

    What it takes is known where the sizes of its input are: by itself or by `sizes`.

    Raises:
        ModelFileError: it does not.
    """
    external = [
        tensor
        for tensor in proto.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if faults := [*external_faults(external, folder), *loop_faults(proto.graph)]:
        raise ModelFileError(f"{source} is not run: {'; '.join(faults)}")
    footprint = Footprint.of(proto, source, max_memory, folder=folder)
    if footprint.sized or sizes:
        footprint.check(sizes=sizes)
