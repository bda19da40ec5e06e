"""The table of layers: every kind of step → how rules see it."""

from __future__ import annotations

from collections.abc import Mapping

from lrp_onnx.plan import kinds, plan
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.layers.activations import (
    ClipLayer,
    HardSigmoidLayer,
    LeakyReluLayer,
    PReluLayer,
    ReluLayer,
    SigmoidLayer,
    SmoothLayer,
)
from lrp_onnx.relevance.layers.layer import Node
from lrp_onnx.relevance.layers.linear import (
    AffineLayer,
    AveragePoolLayer,
    ConvolutionLayer,
    DenseLayer,
    GlobalAverageLayer,
    ResampleLayer,
)
from lrp_onnx.relevance.layers.pooling import MaxPoolLayer
from lrp_onnx.relevance.layers.structural import (
    ConcatLayer,
    ExpandLayer,
    JoinLayer,
    NormalizationLayer,
    ProductLayer,
    ReshapeLayer,
    SoftmaxLayer,
    SubsampleLayer,
    TransposeLayer,
    ZeroPadLayer,
)


class ComposedLayer(Node):
    """An activation written out in several nodes; its derivative is the chain rule over them."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        composed = self.step.kind
        assert isinstance(composed, kinds.Composed)
        cotangents = {self.step.output: s}
        for step in reversed(composed.steps):
            layer = layer_of(self.builder, step, frozenset())
            for name, back in zip(step.inputs, layer.vjps(cotangents[step.output]), strict=True):
                cotangents[name] = cotangents[name] + back if name in cotangents else back
        return cotangents[self.step.inputs[0]]


LAYERS: Mapping[type[kinds.Kind], type[Node]] = {
    kinds.Convolution: ConvolutionLayer,
    kinds.Dense: DenseLayer,
    kinds.Affine: AffineLayer,
    kinds.AveragePool: AveragePoolLayer,
    kinds.GlobalAverage: GlobalAverageLayer,
    kinds.MaxPool: MaxPoolLayer,
    kinds.Relu: ReluLayer,
    kinds.Clip: ClipLayer,
    kinds.LeakyRelu: LeakyReluLayer,
    kinds.Sigmoid: SigmoidLayer,
    kinds.HardSigmoid: HardSigmoidLayer,
    kinds.Product: ProductLayer,
    kinds.Join: JoinLayer,
    kinds.Concat: ConcatLayer,
    kinds.Expand: ExpandLayer,
    kinds.Resample: ResampleLayer,
    kinds.Normalization: NormalizationLayer,
    kinds.Softmax: SoftmaxLayer,
    kinds.PRelu: PReluLayer,
    kinds.Smooth: SmoothLayer,
    kinds.Composed: ComposedLayer,
    kinds.Reshape: ReshapeLayer,
    kinds.Subsample: SubsampleLayer,
    kinds.ZeroPad: ZeroPadLayer,
    kinds.Transpose: TransposeLayer,
}
"""Every kind of step → how rules see it."""


def layer_of(builder: Builder, step: plan.Step, nonnegative: frozenset[str]) -> Node:
    """A step as rules see it; `nonnegative` names the tensors known to be ≥ 0."""
    inputs = tuple(builder.known(name, nonnegative=name in nonnegative) for name in step.inputs)
    return LAYERS[type(step.kind)](
        builder, step, inputs, builder.known(step.output, nonnegative=step.output in nonnegative)
    )


def nonnegative_tensors(of: plan.Plan) -> frozenset[str]:
    """Tensors that cannot be negative: behind a ReLU, and pooled, averaged, added or reshaped from such."""
    found: set[str] = set()
    keeps = (
        kinds.MaxPool
        | kinds.AveragePool
        | kinds.GlobalAverage
        | kinds.Reshape
        | kinds.Join
        | kinds.Concat
        | kinds.Expand
        | kinds.Resample
        | kinds.Subsample
        | kinds.ZeroPad
        | kinds.Transpose
        | kinds.Product
    )
    for step in of.steps:
        bounded = isinstance(step.kind, kinds.Relu | kinds.Sigmoid | kinds.HardSigmoid | kinds.Softmax) or (
            isinstance(step.kind, kinds.Clip) and step.kind.low >= 0
        )
        if bounded or (isinstance(step.kind, keeps) and found.issuperset(step.inputs)):
            found.add(step.output)
    return frozenset(found)
