"""Files that torch's two exporters write."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from tools.zoo import torch_models
from tools.zoo.recipe import SIZE, Recipe
from tools.zoo.torch_models import (
    ARCHITECTURES,
    FrozenBatchNorm,
    Prepared,
    SignalResNet,
    ThinVideoResNet,
    ViewHead,
    core,
    replaced,
)

TOOLS = ("torch", "torchvision", "timm", "transformers", "onnxscript", "onnx")
Make = Callable[[], nn.Module]


def torchscript(
    make: Make,
    path: Path,
    *,
    opset: int = 17,
    example: Any = None,
    any_size: bool = False,
    **options: Any,
) -> None:
    """The exporter of torch.jit.trace, the default until torch 2.8."""
    model = make()
    names = _outputs(model, example)
    axes = {name: {0: "N"} for name in ("input", *names)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (_example(example, model),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=names,
            dynamic_axes=axes if not any_size else {**axes, "input": {0: "N", 2: "H", 3: "W"}},
            **options,
        )


def dynamo(
    make: Make,
    path: Path,
    *,
    opset: int = 20,
    example: Any = None,
    any_size: bool = False,
    **options: Any,
) -> None:
    """The exporter of torch.export, the default since torch
    2.9; its external data is brought into the file.
    """
    model = make()
    sizes = {0: torch.export.Dim("N")}
    if any_size:
        sizes |= dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (_example(example, model),),
            str(target),
            dynamo=True,
            opset_version=opset,
            input_names=["input"],
            output_names=_outputs(model, example),
            dynamic_shapes=(sizes,),
            verbose=False,
            **options,
        )
        proto = onnx.load(target)
    # Stack traces of the machine that exported are of no use here.
    for node in proto.graph.node:
        del node.metadata_props[:]
    onnx.save(proto, path)


def _example(example: Any, model: nn.Module) -> torch.Tensor:
    if example is not None:
        return example
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    return torch.randn(2, 3, SIZE, SIZE, dtype=dtype)


def _outputs(model: nn.Module, example: Any) -> list[str]:
    with torch.no_grad():
        found = model(_example(example, model))
    if not isinstance(found, tuple):
        return ["logits"]
    named = {2: ["logits", "features"], 3: ["attention_scores", "logits", "attention_map"]}
    return named[len(found)]


def _recipe(
    family: str, exporter: str, architecture: str, write: Callable[[Path], None], **options: Any
) -> Recipe:
    return Recipe(family, exporter, architecture, TOOLS, write, **options)


OF_OPSET_23 = ("vit", "deit", "hf-vit", "group-norm", "hardswish")
"""Families with operators that opsets above 20 have, or have in another form."""
CORE = "ResNet v1.5: bottleneck blocks"
_EXAMPLE_UINT8 = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
_TRAINING = torch.onnx.TrainingMode


def _frozen() -> nn.Module:
    return replaced(core(), nn.BatchNorm2d, FrozenBatchNorm)


def _seeded(make: Make) -> nn.Module:
    return torch_models.seeded(make())


def _half() -> nn.Module:
    return core().half()


def _recipes() -> list[Recipe]:
    made = [
        _recipe("core", "torchscript-op20", CORE, partial(torchscript, core, opset=20)),
        _recipe(
            "core",
            "torchscript-op13-bn",
            CORE,
            partial(
                torchscript, core, opset=13, do_constant_folding=False, training=_TRAINING.PRESERVE
            ),
        ),
        _recipe(
            "core",
            "torchscript-op11-view",
            CORE,
            partial(torchscript, lambda: ViewHead(core()), opset=11),
        ),
        _recipe(
            "core",
            "torchscript-op9-weights-as-inputs",
            CORE,
            partial(torchscript, core, opset=9, keep_initializers_as_inputs=True),
        ),
        _recipe("core", "torchscript-op7", CORE, partial(torchscript, core, opset=7)),
        _recipe(
            "core",
            "torchscript-softmax",
            CORE,
            partial(torchscript, lambda: torch_models.Softmaxed(core())),
        ),
        _recipe("core", "torchscript-frozen-bn", CORE, partial(torchscript, _frozen)),
        _recipe(
            "core",
            "torchscript-uint8-nhwc",
            CORE + ", preparation inside",
            partial(torchscript, lambda: Prepared(core()), example=_EXAMPLE_UINT8),
            layout="NHWC",
        ),
        _recipe("core", "dynamo-op18", CORE, partial(dynamo, core, opset=18)),
        _recipe("core", "dynamo-op20", CORE, partial(dynamo, core, opset=20)),
        _recipe("core", "dynamo-op23", CORE, partial(dynamo, core, opset=23)),
        _recipe("core", "dynamo-unoptimised", CORE, partial(dynamo, core, optimize=False)),
        _recipe("core", "torchscript-any-size", CORE, partial(torchscript, core, any_size=True)),
        _recipe("core", "dynamo-any-size", CORE, partial(dynamo, core, any_size=True)),
        _recipe("core", "dynamo-frozen-bn", CORE, partial(dynamo, _frozen)),
        _recipe("core-fp16", "torchscript", CORE + ", float16", partial(torchscript, _half)),
        _recipe("core-fp16", "dynamo", CORE + ", float16", partial(dynamo, _half)),
        # Optimised, torch 2.13 with onnxscript 0.7.2 folds bfloat16
        # batch norms into float32 weights: an invalid file.
        _recipe(
            "core-bf16",
            "dynamo-unoptimised",
            CORE + ", bfloat16",
            partial(dynamo, lambda: core().bfloat16(), optimize=False),
        ),
        _recipe(
            "core-training",
            "torchscript",
            CORE + ", exported in training mode",
            partial(
                torchscript,
                lambda: core().train(),
                training=_TRAINING.TRAINING,
                do_constant_folding=False,
            ),
        ),
    ]
    for family, architecture, network, shape, layout in (
        ("resnet-1d", "ResNet of signals: 1-D convolutions", SignalResNet, (2, 128), "NCL"),
        ("resnet-3d", "ResNet of films: 3-D and (2+1)-D", ThinVideoResNet, (3, 4, 32, 32), "NCDHW"),
    ):
        for name, export in (("torchscript", torchscript), ("dynamo", dynamo)):
            write = partial(export, partial(_seeded, network), example=torch.randn(2, *shape))
            made.append(_recipe(family, name, architecture, write, layout=layout))
    for family, (architecture, make) in ARCHITECTURES.items():
        made.append(_recipe(family, "torchscript", architecture, partial(torchscript, make)))
        made.append(_recipe(family, "dynamo", architecture, partial(dynamo, make)))
        if family in OF_OPSET_23:
            write = partial(dynamo, make, opset=23)
            made.append(_recipe(family, "dynamo-op23", architecture, write))
    return made


RECIPES = _recipes()
