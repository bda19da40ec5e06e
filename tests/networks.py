"""Small random networks as ONNX, made without any training framework: what the tests compile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Network:
    """Appends layers; every method returns the name of the tensor that it makes."""

    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(
        self, op: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any
    ) -> str:
        name = name or f"{op.lower()}{len(self.nodes)}"
        names = [f"{name}.out"] + [f"{name}.out{i}" for i in range(1, outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=name, **attributes))
        return names[0]

    def conv(
        self,
        x: str,
        channels: tuple[int, int],
        kernel: Sequence[int] = (3, 3),
        *,
        bias: bool = True,
        group: int = 1,
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        name = name or f"conv{len(self.nodes)}"
        shape = (channels[1], channels[0] // group, *kernel)
        scale = np.sqrt(2.0 / np.prod(shape[1:]))
        inputs = [
            x,
            self.constant(f"{name}.weight", self.rng.normal(0, scale, shape).astype(np.float32)),
        ]
        if bias:
            inputs.append(
                self.constant(
                    f"{name}.bias", self.rng.normal(0, 0.1, channels[1]).astype(np.float32)
                )
            )
        return self.node(
            "Conv", *inputs, name=name, kernel_shape=list(kernel), group=group, **attributes
        )

    def activate(self, kind: str, x: str) -> str:
        if kind == "Silu":
            return self.node("Mul", self.node("Sigmoid", x), x)
        if kind == "Gelu":
            half, one, root = (
                self.constant(f"gelu{len(self.nodes)}.{v:.1f}", np.float32(v))
                for v in (0.5, 1, 2**0.5)
            )
            return self.node(
                "Mul",
                self.node("Mul", x, half),
                self.node("Add", self.node("Erf", self.node("Div", x, root)), one),
            )
        if kind == "Clip":
            name = f"clip{len(self.nodes)}"
            bounds = [
                self.constant(f"{name}.{k}", np.float32(v))
                for k, v in (("low", 0.0), ("high", 1.5))
            ]
            return self.node(kind, x, *bounds)
        return self.node(kind, x, **({"alpha": 0.1} if kind == "LeakyRelu" else {}))

    def gate(self, x: str, channels: int, kind: str = "Sigmoid", *, swap: bool = False) -> str:
        """Squeeze-and-excitation: ``x · kind(W₂ ReLU(W₁ mean(x)))``."""
        squeezed = self.conv(
            self.node("GlobalAveragePool", x), (channels, max(channels // 2, 1)), (1, 1)
        )
        excited = self.conv(self.node("Relu", squeezed), (max(channels // 2, 1), channels), (1, 1))
        operands = (x, self.node(kind, excited))
        return self.node("Mul", *(reversed(operands) if swap else operands))

    def option_a(self, x: str, before: int, after: int, stride: int, form: str) -> str:
        """A shortcut without weights: every `stride`-th pixel, zeros for the further channels.

        As ``slices`` and Pad, as one Slice (``slice``) and Pad,
        or as the 1×1 convolution that does the same (``eye``).
        """
        first = (after - before) // 2
        name = f"a{len(self.nodes)}"
        if form == "eye":
            eye = np.eye(after, before, k=-first, dtype=np.float32).reshape(after, before, 1, 1)
            weight = self.constant(f"{name}.weight", eye)
            return self.node(
                "Conv", x, weight, kernel_shape=[1, 1], strides=[stride, stride], name=name
            )
        for axes in ([2], [3]) if form == "slices" else ([2, 3],):
            many = len(axes)
            values = {
                "starts": [0] * many,
                "ends": [2**31] * many,
                "axes": axes,
                "steps": [stride] * many,
            }
            inputs = [self.constant(f"{name}.{k}{axes}", np.array(v)) for k, v in values.items()]
            x = self.node("Slice", x, *inputs)
        pads = np.array([0, first, 0, 0, 0, after - before - first, 0, 0])
        return self.node("Pad", x, self.constant(f"{name}.pads", pads))

    def batch_norm(self, x: str, channels: int) -> str:
        name = f"bn{len(self.nodes)}"
        values = {
            "gamma": self.rng.uniform(0.5, 1.5, channels)
            * self.rng.choice([1, 1, 1, -1], channels),
            "beta": self.rng.normal(0, 0.2, channels),
            "mean": self.rng.normal(0, 0.2, channels),
            "var": self.rng.uniform(0.5, 2.0, channels),
        }
        inputs = [
            self.constant(f"{name}.{key}", value.astype(np.float32))
            for key, value in values.items()
        ]
        return self.node("BatchNormalization", x, *inputs, name=name)

    def dense(self, x: str, sizes: tuple[int, int], *, form: str = "gemm") -> str:
        name = f"fc{len(self.nodes)}"
        weight = self.rng.normal(0, np.sqrt(2.0 / sizes[0]), sizes).astype(np.float32)
        bias = self.constant(f"{name}.bias", self.rng.normal(0, 0.1, sizes[1]).astype(np.float32))
        if form == "gemm":
            return self.node(
                "Gemm",
                x,
                self.constant(f"{name}.weight", weight.T.copy()),
                bias,
                name=name,
                transB=1,
            )
        if form == "gemm-scaled":
            return self.node(
                "Gemm",
                x,
                self.constant(f"{name}.weight", weight),
                bias,
                name=name,
                alpha=0.5,
                beta=2.0,
            )
        product = self.node("MatMul", x, self.constant(f"{name}.weight", weight), name=name)
        return self.node("Add", product, bias)

    def linear(self, x: str, sizes: tuple[int, int]) -> str:
        """A dense layer along the last axis, as exporters write it."""
        name = f"linear{len(self.nodes)}"
        weight = self.rng.normal(0, np.sqrt(2.0 / sizes[0]), sizes).astype(np.float32)
        bias = self.rng.normal(0, 0.1, sizes[1]).astype(np.float32)
        product = self.node("MatMul", x, self.constant(f"{name}.weight", weight), name=name)
        return self.node("Add", self.constant(f"{name}.bias", bias), product)

    def deconv(
        self, x: str, channels: tuple[int, int], kernel: Sequence[int], **attributes: Any
    ) -> str:
        """A transposed convolution with a bias."""
        name = f"deconv{len(self.nodes)}"
        shape = (channels[0], channels[1] // attributes.get("group", 1), *kernel)
        scale = np.sqrt(2.0 / np.prod([channels[0], *kernel]))
        weight = self.rng.normal(0, scale, shape).astype(np.float32)
        bias = self.rng.normal(0, 0.1, channels[1]).astype(np.float32)
        constants = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        return self.node("ConvTranspose", x, *constants, name=name, **attributes)

    def model(
        self,
        output: str,
        shape: Sequence[int | str],
        *,
        classes: int | None = None,
        opset: int = 18,
    ) -> onnx.ModelProto:
        """The finished model: input `x` of `shape`, one output (N, classes)."""
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], classes])],
            self.weights,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )


def single_layer(
    layer: str, shape: Sequence[int], *, rectified: bool, seed: int = 0, **attributes: Any
) -> onnx.ModelProto:
    """``x [→ Relu] → layer → Flatten``: start relevance reaches the layer's output as it is."""
    net = Network(seed)
    x = net.node("Relu", "x", name="relu") if rectified else "x"
    channels = shape[1]
    if layer == "conv":
        y = net.conv(
            x,
            (channels, attributes.pop("out", 4)),
            attributes.pop("kernel", (3, 3)),
            name="layer",
            **attributes,
        )
    elif layer == "batch_norm":
        y = net.batch_norm(x, channels)
    elif layer == "deconv":
        y = net.batch_norm(net.deconv(x, (channels, 6), (3, 2), **attributes), 6)
    elif layer == "linear":
        y = net.linear(x, (shape[-1], 5))
    elif layer == "matrices":
        first, second = (4, shape[-2]) if attributes["left"] else (shape[-1], 4)
        matrices = net.rng.normal(0, 0.5, (channels, first, second)).astype(np.float32)
        factors = [net.constant("matrices", matrices), x][:: 1 if attributes["left"] else -1]
        y = net.node("MatMul", *factors, name="layer")
    elif layer == "dense":
        y = net.dense(
            net.node("Flatten", x, name="flatten"), (int(np.prod(shape[1:])), 5), **attributes
        )
    else:
        y = net.node(
            {"average": "AveragePool", "max": "MaxPool", "global": "GlobalAveragePool"}[layer],
            x,
            name="layer",
            **attributes,
        )
    return net.model(net.node("Flatten", y, name="last"), ["N", *shape[1:]])


