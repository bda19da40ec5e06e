"""Make the embedded model: train a thin bottleneck ResNet on
procedural pictures, export it, and measure what was exported.

    python -m tools.study.train --output models                        # all of
    models/ but the card (torch, minutes) python -m tools.study.train --evaluate
    models/shapes-resnet.onnx   # accuracy on fresh pictures (no torch)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from lrp_onnx.contract import Preprocessing, describe
from lrp_onnx.runtime.preprocess import preprocess
from tools.study.pictures import KINDS, Mask, Picture, make_picture

if TYPE_CHECKING:
    import torch

SIZE = 96
NAME = "shapes-resnet"
TRAINING_SEED, TEST_SEED, SAMPLE_SEED = 1, 2, 3
TRAINING_PICTURES, TEST_PICTURES = 16_000, 3_000
EPOCHS, BATCH, RATE = 14, 64, 3e-3
WIDTH = 12
"""Channels of the narrowest convolution; the four stages end in 4, 8, 16 and 32 times as many."""
SAMPLE_SIZE = 288
SPEC = Preprocessing(resize="stretch", layout="NCHW")
SAMPLES = ("star", "heart", "gear", "arrow")


def make_set(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(N, 96, 96, 3) uint8 pictures and (N,) labels; every
    fourth picture is made larger and shrunk, as photos are.
    """
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels = rng.integers(0, len(KINDS), count)
    for index, label in enumerate(labels):
        large = index % 4 == 0
        size = int(rng.integers(SIZE + 1, 2 * SIZE)) if large else SIZE
        picture, _ = make_picture(KINDS[label], rng, size)
        way = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
        pictures[index] = cv2.resize(picture, (SIZE, SIZE), interpolation=way) if large else picture
    return pictures, labels


