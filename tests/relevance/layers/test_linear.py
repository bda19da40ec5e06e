"""Linear layers as rules see them: `vjp` is the transpose of `forward` with any weight, and what is
known of signs is handed on, so that rules need no node for parts that are known to be zero.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from float64 import run_float64
from networks import Network, resnet, single_layer, transformer

from lrp_onnx.compiler import plan_model
from lrp_onnx.errors import RuleError
from lrp_onnx.plan.kinds import Role, Step
from lrp_onnx.relevance.graph.append import append
from lrp_onnx.relevance.graph.builder import NEGATIVE, POSITIVE, UNKNOWN, Builder, Sign, Value
from lrp_onnx.relevance.graph.emission import EMISSIONS
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import BlockLayer, Node
from lrp_onnx.relevance.layers.linear import AveragePoolLayer
from lrp_onnx.relevance.layers.structural import NormalizationLayer
from lrp_onnx.relevance.layers.table import layer_of
from lrp_onnx.relevance.outputs import tensor_names

Save = Callable[[onnx.ModelProto], Path]
SHAPE = (2, 4, 6, 5)
LAYERS: dict[str, dict[str, Any]] = {
    "conv": {"layer": "conv", "pads": [1, 1, 1, 1]},
    "conv-strided": {"layer": "conv", "strides": [2, 2], "pads": [0, 1, 1, 1]},
    "conv-grouped": {"layer": "conv", "group": 2},
    "dense": {"layer": "dense"},
    "dense-scaled": {"layer": "dense", "form": "gemm-scaled"},
    "dense-matmul": {"layer": "dense", "form": "matmul"},
    "linear": {"layer": "linear"},
    "matrices from the left": {"layer": "matrices", "left": True},
    "matrices from the right": {"layer": "matrices", "left": False},
    "deconv": {"layer": "deconv", "strides": [2, 1], "pads": [1, 0, 0, 1]},
    "average": {"layer": "average", "kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
    "global": {"layer": "global"},
    "max": {"layer": "max", "kernel_shape": [2, 2]},
    "batch-norm": {"layer": "batch_norm"},
}


def enlarged(shape: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    """``x → Resize → Flatten``, twice as large along the first axis, three times along others."""
    net = Network(0)
    scales = [1, 1, 2, *(3 for _ in shape[3:])]
    y = net.node(
        "Resize", "x", "", net.constant("scales", np.array(scales, np.float32)), **attributes
    )
    return net.model(net.node("Flatten", y), ["N", *shape[1:]])


def averaged(axes: list[int], *, keepdims: int) -> onnx.ModelProto:
    net = Network(0)
    mean = net.node("ReduceMean", "x", net.constant("axes", np.array(axes)), keepdims=keepdims)
    return net.model(net.node("Flatten", mean), ["N", 3, 4, 5])


def static(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same for two pictures alone."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    return model


NEAREST = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}
SHAPES: dict[str, tuple[int, ...]] = {
    "signal": (2, 3, 5),
    "picture": (2, 3, 4, 2),
    "volume": (2, 3, 2, 3, 4),
}
MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    **{
        name: lambda choices=choices: single_layer(**choices, shape=SHAPE, rectified=False)
        for name, choices in LAYERS.items()
    },
    "means without their axes": lambda: averaged([2, 3], keepdims=0),
    "means of rows": lambda: averaged([3], keepdims=1),
    "means over channels": lambda: averaged([1], keepdims=0),
    "static batch": lambda: static(single_layer("conv", SHAPE, rectified=False)),
    **{
        f"{name}, {mode}": lambda shape=shape, choices=choices: enlarged(shape, **choices)
        for name, shape in SHAPES.items()
        for mode, choices in (("nearest", NEAREST), ("linear", {"mode": "linear"}))
    },
}


def weight_of(layer: Node[Any], sign: Sign) -> Value:
    """A weight of that sign; the number 1 or −1 where the layer's is a number."""
    weight = layer.weight
    if weight.number is None:
        return Value(layer.builder, weight.name, sign)
    return layer.builder.value(1.0 if sign == POSITIVE else -1.0)