def resnet(
    kind: str = "basic",
    *,
    size: tuple[int, int] = (17, 15),
    widths: Sequence[int] = (4, 8),
    batch_norm: bool = False,
    stride_in: str = "3x3",
    group: int = 1,
    dilation: int = 1,
    head: str = "gap-flatten-gemm",
    tail: str | None = None,
    seed: int = 0,
    swap: bool = False,
    bias: bool = True,
    shortcut: str = "conv",
    activation: str = "Relu",
    gate: str | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A ResNet of one identity and one projection block per
    width, with a strided stem and max pooling.

    `swap` exchanges the operands of every residual Add. Without `bias`, and wide, practically every
    unit that has relevance has a positive contribution, so that z⁺ conserves.
    """
    net = Network(seed)

    def layer(
        x: str, channels: tuple[int, int], kernel: int, stride: int = 1, **attributes: Any
    ) -> str:
        pad = attributes.get("dilations", [1, 1])[0] * (kernel - 1) // 2
        y = net.conv(
            x,
            channels,
            (kernel, kernel),
            bias=bias and not batch_norm,
            strides=[stride, stride],
            pads=[pad] * 4,
            **attributes,
        )
        return net.batch_norm(y, channels[1]) if batch_norm else y

    def block(x: str, before: int, after: int, stride: int) -> str:
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        if kind == "basic":
            y = net.activate(activation, layer(x, (before, after), 3, stride))
            y = layer(y, (after, after), 3, dilations=[dilation] * 2)
        else:
            y = net.activate(activation, layer(x, (before, after // 2), 1, first))
            y = net.activate(
                activation,
                layer(
                    y, (after // 2, after // 2), 3, second, group=group, dilations=[dilation] * 2
                ),
            )
            y = layer(y, (after // 2, after), 1)
        y = net.gate(y, after, gate) if gate else y
        same = (before, stride) == (after, 1)
        skip = (
            x
            if same
            else net.option_a(x, before, after, stride, shortcut)
            if shortcut != "conv"
            else None
        )
        skip = skip or layer(x, (before, after), 1, stride)
        return net.activate(activation, net.node("Add", *((skip, y) if swap else (y, skip))))

    y = net.activate(activation, layer("x", (3, widths[0]), 7, 2))
    y = net.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = widths[0]
    for index, width in enumerate(widths):
        y = block(y, before, width, 1 if index == 0 else 2)
        y = block(y, width, width, 1)
        before = width
    logits = _head(net, y, head, before)
    return net.model(
        net.node(tail, logits, axis=1) if tail else logits, ["N", 3, *size], classes=10, opset=opset
    )


def _head(net: Network, y: str, head: str, width: int) -> str:
    pool, shape, form = head.split("-", 2)
    if pool == "gap":
        y = net.node("GlobalAveragePool", y)
    else:
        y = net.node(
            "ReduceMean",
            y,
            net.constant("axes", np.array([-2, -1])),
            keepdims=int(pool == "meankeep"),
        )
    if shape == "flatten":
        y = net.node("Flatten", y)
    elif shape == "reshape":
        y = net.node("Reshape", y, net.constant("shape", np.array([-1, width])))
    elif shape == "squeeze":
        y = net.node("Squeeze", y, net.constant("squeezed", np.array([2, 3])))
    return net.dense(y, (width, 10), form=form)


def with_rounding() -> onnx.ModelProto:
    """A classifier that the compiler refuses: it rounds its features."""
    net = Network(0)
    y = net.node("Round", net.activate("Relu", net.conv("x", (3, 6))))
    flat = net.node("Flatten", net.node("GlobalAveragePool", y))
    return net.model(net.dense(flat, (6, 4)), ["N", 3, 24, 24], classes=4)


def picture(model: onnx.ModelProto, batch: int = 2, seed: int = 0) -> NDArray[np.float32]:
    """A random signed input of the model's size."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return (
        np.random.default_rng(seed)
        .normal(size=(batch, *(d.dim_value for d in dims[1:])))
        .astype(np.float32)
    )


