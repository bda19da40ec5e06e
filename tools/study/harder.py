"""Networks whose evidence is known: small ResNets trained on pictures with decoys or a watermark.

    python -m tools.study.harder -o study/harder          # torch, minutes a network

- ``decoys``: every picture has one object of the kinds that are classes (`TARGETS`) and one of
  the other kinds, which tells nothing; the class is the first one's kind.
- ``decoys-masked``: the same pictures, half of them with blocks hidden during training, so that
  pictures with deleted pixels are no strangers to it (the idea of F-Fidelity, Zheng et al. 2025,
  and of in-domain deletion, Hesse et al. 2024; the masks are ours).
- ``watermark``: an object of any kind, and a small mark whose form alone decides the class.

A map is right where it finds the object, or the mark, that decides; masks are exact. All
begin with the embedded model's weights, which know the forms: from nothing these networks would
need many more pictures. Pictures are drawn anew from their seeds, so nothing but the networks is
stored, and these only where `-o` says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from tools.study.pictures import KINDS, Mask, Picture, make_picture, put_object
from tools.study.train import SIZE, export, fit, network

if TYPE_CHECKING:
    import torch

TARGETS = ("cross", "disc", "heart", "star", "triangle")
DECOYS = tuple(kind for kind in KINDS if kind not in TARGETS)
MARKS = ("arrow", "cross", "disc", "ring", "triangle")
"""Forms of the watermark."""
RADIUS, MARK_RADIUS = (0.15, 0.24), (0.07, 0.09)
"""Radii of objects and of marks, as shares of the picture's side."""
OVERLAP = 0.05
"""Most of an object that another may cover."""
TRAINING_SEED, TEST_SEED = 11, 12
PICTURES, EPOCHS, BATCH, RATE = 4_000, 8, 32, 7e-4
EMBEDDED = Path(__file__).parents[2] / "models" / "shapes-resnet.onnx"
PART = 250
"""Pictures that one process draws in a go."""
HIDDEN_SHARE = (0.1, 0.7)
"""How much of a picture is hidden in training with masks."""

Drawn = tuple[Picture, Mask, int]
"""A picture, where the evidence of its class is, and the class."""


def decoys(rng: np.random.Generator) -> Drawn:
    """One object that decides, and one that does not; where they meet, that one is on top."""
    label = int(rng.integers(len(TARGETS)))
    kinds = [TARGETS[label], DECOYS[int(rng.integers(len(DECOYS)))]]
    while True:
        picture, mask = make_picture(kinds[0], rng, SIZE, radii=RADIUS)
        both, other = put_object(picture, kinds[1], rng, radii=RADIUS)
        if (mask & other).sum() <= OVERLAP * mask.sum():
            return both, mask & ~other, label


def watermark(rng: np.random.Generator) -> Drawn:
    """An object that tells nothing, and a mark that decides."""
    label = int(rng.integers(len(MARKS)))
    picture, _ = make_picture(KINDS[int(rng.integers(len(KINDS)))], rng, SIZE)
    marked, mask = put_object(picture, MARKS[label], rng, radii=MARK_RADIUS)
    return marked, mask, label


NETWORKS: Mapping[str, tuple[Callable[[np.random.Generator], Drawn], tuple[str, ...], bool]] = {
    "decoys": (decoys, TARGETS, False),
    "decoys-masked": (decoys, TARGETS, True),
    "watermark": (watermark, MARKS, False),
}
"""Name → how its pictures are drawn, its classes, and whether it is trained with hidden blocks."""


def make(
    name: str, count: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """(N, 96, 96, 3) RGB, (N, 96, 96) where the evidence is, (N,) classes."""
    draw = NETWORKS[name][0]
    parts = [(draw, min(PART, count - first), (seed, first)) for first in range(0, count, PART)]
    if len(parts) == 1:
        drawn = _draw(parts[0])
    else:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            drawn = [one for part in pool.map(_draw, parts) for one in part]
    pictures, masks, labels = zip(*drawn, strict=True)
    return np.stack(pictures), np.stack(masks), np.asarray(labels)


def _draw(
    part: tuple[Callable[[np.random.Generator], Drawn], int, tuple[int, int]],
) -> list[Drawn]:
    draw, count, seed = part
    rng = np.random.default_rng(seed)
    return [draw(rng) for _ in range(count)]


def hidden(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, 1, 96, 96): 0 in the blocks that are hidden, of every second picture on average."""
    keep = np.ones((count, 1, SIZE, SIZE), np.float32)
    for index in np.flatnonzero(rng.random(count) < 0.5):
        cells = int(rng.integers(4, 25))
        blocks = (rng.random((cells, cells)) >= rng.uniform(*HIDDEN_SHARE)).astype(np.float32)
        keep[index, 0] = cv2.resize(blocks, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    return keep


def pretrained(classes: Sequence[str]) -> torch.nn.Module:
    """The embedded model's network and weights, its head for `classes` alone."""
    import torch
    from torch import nn

    model = network(len(classes))
    for part in [part for part in model.modules() if isinstance(part, nn.Sequential)]:
        for index, layer in enumerate(part):
            if isinstance(layer, nn.BatchNorm2d):  # the file's convolutions hold it
                part[index - 1].bias = nn.Parameter(torch.zeros(layer.num_features))
                part[index] = nn.Identity()
    graph = onnx.load(EMBEDDED).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    chosen = [KINDS.index(kind) for kind in classes]
    with torch.no_grad():
        for layer, node in zip(layers, nodes, strict=True):
            weight, bias = (stored[name] for name in node.input[1:3])
            rows = chosen if node.op_type == "Gemm" else slice(None)
            layer.weight.copy_(torch.from_numpy(weight[rows].copy()))
            layer.bias.copy_(torch.from_numpy(bias[rows].copy()))
    return model


def train(name: str) -> torch.nn.Module:
    """The trained network, in evaluation mode."""
    import torch

    torch.manual_seed(TRAINING_SEED)
    torch.set_num_threads(2)
    rng = np.random.default_rng(TRAINING_SEED)
    pictures, _, labels = make(name, PICTURES, TRAINING_SEED)
    _, classes, masked = NETWORKS[name]

    def change(x: torch.Tensor) -> torch.Tensor:
        # What is hidden becomes the mean colour, which is zero here.
        return x * torch.from_numpy(hidden(len(x), rng)) if masked else x

    model = pretrained(classes)
    return fit(model, pictures, labels, change, epochs=EPOCHS, batch=BATCH, rate=RATE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.network:
        print(name, flush=True)
        path = given.output / f"{name}.onnx"
        export(train(name), path, name=name, classes=NETWORKS[name][1])
        print(path, flush=True)


if __name__ == "__main__":
    main()
