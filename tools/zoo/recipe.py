"""What a recipe of the zoo is, and the network whose weights all frameworks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZE = 32
"""Height and width of the pictures, in pixels."""
CLASSES = 10

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One file of the zoo. Files of one family hold the same network with the same weights."""

    family: str
    exporter: str
    """Which exporter wrote it, and how; with the family it names the file."""
    architecture: str
    tools: tuple[str, ...]
    """Distributions whose versions matter."""
    write: Callable[[Path], None]
    layout: str = "NCHW"
    needs: str | None = None
    """Another file of the zoo that this one is made from."""

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return f"{self.family}.{self.exporter}"


def core_weights(seed: int = 7) -> Weights:
    """The shared network: a bottleneck ResNet v1.5 of two
    stages of two blocks, by the names that torchvision gives.

    Kernels are (out, in, height, width) and He-initialised. Batch
    statistics are not trivial: scales of 0.6 to 1.4, one in eight of
    them negative, variances of 0.5 to 2, shifts that are not zero.
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        scale = np.sqrt(2.0 / (into * kernel * kernel))
        weights[f"{name}.weight"] = rng.normal(0, scale, (out, into, kernel, kernel)).astype(
            np.float32
        )

    def norm(name: str, channels: int) -> None:
        sign = np.where(rng.random(channels) < 0.125, -1.0, 1.0)
        weights[f"{name}.weight"] = (sign * rng.uniform(0.6, 1.4, channels)).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0.1, 0.15, channels).astype(np.float32)
        weights[f"{name}.running_mean"] = rng.normal(0, 0.2, channels).astype(np.float32)
        weights[f"{name}.running_var"] = rng.uniform(0.5, 2.0, channels).astype(np.float32)

    conv("conv1", 8, 3, 7)
    norm("bn1", 8)
    for block, (into, mid, out, _) in BLOCKS.items():
        for index, (a, b, kernel) in enumerate(
            ((into, mid, 1), (mid, mid, 3), (mid, out, 1)), start=1
        ):
            conv(f"{block}.conv{index}", b, a, kernel)
            norm(f"{block}.bn{index}", b)
        if into != out:
            conv(f"{block}.downsample.0", out, into, 1)
            norm(f"{block}.downsample.1", out)
    weights["fc.weight"] = rng.normal(0, 0.3, (CLASSES, 32)).astype(np.float32)
    weights["fc.bias"] = rng.normal(0, 0.1, CLASSES).astype(np.float32)
    return weights


BLOCKS = {
    "layer1.0": (8, 4, 16, 1),
    "layer1.1": (16, 4, 16, 1),
    "layer2.0": (16, 8, 32, 2),
    "layer2.1": (32, 8, 32, 1),
}
"""Channels in, in between, and out, and the stride, of every block of the shared network."""
BATCH_NORM_EPSILON = 1e-5
