"""Files that Paddle2ONNX writes."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import paddle
import paddle2onnx
from paddle import nn

from tools.zoo.recipe import BATCH_NORM_EPSILON, BLOCKS, CLASSES, SIZE, Recipe, core_weights

TOOLS = ("paddle2onnx", "paddlepaddle", "onnx")
NAMES = {"running_mean": "_mean", "running_var": "_variance"}


class Block(nn.Layer):
    """A bottleneck block."""

    def __init__(self, into: int, mid: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2D(into, mid, 1, bias_attr=False), _norm(mid)
        self.conv2, self.bn2 = nn.Conv2D(mid, mid, 3, stride, 1, bias_attr=False), _norm(mid)
        self.conv3, self.bn3 = nn.Conv2D(mid, out, 1, bias_attr=False), _norm(out)
        self.downsample = (
            nn.Sequential(nn.Conv2D(into, out, 1, stride, bias_attr=False), _norm(out))
            if into != out
            else None
        )

    def forward(self, x: Any) -> Any:
        relu = nn.functional.relu
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(relu(self.bn2(self.conv2(y)))))
        return relu(y + (self.downsample(x) if self.downsample else x))


class Network(nn.Layer):
    """The shared network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2D(3, 8, 7, 2, 3, bias_attr=False), _norm(8)
        self.pool, self.mean = nn.MaxPool2D(3, 2, 1), nn.AdaptiveAvgPool2D(1)
        blocks = list(BLOCKS.values())
        self.layer1 = nn.Sequential(*(Block(*sizes) for sizes in blocks[:2]))
        self.layer2 = nn.Sequential(*(Block(*sizes) for sizes in blocks[2:]))
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Any) -> Any:
        x = self.pool(nn.functional.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(paddle.flatten(self.mean(x), 1))


def _norm(channels: int) -> nn.Layer:
    return nn.BatchNorm2D(channels, epsilon=BATCH_NORM_EPSILON)


def core() -> nn.Layer:
    """The shared network with the shared weights."""
    model = Network()
    state = {}
    for name, values in core_weights().items():
        stem, last = name.rsplit(".", 1)
        state[f"{stem}.{NAMES.get(last, last)}"] = values.T if name == "fc.weight" else values
    missing, unexpected = model.set_state_dict(state)
    assert not missing, missing
    assert not unexpected, unexpected
    model.eval()
    return model


def export(make: Any, path: Path, *, opset: int = 13) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stem = str(Path(folder) / "model")
        paddle.jit.save(
            make(), stem, [paddle.static.InputSpec([None, 3, SIZE, SIZE], "float32", "input")]
        )
        program = next(p for p in (f"{stem}.json", f"{stem}.pdmodel") if Path(p).exists())
        paddle2onnx.export(program, f"{stem}.pdiparams", str(path), opset_version=opset)


_CORE = "ResNet v1.5: bottleneck blocks"
RECIPES = [
    Recipe("core", "paddle2onnx-op13", _CORE, TOOLS, partial(export, core)),
    Recipe("core", "paddle2onnx-op18", _CORE, TOOLS, partial(export, core, opset=18)),
]
