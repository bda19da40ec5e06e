"""lrp-onnx: compile a classifier's ONNX file into one that also explains itself.

``explain`` explains pictures in one call, ``Explainer`` many of them with one model,
``compile_model`` makes a compiled file, ``evaluate`` judges methods on photos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lrp_onnx.api import Explainer, explain
    from lrp_onnx.compiler import Compiled, Options, compile_model
    from lrp_onnx.evaluation.evaluate import evaluate
    from lrp_onnx.evaluation.request import Request
    from lrp_onnx.explanation import Explanation
    from lrp_onnx.runtime.images import find_images

__all__ = [
    "Compiled",
    "Explainer",
    "Explanation",
    "Options",
    "Request",
    "__version__",
    "compile_model",
    "evaluate",
    "explain",
    "find_images",
]

_HOMES = {
    "Compiled": "compiler",
    "Options": "compiler",
    "compile_model": "compiler",
    "Explainer": "api",
    "Explanation": "explanation",
    "explain": "api",
    "find_images": "runtime.images",
    "Request": "evaluation.request",
    "evaluate": "evaluation.evaluate",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that the command line starts quickly."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