def faults(step: Step, emission: str) -> list[str]:
    """Where a sign is lost, one line each."""
    layer = layer_of(Builder(emission=EMISSIONS[emission]), step)
    name, found = f"{step.op} {step.name}", []
    for s, w in ((s, w) for s in (POSITIVE, NEGATIVE) for w in (POSITIVE, NEGATIVE)):
        value, weight = Value(layer.builder, "v", s), weight_of(layer, w)
        try:
            made = layer.forward(value, weight)
        except RuleError:  # not linear
            continue
        if made.sign != s * w:
            found.append(f"{name}: forward of {s}, {w} is {made.sign}")
        for b in (POSITIVE, NEGATIVE):
            bias = Value(layer.builder, "b", b)
            made = layer.forward(value, weight, bias)
            if made.sign != s * w + b:
                found.append(f"{name}: forward of {s}, {w} and a bias {b} is {made.sign}")
        back = layer.vjp(value, weight)
        if back.sign != s * w:
            found.append(f"{name}: vjp of {s}, {w} is {back.sign}")
    for s in (POSITIVE, NEGATIVE, UNKNOWN):
        if step.kind.moves:
            found += [
                f"{name}: vjps of {s} is {back.sign}"
                for back in layer.vjps(Value(layer.builder, "v", s))
                if back.sign != s
            ]
    return found


def layers(path: Path, emission: str) -> tuple[onnx.ModelProto, list[Node[Any]]]:
    """The normalised model, and its steps as layers, each with a builder of its own."""
    graph, plan, _ = plan_model(path)
    forward = ir.to_proto(graph.model)
    names, form = tensor_names(forward), EMISSIONS[emission]
    return forward, [layer_of(Builder(taken=names, emission=form), step) for step in plan.steps]


def in_one(
    forward: onnx.ModelProto, layer: Node[Any], outputs: dict[str, Value], *given: str
) -> onnx.ModelProto:
    """The model with further inputs, float32 of any shape, and with `outputs`."""
    for name, value in outputs.items():
        layer.builder.node("Identity", value, output=name)
    model = append(layer.builder, forward, inputs={}, defaults={}, outputs={})
    for name in given:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [])
        )
    del model.graph.output[:]
    for name in outputs:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [])
        )
    return model


@pytest.mark.parametrize("emission", ["cpu", "portable"])
@pytest.mark.parametrize("name", MODELS)
def test_the_vjp_is_the_transpose_of_forward(name: str, emission: str, saved: Save) -> None:
    """``⟨s, forward(x, 3 W)⟩ = ⟨vjp(s, 3 W), x⟩``, three times what it is with W."""
    model = MODELS[name]()
    shape = (2, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]))
    forward, found = layers(saved(model), emission)
    rng, tried = np.random.default_rng(0), 0
    for layer in found:
        v, s = Value(layer.builder, "v"), Value(layer.builder, "s")
        try:
            made = {
                f"{kind}{factor}": function(value, layer.weight * factor)
                for factor in (1.0, 3.0)
                for kind, function, value in (("y", layer.forward, v), ("x", layer.vjp, s))
            }
        except RuleError:
            continue
        tried += 1
        model = in_one(forward, layer, made, "v", "s")
        shapes = ((2, *one[1:]) for one in (layer.step.input_shape, layer.step.output_shape))
        x, back = (rng.normal(size=shape) for shape in shapes)  # type: ignore[arg-type]
        feeds = {"x": np.zeros(shape), "v": x, "s": back}
        of = run_float64(model, feeds)
        assert of["x1.0"].shape == x.shape and of["y1.0"].shape == back.shape
        assert np.vdot(back, of["y1.0"]) == pytest.approx(np.vdot(of["x1.0"], x), rel=1e-5)
        for kind in "xy":
            np.testing.assert_allclose(of[f"{kind}3.0"], 3 * of[f"{kind}1.0"], rtol=1e-5)
    assert tried


def scaled(form: str) -> onnx.ModelProto:
    """A layer and a batch normalisation, which is folded into its weight and bias."""
    net = Network(3)
    if form.startswith("conv"):
        y = net.conv("x", (4, 6), (3, 2), group=2 if form == "conv-grouped" else 1)
    elif form == "deconv":
        y = net.deconv("x", (4, 6), (3, 2), group=2)
    else:
        y = net.dense(net.node("Flatten", "x"), (60, 6), form=form)
    return net.model(net.node("Flatten", net.batch_norm(y, 6)), ["N", 4, 3, 5])


SCALED = ("conv", "conv-grouped", "deconv", "gemm", "gemm-scaled", "matmul")


