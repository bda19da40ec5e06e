"""Small networks of other families: vision transformers and a modern CNN, for drawn pictures.

    python -m tools.study.modern -o study/modern          # torch, minutes a network

- ``vit``: a vision transformer, patches of 8 × 8 pixels, four layers, classes read from a token;
- ``vit-mean``: the same, classes read from the mean of all tokens;
- ``convnext``: blocks of ConvNeXt (Liu et al. 2022): depthwise 7 × 7, layer norm, GELU.

The class of a picture is the pattern of its object's surface, whatever the object's form: such
networks learn it in minutes, forms they do not. Backgrounds have patterns and lines too, so a map
is right where it finds the object; masks are exact. In training, another head has to tell the
pattern at every place (token labelling, Jiang et al. 2021), which is not exported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tools.study.pictures import KINDS, Mask, Picture, Points, background, put_object
from tools.study.train import SPEC, export

if TYPE_CHECKING:
    import torch

PATTERNS = {
    "across": np.pi / 2,
    "down": 0.0,
    "rising": np.pi / 4,
    "falling": -np.pi / 4,
    "checks": 0.0,
}
"""Class → the direction of its pattern: of stripes the one that they follow each other in."""
CLASSES = tuple(PATTERNS)
SIZE = 64
RADII, TURN, PERIOD, APART = (0.17, 0.3), 0.2, (0.09, 0.16), 0.9
"""Radii of objects and periods of patterns as shares of the picture's side; how far patterns are
turned at most; least sum of differences of their two colours.
"""
PATCH, WIDTH, LAYERS, HEADS = 8, 64, 4, 4
"""Of the transformers."""
WIDTHS, DEPTHS = (16, 32, 64), (1, 2, 2)
"""Of the modern CNN's stages."""
TRAINING_SEED, SETS, IN_SET, KEPT = 31, 12, 750, 500
"""Pictures are drawn in so many sets; the last ones are kept to measure the accuracy."""
BATCH, BACKGROUND = 64, 0.15
"""Pictures of a step; weight of places without the object."""
MIDDLE, MIDDLE_RADII = (0.25, 0.75), (0.17, 0.24)
"""Columns that hold the object of pictures that maps are judged on: mosaics are made of these."""

Drawn = tuple[Picture, Mask, int]


def surface(name: str, rng: np.random.Generator) -> Points:
    """(64, 64, 3): a pattern in two colours, from 0 to 1."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    angle = PATTERNS[name] + rng.uniform(-TURN, TURN)
    period, phases = rng.uniform(*PERIOD), rng.uniform(0, 2 * np.pi, 2)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    beside = rows * np.cos(angle) - columns * np.sin(angle)
    wave = np.sin(2 * np.pi * along / period + phases[0])
    if name == "checks":
        wave = wave * np.sin(2 * np.pi * beside / period + phases[1])
    share = (0.5 + 0.5 * np.tanh(4 * wave))[:, :, None]
    while True:
        one, other = rng.uniform(0, 1, (2, 3))
        if np.abs(one - other).sum() > APART:
            return np.asarray(one * (1 - share) + other * share)


def draw(label: int, rng: np.random.Generator, radii: tuple[float, float] = RADII) -> Drawn:
    """A picture (64, 64, 3), where its object is, and its class."""
    covering = surface(CLASSES[label], rng)
    kind_of = background(rng, SIZE), KINDS[int(rng.integers(len(KINDS)))]
    return (*put_object(*kind_of, rng, radii, covering), label)


def _drawn(number: int) -> list[Drawn]:
    rng = np.random.default_rng([TRAINING_SEED, number])
    return [draw(int(label), rng) for label in rng.integers(0, len(CLASSES), IN_SET)]


def training_set() -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """Pictures (N, 64, 64, 3), where their objects are (N, 64, 64), and their classes (N,)."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        drawn = [one for part in pool.map(_drawn, range(SETS)) for one in part]
    pictures, masks, labels = zip(*drawn, strict=True)
    return np.stack(pictures), np.stack(masks), np.array(labels)


def judged(count: int, seed: int) -> list[Drawn]:
    """Pictures to judge maps on: the object lies in the middle half."""
    rng = np.random.default_rng(seed)
    left, right = (round(share * SIZE) for share in MIDDLE)
    found: list[Drawn] = []
    while len(found) < count:
        picture, mask, label = draw(len(found) % len(CLASSES), rng, MIDDLE_RADII)
        if not mask[:, :left].any() and not mask[:, right:].any():
            found.append((picture, mask, label))
    return found


