"""Files that jax2onnx writes of flax models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax2onnx import to_onnx

from tools.zoo.recipe import BATCH_NORM_EPSILON, BLOCKS, CLASSES, SIZE, Recipe, core_weights

TOOLS = ("jax2onnx", "jax", "flax", "onnx")


class Convolution(nnx.Module):
    """Convolution and batch normalisation, with the shared weights."""

    def __init__(self, stored: Any, conv: str, norm: str, *, stride: int = 1, pad: Any = 0) -> None:
        kernel = jnp.asarray(stored[f"{conv}.weight"].transpose(2, 3, 1, 0))
        size, into, out = kernel.shape[0], kernel.shape[2], kernel.shape[3]
        padding = "SAME" if pad == "SAME" else [(pad, pad), (pad, pad)]
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(
            into, out, (size, size), stride, padding=padding, use_bias=False, rngs=rngs
        )
        self.norm = nnx.BatchNorm(
            out, epsilon=BATCH_NORM_EPSILON, use_running_average=True, rngs=rngs
        )
        self.conv.kernel.value = kernel
        for mine, theirs in (
            ("scale", "weight"),
            ("bias", "bias"),
            ("mean", "running_mean"),
            ("var", "running_var"),
        ):
            getattr(self.norm, mine).value = jnp.asarray(stored[f"{norm}.{theirs}"])

    def __call__(self, x: Any) -> Any:
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """A bottleneck block."""

    def __init__(self, stored: Any, name: str, pad: Any) -> None:
        into, _, out, stride = BLOCKS[name]
        part = partial(Convolution, stored)
        self.one = part(f"{name}.conv1", f"{name}.bn1")
        self.two = part(f"{name}.conv2", f"{name}.bn2", stride=stride, pad=pad)
        self.three = part(f"{name}.conv3", f"{name}.bn3")
        same = into == out
        self.short = (
            None if same else part(f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
        )

    def __call__(self, x: Any) -> Any:
        y = self.three(nnx.relu(self.two(nnx.relu(self.one(x)))))
        return nnx.relu(y + (x if self.short is None else self.short(x)))


class Network(nnx.Module):
    """The shared network; `same` pads as the framework does, not as torch does."""

    def __init__(self, *, same: bool = False) -> None:
        stored = core_weights()
        self.same = same
        self.stem = Convolution(stored, "conv1", "bn1", stride=2, pad="SAME" if same else 3)
        self.blocks = nnx.List([Block(stored, name, "SAME" if same else 1) for name in BLOCKS])
        self.head = nnx.Linear(32, CLASSES, rngs=nnx.Rngs(0))
        self.head.kernel.value = jnp.asarray(stored["fc.weight"].T)
        self.head.bias.value = jnp.asarray(stored["fc.bias"])

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.stem(x))
        if not self.same:  # explicit zeros: jax2onnx 0.17 drops the padding argument of max_pool
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nnx.max_pool(
            x, window_shape=(3, 3), strides=(2, 2), padding="SAME" if self.same else "VALID"
        )
        for block in self.blocks:
            x = block(x)
        mean = (
            jnp.sum(x, axis=(1, 2)) / (x.shape[1] * x.shape[2])
            if self.same
            else jnp.mean(x, axis=(1, 2))
        )
        return self.head(mean)


def export(make: Any, path: Path, **options: Any) -> None:
    jax.config.update("jax_enable_x64", False)
    to_onnx(make(), [("N", SIZE, SIZE, 3)], return_mode="file", output_path=str(path), **options)


_CORE = "ResNet v1.5: bottleneck blocks"
RECIPES = [
    Recipe("core", "jax2onnx", _CORE, TOOLS, partial(export, Network), layout="NHWC"),
    Recipe(
        "core",
        "jax2onnx-nchw",
        _CORE,
        TOOLS,
        partial(export, Network, inputs_as_nchw=[0]),
    ),
    Recipe(
        "same",
        "jax2onnx",
        _CORE + ", SAME pads",
        TOOLS,
        partial(export, partial(Network, same=True)),
        "NHWC",
    ),
]
