"""The `demo` command: the embedded model and its pictures, which travel with the package."""

from __future__ import annotations

from pathlib import Path

import lrp_onnx
from lrp_onnx.errors import ModelFileError

MODEL, PICTURES = "shapes-resnet.onnx", "samples"


def embedded() -> tuple[Path, Path]:
    """(model, folder of pictures): in the package, or in a clone's `models`.

    Raises:
        ModelFileError: they are in neither.
    """
    package = Path(lrp_onnx.__file__).parent
    for folder in (package / "embedded", package.parent / "models"):
        if (folder / MODEL).is_file():
            return folder / MODEL, folder / PICTURES
    raise ModelFileError(
        f"the embedded model {MODEL} is not in {package}: install the package again"
    )
