"""The small random ResNets whose relevance maps `make.py`
records, and how they become ONNX files.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

try:
    import torchvision
except RuntimeError:
    # A torch without torchvision's compiled operators: two of them are enough for ResNet blocks.
    _DECLARED = torch.library.Library("torchvision", "DEF")
    _DECLARED.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

Block = type[torchvision.models.resnet.BasicBlock] | type[torchvision.models.resnet.Bottleneck]
IMAGES = 2
LOGITS_TOLERANCE = 1e-5
"""Largest absolute difference allowed between an exported
file's logits (float32) and torch's (float64).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of residual blocks; `dilation` is that of every
    3×3 in it but the first, as torchvision does it.
    """

    planes: int
    blocks: int = 2
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network and its input; `seed` fixes all of it."""

    name: str
    block: Block
    stages: tuple[Stage, ...]
    size: tuple[int, int]
    seed: int
    stem: int = 4
    groups: int = 1
    stride_in_1x1: bool = False
    classes: int = 5


CASES = (
    Case(
        name="basic",
        block=torchvision.models.resnet.BasicBlock,
        stages=(Stage(planes=4), Stage(planes=8, stride=2)),
        size=(33, 31),
        seed=2,
    ),
    Case(
        name="bottleneck",
        block=torchvision.models.resnet.Bottleneck,
        stages=(Stage(planes=4), Stage(planes=8, stride=2), Stage(planes=8, dilation=2)),
        size=(32, 32),
        groups=2,
        seed=0,
    ),
    Case(
        name="bottleneck-v1",
        block=torchvision.models.resnet.Bottleneck,
        stages=(Stage(planes=4), Stage(planes=8, stride=2)),
        size=(30, 30),
        stride_in_1x1=True,
        seed=10,
    ),
)


class ThinResNet(nn.Module):
    """torchvision's ResNet around torchvision's blocks, at
    free widths: 7×7/2, 3×3/2 max-pool, stages, mean, dense.
    """

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, case.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(case.stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, dilation, stages = case.stem, 1, []
        for stage in case.stages:
            blocks = []
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(
                    _block(
                        case, stage, channels, stride, dilation if index == 0 else stage.dilation
                    )
                )
                channels = stage.planes * case.block.expansion
            stages.append(nn.Sequential(*blocks))
            dilation = stage.dilation
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, case.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of `images` (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.fc(torch.flatten(self.avgpool(self.stages(x)), 1))


def _block(case: Case, stage: Stage, channels: int, stride: int, dilation: int) -> nn.Module:
    out = stage.planes * case.block.expansion
    shortcut = None
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
        )
    block = case.block(
        channels, stage.planes, stride, shortcut, groups=case.groups, dilation=dilation
    )
    if case.stride_in_1x1:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return block


def build(case: Case) -> tuple[ThinResNet, NDArray[Any]]:
    """The network in eval mode, and its input (2, 3, H, W) float32, standard normal.

    Weights are float64 with float32-representable values. Convolutions are He-normal, batch norms
    have random statistics, and a quarter of their gammas are negative.
    """
    draw = np.random.default_rng(case.seed)
    net = ThinResNet(case)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            _fill(module.weight, draw.normal(0.0, (2 / fan) ** 0.5, module.weight.shape))
        elif isinstance(module, nn.BatchNorm2d):
            n = module.num_features
            _fill(module.running_mean, draw.normal(0.0, 0.3, n))
            _fill(module.running_var, draw.uniform(0.5, 2.0, n))
            _fill(
                module.weight,
                draw.uniform(0.3, 1.0, n) * np.where(draw.random(n) < 0.25, -1.0, 1.0),
            )
            _fill(module.bias, draw.normal(0.0, 0.3, n))
        elif isinstance(module, nn.Linear):
            _fill(module.weight, draw.normal(0.0, module.in_features**-0.5, module.weight.shape))
            _fill(module.bias, draw.normal(0.0, 0.5, module.bias.shape))
    images = draw.normal(size=(IMAGES, 3, *case.size)).astype(np.float32)
    return net.double().eval(), images


def _fill(tensor: Tensor, values: NDArray[Any]) -> None:
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(values.astype(np.float32)))


def logits_of(net: ThinResNet, images: NDArray[Any]) -> NDArray[Any]:
    """The logits (N, classes) float64 of `images` (N, 3, H, W)."""
    with torch.no_grad():
        found: NDArray[Any] = net(torch.from_numpy(images).double()).numpy()
    return found


def export(net: ThinResNet, images: NDArray[Any], *, keep_batch_norm: bool) -> onnx.ModelProto:
    """The network as an ONNX model: opset 17, `input` (N,
    3, H, W) → `logits` (N, classes), float32.

    With `keep_batch_norm` the BatchNormalization nodes
    stay, in inference mode; else the exporter folds them.
    """
    mode = torch.onnx.TrainingMode.PRESERVE if keep_batch_norm else torch.onnx.TrainingMode.EVAL
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecation
        torch.onnx.export(
            net.float(),
            (torch.from_numpy(images),),
            file,
            dynamo=False,
            opset_version=17,
            do_constant_folding=not keep_batch_norm,
            training=mode,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )
    net.double().eval()
    model = onnx.load_from_string(file.getvalue())
    for part in (model, model.graph, *model.graph.node):
        part.doc_string = ""
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def verify_logits(model: onnx.ModelProto, images: NDArray[Any], logits: NDArray[Any]) -> None:
    """Raise ValueError unless `model` answers `images` (N,
    3, H, W) with `logits` (N, classes), whole and one alone.
    """
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for count in (len(images), 1):
        (found,) = session.run(["logits"], {"input": images[:count]})
        if np.abs(found - logits[:count]).max() > LOGITS_TOLERANCE:
            raise ValueError("an ONNX file's logits differ from those of the network")
