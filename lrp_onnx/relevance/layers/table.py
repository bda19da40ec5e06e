"""The table of layers: every kind of step → how rules see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step
from lrp_onnx.plan.plan import Plan
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.layers.activations import ActivationLayer
from lrp_onnx.relevance.layers.attention import (
    MatricesLayer,
    MatrixProductLayer,
    PickLayer,
    SelectLayer,
)
from lrp_onnx.relevance.layers.layer import Node
from lrp_onnx.relevance.layers.linear import (
    AffineLayer,
    AveragePoolLayer,
    ConvolutionLayer,
    DeconvolutionLayer,
    DenseLayer,
    GlobalAverageLayer,
    GlobalNormLayer,
    LinearLayer,
    ResampleLayer,
)
from lrp_onnx.relevance.layers.pooling import GlobalMaxLayer, MaxPoolLayer
from lrp_onnx.relevance.layers.pull_back import pull_back
from lrp_onnx.relevance.layers.structural import (
    ConcatLayer,
    ExpandLayer,
    JoinLayer,
    LocalResponseLayer,
    NormalizationLayer,
    ProductLayer,
    QuotientLayer,
    ReshapeLayer,
    SoftmaxLayer,
    SubsampleLayer,
    TransposeLayer,
    ZeroPadLayer,
)


class ComposedLayer(Node[kinds.Composed]):
    """An activation written out in several nodes; its derivative is the chain rule over them."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        cotangents = {self.step.output: s}
        pull_back(self.kind.steps, cotangents, lambda step, c: layer_of(self.builder, step).vjps(c))
        return cotangents[self.step.inputs[0]]


LAYERS: Mapping[type[kinds.Kind], type[Node[Any]]] = {
    kinds.Convolution: ConvolutionLayer,
    kinds.Deconvolution: DeconvolutionLayer,
    kinds.Dense: DenseLayer,
    kinds.Linear: LinearLayer,
    kinds.Matrices: MatricesLayer,
    kinds.Affine: AffineLayer,
    kinds.AveragePool: AveragePoolLayer,
    kinds.GlobalAverage: GlobalAverageLayer,
    kinds.GlobalNorm: GlobalNormLayer,
    kinds.GlobalMax: GlobalMaxLayer,
    kinds.MaxPool: MaxPoolLayer,
    kinds.Activation: ActivationLayer,
    kinds.Product: ProductLayer,
    kinds.MatrixProduct: MatrixProductLayer,
    kinds.Quotient: QuotientLayer,
    kinds.Join: JoinLayer,
    kinds.Concat: ConcatLayer,
    kinds.Expand: ExpandLayer,
    kinds.Resample: ResampleLayer,
    kinds.Normalization: NormalizationLayer,
    kinds.LocalResponse: LocalResponseLayer,
    kinds.Softmax: SoftmaxLayer,
    kinds.Composed: ComposedLayer,
    kinds.Reshape: ReshapeLayer,
    kinds.Subsample: SubsampleLayer,
    kinds.Select: SelectLayer,
    kinds.Pick: PickLayer,
    kinds.ZeroPad: ZeroPadLayer,
    kinds.Transpose: TransposeLayer,
}
"""Every kind of step → how rules see it."""


def layer_of(builder: Builder, step: Step, nonnegative: frozenset[str] = frozenset()) -> Node[Any]:
    """A step as rules see it; `nonnegative` names the tensors known to be ≥ 0."""
    inputs = tuple(builder.known(name, nonnegative=name in nonnegative) for name in step.inputs)
    output = builder.known(step.output, nonnegative=step.output in nonnegative)
    return LAYERS[type(step.kind)](builder, step, step.kind, inputs, output)


def nonnegative_tensors(plan: Plan) -> frozenset[str]:
    """Tensors that cannot be negative: behind a ReLU, and
    pooled, averaged, added or reshaped from such.
    """
    names: set[str] = set()
    for step in plan.steps:
        if step.kind.nonnegative or (step.kind.keeps_signs and names.issuperset(step.inputs)):
            names.add(step.output)
    return frozenset(names)