def transformer(*, token: bool) -> torch.nn.Module:
    """A vision transformer, its classes read from a class token or from the mean of all tokens."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, tokens, width = x.shape
            parts = self.qkv(x).reshape(n, tokens, 3, HEADS, width // HEADS)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-2, -1) * (width // HEADS) ** -0.5).softmax(-1)
            return self.out((weights @ v).transpose(1, 2).reshape(n, tokens, width))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.attention = nn.LayerNorm(WIDTH), Attention()
            self.second = nn.LayerNorm(WIDTH)
            self.dense = nn.Sequential(
                nn.Linear(WIDTH, 3 * WIDTH), nn.GELU(), nn.Linear(3 * WIDTH, WIDTH)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(self.first(x))
            return x + self.dense(self.second(x))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
            self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
            side = SIZE // PATCH
            self.places = nn.Parameter(torch.randn(1, side * side + token, WIDTH) * 0.02)
            self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(CLASSES))

        def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Logits, and the tokens of places before the last layer."""
            x = self.patch(x).flatten(2).transpose(1, 2)
            if token:
                x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
            before = self.layers[:-1](x + self.places)
            x = self.norm(self.layers[-1](before))
            return self.head(x[:, 0] if token else x.mean(1)), before[:, int(token) :]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.both(x)[0]

    return Transformer()


def convnext() -> torch.nn.Module:
    """A network of ConvNeXt's blocks."""
    import torch
    from torch import nn

    class Norm(nn.Module):
        """Over the channels of (N, C, H, W)."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
            self.norm = nn.LayerNorm(width)
            self.dense = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )
            self.scale = nn.Parameter(torch.full((width,), 0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            return x + (self.dense(y) * self.scale).permute(0, 3, 1, 2)

    class ConvNext(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 4, 4), Norm(WIDTHS[0])]
            for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
                if stage:
                    before = WIDTHS[stage - 1]
                    layers += [Norm(before), nn.Conv2d(before, width, 2, 2)]
                layers += [Block(width) for _ in range(depth)]
            self.layers = nn.Sequential(*layers)
            self.norm = nn.LayerNorm(WIDTHS[-1])
            self.head = nn.Linear(WIDTHS[-1], len(CLASSES))

        def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Logits, and the last feature map as tokens."""
            x = self.layers(x)
            return self.head(self.norm(x.mean((2, 3)))), x.flatten(2).transpose(1, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.both(x)[0]

    return ConvNext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained."""

    network: Callable[[], torch.nn.Module]
    epochs: int
    rate: float
    """The highest."""
    side: int
    """Places along each side of the picture."""
    cover: float
    """Share of a place that the object covers at least where the place has its class."""


NETWORKS: Mapping[str, Recipe] = {
    "vit": Recipe(
        network=lambda: transformer(token=True), epochs=7, rate=1.5e-3, side=8, cover=0.4
    ),
    "vit-mean": Recipe(
        network=lambda: transformer(token=False), epochs=7, rate=1.5e-3, side=8, cover=0.4
    ),
    "convnext": Recipe(network=convnext, epochs=14, rate=3e-3, side=4, cover=0.25),
}


def train(
    name: str, pictures: NDArray[np.uint8], masks: NDArray[np.bool_], labels: NDArray[np.int64]
) -> torch.nn.Module:
    """The trained network, in evaluation mode; prints its accuracy on the pictures kept back."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    recipe = NETWORKS[name]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (SPEC.mean, SPEC.std))
    inputs, targets = torch.from_numpy(pictures), torch.from_numpy(labels)
    count = len(inputs) - KEPT

    def input_of(chosen: torch.Tensor | slice) -> torch.Tensor:
        return (inputs[chosen].permute(0, 3, 1, 2).float() / 255 - mean) / std

    covered = functional.adaptive_avg_pool2d(torch.from_numpy(masks).float(), recipe.side)
    nothing = torch.tensor(len(CLASSES))
    places = torch.where(covered.flatten(1) >= recipe.cover, targets[:, None], nothing)
    weights = torch.tensor([1.0] * len(CLASSES) + [BACKGROUND])
    model, second = recipe.network(), torch.nn.Linear(WIDTH, len(CLASSES) + 1)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *second.parameters()], lr=recipe.rate, weight_decay=0.05
    )
    steps = recipe.epochs * (count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=steps, pct_start=0.15
    )
    for epoch in range(recipe.epochs):
        total, order = 0.0, torch.randperm(count)
        for first in range(0, count - BATCH + 1, BATCH):
            chosen = order[first : first + BATCH]
            logits, tokens = model.both(input_of(chosen))
            loss = functional.cross_entropy(logits, targets[chosen], label_smoothing=0.05)
            loss = loss + functional.cross_entropy(
                second(tokens).flatten(0, 1), places[chosen].flatten(), weight=weights
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total * BATCH / count:.3f}", flush=True)
    with torch.no_grad():
        right = model.eval()(input_of(slice(count, None))).argmax(1) == targets[count:]
    print(f"{right.float().mean():.1%} of {KEPT} other pictures right", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    pictures, masks, labels = training_set()
    for name in given.network:
        print(name, flush=True)
        path = given.output / f"{name}.onnx"
        export(train(name, pictures, masks, labels), path, name=name, classes=CLASSES, size=SIZE)
        print(path, flush=True)


if __name__ == "__main__":
    main()