@pytest.mark.parametrize("name", [*MODELS, *SCALED])
def test_forward_is_what_the_file_computes(name: str, saved: Save) -> None:
    """With the layer's weight and bias; without a bias it is that less the bias."""
    model = MODELS[name]() if name in MODELS else scaled(name)
    shape = (2, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]))
    forward, found = layers(saved(model), "cpu")
    x, tried = np.random.default_rng(1).normal(size=shape), 0
    for layer in found:
        try:
            made = {
                "with": layer.forward(layer.input, layer.weight, layer.bias),
                "without": layer.forward(layer.input, layer.weight),
                "bias": layer.bias,
                "y": layer.output,
            }
        except RuleError:
            continue
        tried += 1
        of = run_float64(in_one(forward, layer, made), {"x": x})
        np.testing.assert_allclose(of["with"], of["y"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(of["without"] + of["bias"], of["y"], rtol=1e-5, atol=1e-6)
    assert tried


@pytest.mark.parametrize("emission", ["cpu", "portable"])
@pytest.mark.parametrize("name", MODELS)
def test_signs_of_single_layers(name: str, emission: str, saved: Save) -> None:
    _, plan, _ = plan_model(saved(MODELS[name]()))
    lost = [fault for step in plan.steps for fault in faults(step, emission)]
    assert not lost, "\n".join(lost)


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet": lambda: resnet("bottleneck", gate="Sigmoid"),
    "transformer": lambda: transformer("split"),
    "merged transformer": lambda: transformer("merged"),
}


def test_the_operands_of_all_but_sums_are_their_inputs(saved: Save) -> None:
    _, found = layers(saved(resnet("basic")), "portable")
    for layer in found:
        assert layer.operands(Relevance(Value(layer.builder, "r"))) == layer.inputs


def test_a_deviation_is_not_negative(saved: Save) -> None:
    _, found = layers(saved(transformer("split")), "cpu")
    norms = [layer for layer in found if isinstance(layer, NormalizationLayer)]
    assert norms
    for layer in norms:
        assert layer._statistics(layer.input.reshape(-1, *layer.kind.view))[1].sign == POSITIVE


def test_an_average_in_place_of_a_maximum_leaves_the_axes_that_it_leaves(saved: Save) -> None:
    """The time of films: kernel and stride 1 there."""
    net = Network(0)
    y = net.node("MaxPool", "x", kernel_shape=[1, 2, 2], strides=[1, 2, 2])
    path = saved(net.model(net.node("Flatten", y), ["N", 2, 3, 4, 6]))
    _, found = layers(path, "cpu")
    average = found[0].as_average(2)
    assert isinstance(average, AveragePoolLayer)
    assert average.kind.kernel == average.kind.strides == (1, 2, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_signs_in_every_step_of_a_network(name: str, saved: Save) -> None:
    _, plan, _ = plan_model(saved(NETWORKS[name]()))
    lost = [fault for step in plan.steps for fault in faults(step, "cpu")]
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize("name", SHAPES)
def test_an_enlargement_routes_where_it_copies(name: str, saved: Save) -> None:
    """Every output element then equals one input element."""
    for mode, routes in (("nearest", True), ("linear", False)):
        _, found = layers(saved(MODELS[f"{name}, {mode}"]()), "cpu")
        assert found[0].routes is routes, mode


def test_a_cut_and_its_transpose_take_a_node(saved: Save) -> None:
    """Where nothing is left out between: one Pad, and nothing around every second element."""
    for steps, expected in ((1, ["Pad"]), (2, ["Reshape", "Pad", "Reshape", "Pad"])):
        net = Network(0)
        bounds = {"from": [1, 0], "to": [5, 3], "axes": [2, 3], "steps": [steps, 1]}
        given = [net.constant(name, np.array(values)) for name, values in bounds.items()]
        y = net.node("Flatten", net.node("Slice", "x", *given))
        _, found = layers(saved(net.model(y, ["N", 2, 6, 5])), "cpu")
        found[0].vjp(Value(found[0].builder, "s"), found[0].weight)
        assert [node.op for node in found[0].builder.nodes] == expected


def test_a_block_is_a_layer_of_one_input() -> None:
    """Which is not linear: rules that need more than its vjp say so."""
    builder = Builder()
    x, y, s = (Value(builder, name) for name in "xys")
    block = BlockLayer(builder, x, y, lambda cotangent: cotangent * 2.0)
    assert block.inputs == block.operands(Relevance(s)) == (x,) and block.roles == (Role.MAIN,)
    assert block.weight.number == 1.0 and block.bias.number == 0.0
    assert not block.routes and not block.rectifies
    doubled = (s * 2.0).name
    assert block.vjp(s, block.weight).name == doubled and [v.name for v in block.vjps(s)] == [
        doubled
    ]
    refused: list[Callable[[], object]] = [
        lambda: block.forward(x, y),
        lambda: block.denominator([(x, y)], y, 0.0, signed=True),
        lambda: block.fill([1.0]),
        lambda: block.as_average(2),
        block.with_fixed_deviation,
        block.subsampled,
    ]
    for call in refused:
        with pytest.raises(RuleError, match="a residual block"):
            call()
