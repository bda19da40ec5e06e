"""The table of layers: every kind of step → how rules see it."""

from __future__ import annotations

from collections.abc import Mapping

from lrp_onnx import plan
from lrp_onnx.relevance.activations import ClipLayer, LeakyReluLayer, ReluLayer
from lrp_onnx.relevance.builder import Builder
from lrp_onnx.relevance.layer import Node
from lrp_onnx.relevance.linear import AffineLayer, AveragePoolLayer, ConvolutionLayer, DenseLayer, GlobalAverageLayer
from lrp_onnx.relevance.structural import (
    JoinLayer,
    MaxPoolLayer,
    ReshapeLayer,
    SubsampleLayer,
    TransposeLayer,
    ZeroPadLayer,
)

LAYERS: Mapping[type[plan.Layer], type[Node]] = {
    plan.Convolution: ConvolutionLayer,
    plan.Dense: DenseLayer,
    plan.Affine: AffineLayer,
    plan.AveragePool: AveragePoolLayer,
    plan.GlobalAverage: GlobalAverageLayer,
    plan.MaxPool: MaxPoolLayer,
    plan.Relu: ReluLayer,
    plan.Clip: ClipLayer,
    plan.LeakyRelu: LeakyReluLayer,
    plan.Join: JoinLayer,
    plan.Reshape: ReshapeLayer,
    plan.Subsample: SubsampleLayer,
    plan.ZeroPad: ZeroPadLayer,
    plan.Transpose: TransposeLayer,
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
        plan.MaxPool
        | plan.AveragePool
        | plan.GlobalAverage
        | plan.Reshape
        | plan.Join
        | plan.Subsample
        | plan.ZeroPad
        | plan.Transpose
    )
    for step in of.steps:
        bounded = isinstance(step.layer, plan.Relu) or (isinstance(step.layer, plan.Clip) and step.layer.low >= 0)
        if bounded or (isinstance(step.layer, keeps) and found.issuperset(step.inputs)):
            found.add(step.output)
    return frozenset(found)
