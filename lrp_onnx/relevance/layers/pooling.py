"""Max pooling: hands back to the first maximum of every window."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from lrp_onnx.errors import RuleError
from lrp_onnx.plan import kinds
from lrp_onnx.relevance.graph.builder import POSITIVE, Value
from lrp_onnx.relevance.layers import convolution
from lrp_onnx.relevance.layers.layer import Layer, Node
from lrp_onnx.relevance.layers.linear import AveragePoolLayer, GlobalAverageLayer

FLOAT = 1
"""ONNX's number for float32."""
LOWEST = -3.4e38
"""Below every activation: what stands around a picture where windows reach over its border."""


class GlobalMaxLayer(Node[kinds.GlobalMax]):
    """The largest along some axes; vjp shares evenly among elements that are equally large."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        return True

    def as_average(self, kernel: int) -> Layer:
        average = kinds.GlobalAverage(self.kind.axes, self.kind.keepdims)
        return GlobalAverageLayer(self.builder, self.step, average, self.inputs, self.output)

    def vjp(self, s: Value, w: Value) -> Value:
        axes, builder = self.kind.axes, self.builder
        kept = [1 if axis in axes else n for axis, n in enumerate(self._sizes()) if axis]
        if not self.kind.keepdims:
            s, largest = s.reshape(-1, *kept), self.output.reshape(-1, *kept)
        else:
            largest = self.output
        equal = builder.node("Equal", self.input, largest)
        hit = builder.node("Cast", equal, attributes={"to": FLOAT}, sign=POSITIVE)
        count = builder.node(
            "ReduceSum", hit, builder.integers(axes), attributes={"keepdims": 1}, sign=POSITIVE
        )
        return s / count * hit


class MaxPoolLayer(Node[kinds.MaxPool]):
    """Max pooling; vjp gives everything to the first maximum of a window."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        return True

    def as_average(self, kernel: int) -> Layer:
        pool, rank = self.kind, len(self.kind.kernel)
        sides, none = (kernel,) * rank, (0,) * (2 * rank)
        average = (
            kinds.AveragePool(sides, sides, none, True)
            if kernel
            else kinds.AveragePool(pool.kernel, pool.strides, pool.pads, False)
        )
        size = convolution.pooled_size(average, self._sizes())
        if size != self.step.output_shape[2:] or (not kernel and set(pool.dilations) != {1}):
            raise RuleError(
                f"MaxPool '{self.step.name}' gives {self.step.output_shape[2:]}, an average "
                f"pooling of kernel {average.kernel} {size}: give it another rule, for example "
                "winner-take-all or average(kernel=0)"
            )
        return AveragePoolLayer(self.builder, self.step, average, self.inputs, self.output)

    def vjp(self, s: Value, w: Value) -> Value:
        return self._by_index(s) if self.builder.emission.indexed_pools else self._by_comparison(s)

    def _by_index(self, s: Value) -> Value:
        pool = self.kind
        attributes = {
            "kernel_shape": pool.kernel,
            "strides": pool.strides,
            "pads": pool.pads,
            "dilations": pool.dilations,
            "ceil_mode": int(pool.ceil_mode),
        }
        _, indices = self.builder.nodes_of("MaxPool", self.input, outputs=2, attributes=attributes)
        if self.builder.batch is None:
            shape = self.builder.node("Shape", self.input)
            zeros, rows, places = (
                self._zeros(shape).reshape(-1),
                s.reshape(-1),
                indices.reshape(-1),
            )
        else:  # one picture's indices serve every row of relevance
            rows = s.reshape(-1, prod(self._pooled))
            places = self.builder.node(
                "Expand", indices.reshape(1, -1), self.builder.node("Shape", rows)
            )
            many = self.builder.node(
                "Gather", self.builder.node("Shape", s), self.builder.integers((0,))
            )
            size = self.builder.integers((prod(self._sizes()),))
            zeros = self._zeros(self.builder.concat([many, size], axis=0))
        routed = self.builder.node(
            "ScatterElements",
            zeros,
            places,
            rows,
            attributes={"axis": 0 if self.builder.batch is None else 1, "reduction": "add"},
            sign=s.sign,
        )
        return routed.reshape(-1, *self._sizes()[1:])

    def _zeros(self, shape: Value) -> Value:
        """Zeros of a computed shape; the value is stated, as some runtimes have no default."""
        return self.builder.node(
            "ConstantOfShape", shape, attributes={"value": np.zeros(1, np.float32)}
        )

    def _by_comparison(self, s: Value) -> Value:
        """For every place in the window, row by row: 1 where
        it equals the maximum and no place before it does.
        """
        pooled = self._pooled[1:]
        window, builder = self._window(), self.builder
        places = list(product(*map(range, window.kernel)))
        padded = self._padded(window)
        free, backs = builder.value(1.0), []
        for place in places:
            first = [at * step for at, step in zip(place, window.dilations, strict=True)]
            last = [
                at + (count - 1) * stride + 1
                for at, count, stride in zip(first, pooled, window.strides, strict=True)
            ]
            ranges = (first, last, window.axes, window.strides)
            part = builder.node("Slice", padded, *map(builder.integers, ranges))
            equal = builder.node("Equal", part, self.output)
            hit = builder.node("Cast", equal, attributes={"to": FLOAT}, sign=POSITIVE) * free
            free = free - hit
            backs.append((s * hit).reshape(-1, 1, *pooled))
        # Channels are rows of the batch: onnx2tf and ONNX's evaluator get grouped ones wrong.
        one_hot = np.eye(len(places)).reshape(-1, 1, *window.kernel)
        routed = convolution.conv_transpose(
            builder.concat(backs, axis=1), builder.array(one_hot), window
        )
        return routed.reshape(-1, *self._sizes()[1:])

    @property
    def _pooled(self) -> tuple[int, ...]:
        """(C, H', W'), or (C, …) with as many axes as the input."""
        return tuple(size for size in self.step.output_shape[1:] if size is not None)

    def _window(self) -> convolution.Geometry:
        """The windows as those of a convolution of one channel; ceil_mode as more padding at the
        end.
        """
        pool = self.kind
        sizes, pooled, pads = self._sizes()[2:], self._pooled[1:], list(pool.pads)
        rank = len(sizes)
        for i in range(rank):
            span = (pooled[i] - 1) * pool.strides[i] + pool.dilations[i] * (pool.kernel[i] - 1) + 1
            pads[i + rank] = max(pads[i + rank], span - pads[i] - sizes[i])
        return convolution.Geometry(
            pool.kernel,
            pool.strides,
            tuple(pads),
            pool.dilations,
            1,
            prod(pool.kernel),
            (1, *sizes),
        )

    def _padded(self, window: convolution.Geometry) -> Value:
        if not any(window.pads):
            return self.input
        pads = self.builder.integers((0, 0, *window.before, 0, 0, *window.after))
        return self.builder.node("Pad", self.input, pads, self.builder.value(LOWEST))