def network(classes: int = len(KINDS)) -> torch.nn.Module:
    """A ResNet-26: bottlenecks in four stages of two,
    stride in the 3×3, projections where the shape changes.
    """
    import torch
    from torch import nn

    def unit(before: int, after: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        return [conv, nn.BatchNorm2d(after)]

    class Bottleneck(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            after = 4 * width
            self.main = nn.Sequential(
                *unit(before, width, 1),
                nn.ReLU(),
                *unit(width, width, 3, stride),
                nn.ReLU(),
                *unit(width, after, 1),
            )
            nn.init.zeros_(self.main[-1].weight)
            same = before == after and stride == 1
            self.shortcut = (
                nn.Identity() if same else nn.Sequential(*unit(before, after, 1, stride))
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.main(x) + self.shortcut(x))

    stem = 2 * WIDTH
    layers: list[nn.Module] = [*unit(3, stem, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = stem
    for stage in range(4):
        width = WIDTH * 2**stage
        layers += [
            Bottleneck(before, width, 1 if stage == 0 else 2),
            Bottleneck(4 * width, width, 1),
        ]
        before = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def fit(
    model: torch.nn.Module,
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    change: Callable[[torch.Tensor], torch.Tensor],
    *,
    epochs: int,
    batch: int,
    rate: float,
) -> torch.nn.Module:
    """Train `model` on pictures (N, H, W, 3) and their classes; it is returned in evaluation mode.

    Every second batch is mirrored; `change` does more to a batch (B, 3, H, W) in the model's units.
    """
    import torch

    inputs, targets = torch.from_numpy(pictures), torch.from_numpy(labels)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (SPEC.mean, SPEC.std))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        begun, total = time.perf_counter(), 0.0
        order = torch.randperm(len(inputs))
        for first in range(0, len(order) - batch + 1, batch):
            chosen = order[first : first + batch]
            x = (inputs[chosen].permute(0, 3, 1, 2).float() / 255.0 - mean) / std
            x = change(x.flip(3) if torch.rand(()) < 0.5 else x)
            loss = loss_of(model(x), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - begun
        print(
            f"epoch {epoch + 1}: loss {total * batch / len(order):.3f}, {seconds:.0f} s", flush=True
        )
    return model.eval()


def train() -> torch.nn.Module:
    """The trained network, in evaluation mode."""
    import torch

    torch.manual_seed(TRAINING_SEED)
    torch.set_num_threads(2)
    pictures, labels = make_set(TRAINING_PICTURES, TRAINING_SEED)

    def turned(x: torch.Tensor) -> torch.Tensor:
        return torch.rot90(x, int(torch.randint(4, ())), (2, 3))

    return fit(network(), pictures, labels, turned, epochs=EPOCHS, batch=BATCH, rate=RATE)


def export(
    model: torch.nn.Module,
    path: Path,
    *,
    name: str = NAME,
    classes: Sequence[str] = KINDS,
    size: int = SIZE,
) -> None:
    """Write the network with folded batch normalisation, a
    dynamic batch, and how to use it in its metadata.
    """
    import torch

    x = torch.randn(2, 3, size, size)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    axes = {"input": {0: "N"}, "logits": {0: "N"}}
    torch.onnx.export(
        model, (x,), str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names
    )
    proto = onnx.load(path)
    proto.graph.name, proto.doc_string = name, ""
    for node in proto.graph.node:
        node.doc_string = ""
    onnx.helper.set_model_props(proto, describe(SPEC, tuple(classes)))
    onnx.save(proto, path)
    with torch.no_grad():
        expected = model(x).numpy()
    found = run(path, x.numpy())
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def run(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The exported model's logits, (N, 10)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"input": batch})[0]
    return found


def prepare(pictures: NDArray[np.uint8] | list[Picture]) -> NDArray[np.float32]:
    """The model's input, (N, 3, 96, 96)."""
    return np.stack([preprocess(picture, SPEC, SIZE, SIZE).tensor for picture in pictures])


def evaluate(path: Path) -> float:
    """Share of fresh pictures that the exported model gets right;
    prints it, and the worst kinds.
    """
    pictures, labels = make_set(TEST_PICTURES, TEST_SEED)
    parts = [run(path, prepare(pictures[i : i + 250])) for i in range(0, len(pictures), 250)]
    predicted = np.concatenate(parts).argmax(1)
    share = float((predicted == labels).mean())
    print(f"{share:.2%} of {len(labels)} fresh pictures right")
    for index, kind in enumerate(KINDS):
        print(f"  {kind:10s} {(predicted[labels == index] == index).mean():.1%}")
    return share


def make_samples(path: Path, folder: Path) -> None:
    """Write one picture and mask of each kind in SAMPLES: right
    and confident however it is shrunk, and off the centre.
    """
    rng = np.random.default_rng(SAMPLE_SEED)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for kind in SAMPLES:
        picture, mask = make_picture(kind, rng, SAMPLE_SIZE)
        while not _good(path, kind, picture, mask):
            picture, mask = make_picture(kind, rng, SAMPLE_SIZE)
        cv2.imwrite(str(folder / "samples" / f"{kind}.png"), picture[:, :, ::-1])
        cv2.imwrite(str(folder / "masks" / f"{kind}.png"), mask.astype(np.uint8) * 255)


def _good(path: Path, kind: str, picture: Picture, mask: Mask) -> bool:
    ways = [cv2.INTER_AREA, cv2.INTER_LINEAR]
    shrunk = [cv2.resize(picture, (SIZE, SIZE), interpolation=way).astype(np.uint8) for way in ways]
    logits = run(path, prepare(shrunk))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    confidence = (powers / powers.sum(1, keepdims=True))[:, KINDS.index(kind)].min()
    centre = np.argwhere(mask).mean(0) / SAMPLE_SIZE - 0.5
    return bool(confidence > 0.9 and np.abs(centre).max() > 0.12 and mask.mean() > 0.08)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="train and write the model, its labels and samples to this folder",
    )
    parser.add_argument("--evaluate", type=Path, metavar="MODEL", help="measure an exported model")
    parser.add_argument(
        "--samples", type=Path, metavar="MODEL", help="only make the samples again, beside MODEL"
    )
    arguments = parser.parse_args()
    if arguments.output:
        begun = time.perf_counter()
        path = arguments.output / f"{NAME}.onnx"
        export(train(), path)
        print(
            f"trained and exported in {time.perf_counter() - begun:.0f} "
            f"s: {path.stat().st_size:,} bytes"
        )
        (arguments.output / f"{NAME}.labels.txt").write_text(
            "\n".join(KINDS) + "\n", encoding="utf-8"
        )
        make_samples(path, arguments.output)
        evaluate(path)
    if arguments.samples:
        make_samples(arguments.samples, arguments.samples.parent)
    if arguments.evaluate:
        evaluate(arguments.evaluate)


if __name__ == "__main__":
    main()