def transformer(
    form: str = "split",
    *,
    batch: int | str = "N",
    width: int = 6,
    heads: int = 2,
    seed: int = 0,
) -> onnx.ModelProto:
    """A vision transformer of one block on 6×4 pixels: patches, class token, attention, GELU.

    `form` says where the batch is in attention: ``split`` (3, N, heads, T, d) as timm writes it,
    ``merged`` (T, N·heads, d) as torch's MultiheadAttention, ``windows`` (N·windows, T, C) as Swin,
    with a position bias for every head and a mask for every window, but without a class token.
    """
    net = Network(seed)
    depth, patches = width // heads, 6
    y = net.conv("x", (3, width), (2, 2), strides=[2, 2], name="patches")
    y = _shaped(net, y, 0, width, patches)
    y = net.node("Transpose", y, perm=[0, 2, 1])
    if form != "windows":
        token = net.constant("token", net.rng.normal(size=(1, 1, width)).astype(np.float32))
        size = net.node("Shape", "x", start=0, end=1)
        shape = net.node("Concat", size, net.constant("rest", np.array([1, width])), axis=0)
        y = net.node("Concat", net.node("Expand", token, shape), y, axis=1, name="with token")
        patches += 1
    position = net.rng.normal(size=(1, patches, width)).astype(np.float32)
    y = net.node("Add", y, net.constant("position", position), name="positions")
    z = _attention_of(net, form, _normed(net, y, width), (patches, width, heads, depth))
    y = net.node("Add", net.dense(z, (width, width), form="matmul"), y)
    z = net.activate("Gelu", net.dense(_normed(net, y, width), (width, 8), form="matmul"))
    y = net.node("Add", y, net.dense(z, (8, width), form="matmul"))
    y = _normed(net, y, width)
    if form == "windows":
        y = net.node("ReduceMean", y, net.constant("mean", np.array([1])), keepdims=0)
    else:
        y = net.node("Gather", y, net.constant("first", np.array(0)), axis=1)
    return net.model(net.dense(y, (width, 3)), [batch, 3, 6, 4], classes=3)


