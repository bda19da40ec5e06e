"""Layers without weights: max pooling, ReLU, joins, reshapes."""

from __future__ import annotations

from lrp_onnx import plan
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance import convolution
from lrp_onnx.relevance.builder import Value
from lrp_onnx.relevance.layer import Node


class MaxPoolLayer(Node):
    """Max pooling; vjp gives everything to the first maximum of a window."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        return True

    def as_average(self, kernel: int) -> tuple[plan.AveragePool, tuple[int, ...]]:
        pool = self.step.layer
        assert isinstance(pool, plan.MaxPool)
        pair, none = (kernel, kernel), (0, 0, 0, 0)
        average = (
            plan.AveragePool(pair, pair, none, True)
            if kernel
            else plan.AveragePool(pool.kernel, pool.strides, pool.pads, False)
        )
        size = convolution.pooled_size(average, self._sizes())
        if size != self.step.output_shape[2:] or (not kernel and pool.dilations != (1, 1)):
            raise RuleError(
                f"MaxPool '{self.step.name}' gives {self.step.output_shape[2:]}, an average pooling of kernel "
                f"{average.kernel} {size}: "
                "give it another rule, for example winner-take-all or average(kernel=0)"
            )
        return average, self._sizes()

    def vjp(self, s: Value, w: Value) -> Value:
        pool = self.step.layer
        assert isinstance(pool, plan.MaxPool)
        attributes = {
            "kernel_shape": pool.kernel,
            "strides": pool.strides,
            "pads": pool.pads,
            "dilations": pool.dilations,
            "ceil_mode": int(pool.ceil_mode),
        }
        _, indices = self.builder.nodes_of("MaxPool", self.input, outputs=2, attributes=attributes)
        zeros = self.builder.node("ConstantOfShape", self.builder.node("Shape", self.input)).reshape(-1)
        routed = self.builder.node(
            "ScatterElements",
            zeros,
            indices.reshape(-1),
            s.reshape(-1),
            attributes={"axis": 0, "reduction": "add"},
            signs=(s.nonnegative, s.nonpositive),
        )
        return routed.reshape(-1, *self._sizes()[1:])


class ReluLayer(Node):
    """``max(x, 0)``."""

    __slots__ = ()

    @property
    def rectifies(self) -> bool:
        return True

    def vjp(self, s: Value, w: Value) -> Value:
        return self.output.where_positive(s)


class JoinLayer(Node):
    """Sum of branches; its vjp is the same for every operand."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        return s


class ReshapeLayer(Node):
    """The same elements in another shape."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        return True

    def forward(self, x: Value, w: Value) -> Value:
        return x.reshape(-1, *(size for size in self.step.output_shape[1:] if size is not None)) * w

    def vjp(self, s: Value, w: Value) -> Value:
        return s.reshape(-1, *self._sizes()[1:]) * w
