"""What commands that take a model, compiled or not, have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrp_onnx import __version__
from lrp_onnx.compiler import Options
from lrp_onnx.errors import RuleError
from lrp_onnx.files.description import describe_model, names_said
from lrp_onnx.files.models import checksum_of, metadata_of
from lrp_onnx.runtime.installation import onnx_runtime

IMAGENET_IS_ASSUMED = (
    "the model does not say how pictures become its input, so imagenet is assumed; if that "
    "is wrong, classes and maps are wrong too: give --preprocess"
)


def refuse_settled(model: Path, settled: Sequence[str], *, otherwise: str = "") -> None:
    """Raise RuleError where options of a compilation, `settled`, are given with a compiled file.

    `otherwise` is what else can be done, with a comma before it.
    """
    if settled:
        raise RuleError(
            f"{model} is compiled already, which settles {', '.join(settled)}: give the model that "
            f"it was compiled from{otherwise}"
        )


def run_settings(
    model: Path, options: Options, own: Mapping[str, Any], *, without: Collection[str]
) -> dict[str, Any]:
    """All that decides a run's results: name → value for JSON.

    Results of other processors, batches and numbers of threads differ by rounding alone.

    Args:
        model: the model's file.
        options: how it is compiled.
        own: the command's own settings.
        without: fields of `options` that decide nothing, or that `own` has.
    """
    without = {*without, "max_memory"}
    fields = {name: value for name, value in asdict(options).items() if name not in without}
    metadata = metadata_of(model)
    described = describe_model(metadata, model).preprocessing
    return {
        "lrp-onnx": __version__,
        "onnxruntime": onnx_runtime().__version__,
        "model": checksum_of(model),
        **own,
        "output-name": fields.pop("explain"),
        "preprocess": fields.pop("preprocessing") or (asdict(described) if described else None),
        "classes": fields.pop("labels") or names_said(metadata, model),
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