def _shaped(net: Network, x: str, *shape: int) -> str:
    return net.node("Reshape", x, net.constant(f"shape{len(net.weights)}", np.array(shape)))


def _normed(net: Network, x: str, width: int) -> str:
    names = [
        net.constant(
            f"norm{len(net.weights)}.{k}", net.rng.normal(1, 0.3, width).astype(np.float32)
        )
        for k in "ab"
    ]
    return net.node("LayerNormalization", x, *names, axis=-1)


def _attention_of(net: Network, form: str, x: str, sizes: tuple[int, int, int, int]) -> str:
    """Self-attention of (N, T, C), heads merged again, without the projection behind it."""
    tokens, width, heads, depth = sizes
    windows = 1
    if form == "windows":
        windows, tokens = 2, tokens // 2
        x = _shaped(net, x, -1, tokens, width)
    if form == "merged":
        x = net.node("Transpose", x, perm=[1, 0, 2])
    y = net.dense(x, (width, 3 * width), form="matmul")
    if form == "merged":
        y = _shaped(net, y, tokens, -1, 3, width)
        y = net.node("Transpose", y, perm=[2, 0, 1, 3])
        parts = [
            net.node("Gather", y, net.constant(f"part{i}", np.array(i)), axis=0) for i in range(3)
        ]
        query, key, value = (
            net.node("Transpose", _shaped(net, part, tokens, -1, depth), perm=[1, 0, 2])
            for part in parts
        )
        turn, back = [0, 2, 1], [1, 0, 2]
    else:
        y = _shaped(net, y, -1, tokens, 3, heads, depth)
        y = net.node("Transpose", y, perm=[2, 0, 3, 1, 4])
        first = net.node("Split", y, axis=0, num_outputs=3, outputs=3)
        axis = net.constant("part", np.array([0]))
        query, key, value = (
            net.node("Squeeze", name, axis) for name in (first, f"{first}1", f"{first}2")
        )
        turn, back = [0, 1, 3, 2], [0, 2, 1, 3]
    scale = net.constant("scale", np.float32(depth**-0.5))
    scores = net.node(
        "MatMul", net.node("Mul", query, scale), net.node("Transpose", key, perm=turn)
    )
    if form == "windows":
        bias = net.rng.normal(size=(1, heads, tokens, tokens)).astype(np.float32)
        scores = net.node("Add", scores, net.constant("bias", bias))
        mask = net.rng.choice([0.0, -5.0], (1, windows, 1, tokens, tokens)).astype(np.float32)
        scores = _shaped(net, scores, -1, windows, heads, tokens, tokens)
        scores = net.node("Add", scores, net.constant("mask", mask))
        scores = _shaped(net, scores, -1, heads, tokens, tokens)
    weights = net.node("Softmax", scores, axis=-1, name="attention")
    y = net.node("Transpose", net.node("MatMul", weights, value, name="mixed"), perm=back)
    if form == "merged":
        return net.node("Transpose", _shaped(net, y, tokens, -1, width), perm=[1, 0, 2])
    return _shaped(net, y, -1, tokens * windows, width)
