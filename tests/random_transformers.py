"""Random networks of attention: patches, tokens, norms, heads, masks, gated MLPs, odd shortcuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from networks import Network

CLASSES = 5
MASKED = (-5.0, -100.0, -1e9, -np.inf)
"""What exporters add to scores that are not to count."""


def random_transformer(seed: int) -> onnx.ModelProto:
    """A network of one to three blocks on a few patches; `seed` decides everything."""
    return Tokens(Network(seed), np.random.default_rng(seed)).model()


@dataclass
class Tokens:
    """Appends layers to (N, tokens, width)."""

    net: Network
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.grid = [int(n) for n in self.rng.integers(2, 4, 2)]
        self.heads, self.depth = int(self.rng.choice([1, 2, 3])), int(self.rng.choice([2, 4]))
        self.width = self.heads * self.depth
        self.before = int(self.rng.choice([0, 0, 1, 2]))
        """Tokens that are no patches: of the class, registers."""
        self.activation = str(self.rng.choice(["Gelu", "Gelu", "Relu", "Silu", "Tanh"]))
        self.norms = str(
            self.rng.choice(["fused", "written", "rms", "none"], p=[0.5, 0.2, 0.2, 0.1])
        )

    @property
    def count(self) -> int:
        """How many tokens there are."""
        return self.before + self.grid[0] * self.grid[1]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def array(self, *shape: int, centre: float = 0.0, scale: float = 0.3) -> str:
        values = self.rng.normal(centre, scale, shape).astype(np.float32)
        return self.net.constant(f"array{len(self.net.weights)}", values)

    def integers(self, *values: int) -> str:
        return self.net.constant(f"integers{len(self.net.weights)}", np.array(values))

    def number(self, value: float) -> str:
        return self.net.constant(f"number{len(self.net.weights)}", np.float32(value))

    def reshape(self, x: str, *shape: int) -> str:
        return self.net.node("Reshape", x, self.integers(*shape))

    def transpose(self, x: str, *order: int) -> str:
        return self.net.node("Transpose", x, perm=list(order))

    def mean(self, x: str, axis: int = -1, **attributes: Any) -> str:
        return self.net.node("ReduceMean", x, self.integers(axis), **attributes)

    def model(self) -> onnx.ModelProto:
        size = [2 * n for n in self.grid]
        y = self._embedded("x")
        for _ in range(int(self.rng.integers(1, 4))):
            y = self._block(y)
        if self.chance(0.6):
            y = self.norm(y)
        logits = self.net.dense(self._pooled(y), (self.width, CLASSES), form=self._dense_form())
        shape: list[int | str] = [2 if self.chance(0.2) else "N", 3, *size]
        return self.net.model(logits, shape, classes=CLASSES, opset=int(self.rng.choice([18, 20])))

    def _dense_form(self) -> str:
        return str(self.rng.choice(["gemm", "gemm-scaled", "matmul"]))

    def _embedded(self, x: str) -> str:
        """Patches as tokens, with tokens of their own and positions."""
        patches = self.grid[0] * self.grid[1]
        if self.chance(0.3):  # an early convolution
            x = self.net.activate("Relu", self.net.conv(x, (3, 4), pads=[1] * 4))
            y = self.net.conv(x, (4, self.width), (2, 2), strides=[2, 2])
        else:
            y = self.net.conv(x, (3, self.width), (2, 2), strides=[2, 2])
        if self.chance(0.5):
            y = self.transpose(self.reshape(y, 0, self.width, -1), 0, 2, 1)
        else:
            y = self.reshape(self.transpose(y, 0, 2, 3, 1), -1, patches, self.width)
        y = self.norm(y) if self.chance(0.2) else y
        first = self.chance(0.3)  # positions before the class token, as in DeiT III
        if first:
            y = self.net.node("Add", y, self.array(1, patches, self.width))
        if self.before:
            token, size = self.array(1, self.before, self.width), self.net.node("Shape", "x", end=1)
            rest = self.integers(self.before, self.width)
            shape = self.net.node("Concat", size, rest, axis=0)
            y = self.net.node("Concat", self.net.node("Expand", token, shape), y, axis=1)
        if not first and self.chance(0.8):
            y = self.net.node("Add", y, self.array(1, self.count, self.width))
        return y

    def _pooled(self, y: str) -> str:
        """(N, width): the class token, or a mean of all tokens or of the patches."""
        if self.before and self.chance(0.6):
            if self.chance(0.5):
                return self.net.node("Gather", y, self.net.constant("first", np.array(0)), axis=1)
            return self.net.node("Squeeze", self._cut(y, 0, 1), self.integers(1))
        if self.before and self.chance(0.5):
            y = self._cut(y, self.before, self.count)
        if self.chance(0.2):
            return self.net.node("ReduceMax", y, self.integers(1), keepdims=0)
        return self.mean(y, 1, keepdims=0)

    def _cut(self, y: str, start: int, end: int, axis: int = 1) -> str:
        return self.net.node(
            "Slice", y, self.integers(start), self.integers(end), self.integers(axis)
        )

    def norm(self, y: str, width: int | None = None) -> str:
        """A normalisation of the last axis: one node, or written out, or by the mean square."""
        size = width or self.width
        if self.norms == "none":
            return y
        scale, shift = self.array(size, centre=1.0), self.array(size)
        if self.norms == "fused":
            return self.net.node("LayerNormalization", y, scale, shift, axis=-1)
        centred = y if self.norms == "rms" else self.net.node("Sub", y, self.mean(y))
        square = self.net.node("Pow", centred, self.number(2))
        shifted = self.net.node("Add", self.mean(square), self.number(1e-5))
        unit = self.net.node("Div", centred, self.net.node("Sqrt", shifted))
        scaled = self.net.node("Mul", unit, scale)
        return scaled if self.norms == "rms" else self.net.node("Add", scaled, shift)

    def _block(self, y: str) -> str:
        """Attention and an MLP, or both side by side, or one of them; norms before or behind."""
        place = str(self.rng.choice(["before", "behind", "both"], p=[0.6, 0.25, 0.15]))
        layers = [self.attention, self.mlp]
        if self.chance(0.15):
            layers = [layers[int(self.rng.integers(2))]]
        if not self.before and self.chance(0.3):
            layers.insert(0, self._depthwise)
        if len(layers) == 2 and self.chance(0.15):  # parallel, one norm for both
            normed = self.norm(y)
            return self.net.node("Sum", y, *(self._scaled(layer(normed)) for layer in layers))
        for layer in layers:
            normed = self.norm(y) if place != "behind" else y
            branch = self._scaled(layer(normed))
            skip = normed if self.chance(0.1) else y  # a shortcut from behind the norm
            if self.chance(0.1):
                skip = self.net.node("Mul", skip, self.number(0.5))
            y = self._joined(skip, branch)
            y = self.norm(y) if place != "before" else y
        return y

    def _joined(self, skip: str, branch: str) -> str:
        if self.chance(0.08):
            return branch  # no shortcut
        if self.chance(0.08):
            return self.net.node("Sub", skip, branch)
        return self.net.node("Add", *((skip, branch) if self.chance(0.5) else (branch, skip)))

    def _scaled(self, y: str) -> str:
        """Layer scale, now and then."""
        return (
            self.net.node("Mul", y, self.array(self.width, centre=0.5)) if self.chance(0.3) else y
        )

    def _depthwise(self, y: str) -> str:
        """A convolution over the grid of patches."""
        y = self.reshape(self.transpose(y, 0, 2, 1), -1, self.width, *self.grid)
        y = self.net.conv(y, (self.width, self.width), pads=[1] * 4, group=self.width)
        return self.transpose(self.reshape(y, -1, self.width, self.grid[0] * self.grid[1]), 0, 2, 1)

    def mlp(self, y: str) -> str:
        """Two layers, or three with a gate between."""
        inside = int(self.rng.choice([5, 8]))
        if self.chance(0.35):
            return self.net.linear(self._gated(y, inside), (inside, self.width))
        y = self.net.activate(self.activation, self.net.linear(y, (self.width, inside)))
        return self.net.linear(y, (inside, self.width))

    def _gated(self, y: str, inside: int) -> str:
        """``act(Wx) · Vx``, in two layers or in one that is split."""
        if self.chance(0.5):
            both = self.net.linear(y, (self.width, 2 * inside))
            left, right = self._cut(both, 0, inside, -1), self._cut(both, inside, 2 * inside, -1)
        else:
            left, right = (self.net.linear(y, (self.width, inside)) for _ in range(2))
        gate = str(self.rng.choice(["Sigmoid", "Silu", "Gelu"]))
        return self.net.node("Mul", self.net.activate(gate, left), right)

    def attention(self, y: str) -> str:
        """Self-attention with its projection."""
        windows = not self.before and self.grid[0] == 2 and self.chance(0.5)
        if windows:  # of one row of the grid each
            y = self.reshape(y, -1, self.grid[1], self.width)
        tokens = self.grid[1] if windows else self.count
        query, key, value, keys = self._heads(y, tokens)
        scores = self._scores(query, key)
        if self.chance(0.4):
            bias = self.array(1, self.heads, tokens, keys, scale=1.0)
            scores = self.net.node("Add", scores, bias)
        if self.chance(0.4):
            scores = self.net.node("Add", scores, self._mask(tokens, keys))
        weights = self.net.node("Softmax", scores, axis=-1)
        y = self.net.node("MatMul", weights, value)
        y = self.reshape(self.transpose(y, 0, 2, 1, 3), -1, tokens, self.width)
        if windows:
            y = self.reshape(y, -1, self.count, self.width)
        return self.net.linear(y, (self.width, self.width)) if self.chance(0.9) else y

    def _heads(self, y: str, tokens: int) -> tuple[str, str, str, int]:
        """Queries (N, heads, T, d), keys turned (N, heads, d, K), values (N, heads, K, d), and K;
        from one layer or three, keys and values perhaps of fewer tokens or of one head for all.
        """
        form = str(self.rng.choice(["one", "three", "reduced", "one head"], p=[0.4, 0.3, 0.2, 0.1]))
        if form == "one":
            y = self.net.linear(y, (self.width, 3 * self.width))
            y = self.reshape(y, -1, tokens, 3, self.heads, self.depth)
            y = self.transpose(y, 2, 0, 3, 1, 4)
            parts = [
                self.net.node("Gather", y, self.net.constant(self._name(), np.array(i)), axis=0)
                for i in range(3)
            ]
            if self.chance(0.3):  # cosine attention of queries and keys that have been normalised
                parts[:2] = [self.norm(part, self.depth) for part in parts[:2]]
            return parts[0], self.transpose(parts[1], 0, 1, 3, 2), parts[2], tokens
        query = self.reshape(
            self.net.linear(y, (self.width, self.width)), -1, tokens, self.heads, self.depth
        )
        source, keys = y, tokens
        if form == "reduced":  # as PVT and Linformer have it
            keys = max(tokens // 2, 1)
            turned = self.net.linear(self.transpose(y, 0, 2, 1), (tokens, keys))
            source = self.transpose(turned, 0, 2, 1)
        heads = 1 if form == "one head" else self.heads
        key, value = (
            self.reshape(
                self.net.linear(source, (self.width, heads * self.depth)),
                -1,
                keys,
                heads,
                self.depth,
            )
            for _ in range(2)
        )
        key, value = self.transpose(key, 0, 2, 3, 1), self.transpose(value, 0, 2, 1, 3)
        return self.transpose(query, 0, 2, 1, 3), key, value, keys

    def _name(self) -> str:
        return f"index{len(self.net.weights)}"

    def _scores(self, query: str, key: str) -> str:
        """Queries times keys, scaled before or behind or not at all."""
        scale, form = self.depth**-0.5, str(self.rng.choice(["query", "both", "scores", "none"]))
        if form == "query":
            query = self.net.node("Mul", query, self.number(scale))
        if form == "both":
            query, key = (self.net.node("Mul", x, self.number(scale**0.5)) for x in (query, key))
        scores = self.net.node("MatMul", query, key)
        if form == "scores":
            return self.net.node("Div", scores, self.number(1 / scale))
        return scores

    def _mask(self, tokens: int, keys: int) -> str:
        """Some scores that are not to count; every row has one that does."""
        masked = self.rng.random((1, 1, tokens, keys)) < 0.3
        masked[..., 0] = False
        values = np.where(masked, float(self.rng.choice(MASKED)), 0.0).astype(np.float32)
        return self.net.constant(f"mask{len(self.net.weights)}", values)
