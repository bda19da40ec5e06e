"""The table of layers: every kind of step → how rules see it."""

from __future__ import annotations

from collections.abc import Mapping

from lrp_onnx import kinds, plan
from lrp_onnx.relevance.activations import ClipLayer, HardSigmoidLayer, LeakyReluLayer, ReluLayer, SigmoidLayer
from lrp_onnx.relevance.builder import Builder
from lrp_onnx.relevance.layer import Node
from lrp_onnx.relevance.linear import AffineLayer, AveragePoolLayer, ConvolutionLayer, DenseLayer, GlobalAverageLayer
from lrp_onnx.relevance.structural import (
    JoinLayer,
    MaxPoolLayer,
    ProductLayer,
    ReshapeLayer,
    SubsampleLayer,
    TransposeLayer,
    ZeroPadLayer,
)

LAYERS: Mapping[type[kinds.Layer], type[Node]] = {
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
    kinds.Reshape: ReshapeLayer,
    kinds.Subsample: SubsampleLayer,
    kinds.ZeroPad: ZeroPadLayer,
    kinds.Transpose: TransposeLayer,
}
"""Every kind of step → how rules see it."""


def layer_of(builder: Builder, step: plan.Step, nonnegative: frozenset[str]) -> Node:
    """A step as rules see it; `nonnegative` names the tensors known to be ≥ 0."""
    inputs = tuple(builder.known(name, nonnegative=name in nonnegative) for name in step.inputs)
    return LAYERS[type(step.layer)](
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
        | kinds.Subsample
        | kinds.ZeroPad
        | kinds.Transpose
        | kinds.Product
    )
    for step in of.steps:
        bounded = isinstance(step.layer, kinds.Relu | kinds.Sigmoid | kinds.HardSigmoid) or (
            isinstance(step.layer, kinds.Clip) and step.layer.low >= 0
        )
        if bounded or (isinstance(step.layer, keeps) and found.issuperset(step.inputs)):
            found.add(step.output)
    return frozenset(found)
