"""Recognition by data flow: roles, forks, folding, heads; and every fault named at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Network, resnet

from lrp_onnx.errors import LrpOnnxError, UnsupportedModelError
from lrp_onnx.model.heads.classifier import find_head
from lrp_onnx.model.load import load_model
from lrp_onnx.model.recognize import recognize
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role
from lrp_onnx.plan.plan import Block, Plan

Save = Callable[[onnx.ModelProto], Path]


def text_of(of: Plan) -> str:
    """A plan as a few lines, for golden comparison."""
    lines = []
    for item in of.items:
        if not isinstance(item, Block):
            lines.append(f"{item.op} {item.output_shape[1:]}")
            continue
        lines.append(f"{item.name} {item.shortcut}")
        for branch in item.branches:
            lines.append(f"  {branch.role}: {' '.join(step.op for step in branch.steps)}".rstrip())
        lines.append(f"  then: {' '.join(step.op for step in item.tail)}")
    return "\n".join(lines)


GOLDEN_BASIC = """\
Convolution (4, 9, 8)
Relu (4, 9, 8)
MaxPool (4, 5, 4)
block1 identity
  main: Convolution Relu Convolution
  identity:
  then: Relu
block2 identity
  main: Convolution Relu Convolution
  identity:
  then: Relu
block3 projection
  main: Convolution Relu Convolution
  projection: Convolution
  then: Relu
block4 identity
  main: Convolution Relu Convolution
  identity:
  then: Relu
GlobalAverage (8, 1, 1)
Reshape (8,)
Dense (10,)"""


def plan_of(path: Path, output: str | None = None, *, fold_batch_norm: bool = True) -> Plan:
    graph = load_model(path)
    head = find_head(graph, source="the model", output=output)
    return recognize(graph, head, fold_batch_norm=fold_batch_norm)


def read(model: onnx.ModelProto, saved: Save, **options: bool) -> Plan:
    return plan_of(saved(model), **options)


@pytest.mark.parametrize("opset", [7, 9, 13, 18, 20])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_basic_resnet(opset: int, batch_norm: bool, saved: Save) -> None:
    if opset == 7 and batch_norm:
        pytest.skip("the test's BatchNormalization is written for opset 9 and later")
    assert text_of(read(resnet("basic", batch_norm=batch_norm, opset=opset), saved)) == GOLDEN_BASIC


def test_operand_order_and_node_order_do_not_matter(saved: Save) -> None:
    model = resnet("bottleneck", swap=True)
    nodes = list(model.graph.node)
    np.random.default_rng(0).shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    found = read(model, saved)
    assert [b.shortcut for b in found.blocks] == [
        b.shortcut for b in read(resnet("bottleneck"), saved).blocks
    ]
    assert all(block.branches[-1].role is Role.MAIN for block in found.blocks)


def test_names_do_not_matter(saved: Save) -> None:
    model = resnet("basic", batch_norm=True)
    for node in model.graph.node:
        node.name = ""
    assert text_of(read(model, saved)) == GOLDEN_BASIC


def test_folding_is_a_choice(saved: Save) -> None:
    model = resnet("basic", batch_norm=True)
    folded, kept = read(model, saved), read(model, saved, fold_batch_norm=False)
    assert not any(isinstance(step.kind, kinds.Affine) for step in folded.steps)
    assert sum(isinstance(step.kind, kinds.Affine) for step in kept.steps) == 10
    assert "10 BatchNormalization nodes in the file" in folded.notes
    assert any("negative batch-norm scale" in note for note in folded.notes)


def test_folded_weights_are_the_products(saved: Save) -> None:
    net = Network(0)
    y = net.batch_norm(net.conv("x", (3, 4), name="conv"), 4)
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (4, 2)), ["N", 3, 8, 8]
    )
    conv = next(read(model, saved).steps)
    assert isinstance(conv.kind, kinds.Convolution)
    stored = {
        t.name.rpartition(".")[2]: onnx.numpy_helper.to_array(t).astype(np.float64)
        for t in model.graph.initializer
    }
    scale = stored["gamma"] / np.sqrt(stored["var"] + 1e-5)
    bias = next(
        onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "conv.bias"
    )
    assert np.allclose(conv.kind.weight.scale, scale)
    assert np.allclose(conv.kind.weight.bias, (bias - stored["mean"]) * scale + stored["beta"])
    assert conv.nodes == ("conv", "bn1") and conv.name == "conv"


def test_a_shared_convolution_output_is_not_folded(saved: Save) -> None:
    """The batch normalisation's input has another reader: folding
    would change what that one sees.
    """
    net = Network(0)
    y = net.conv("x", (3, 3), (1, 1), name="conv")
    total = net.node("Add", net.batch_norm(y, 3), y)
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", total)), (3, 2)), ["N", 3, 8, 8]
    )
    assert [step.op for step in read(model, saved).steps][:3] == ["Convolution", "Affine", "Join"]


@pytest.mark.parametrize(
    "head",
    [
        "gap-flatten-gemm",
        "gap-reshape-matmul",
        "gap-squeeze-gemm",
        "meankeep-flatten-gemm-scaled",
        "mean-none-gemm",
    ],
)
@pytest.mark.parametrize("tail", [None, "Softmax", "LogSoftmax"])
def test_heads_and_tails(head: str, tail: str | None, saved: Save) -> None:
    model = resnet("basic", head=head, tail=tail)
    found = read(model, saved)
    assert found.classes == 10 and len(found.blocks) == 4
    kinds = {None: "logits", "Softmax": "probabilities", "LogSoftmax": "log-probabilities"}
    assert list(found.outputs.values()) == [kinds[tail]]
    assert (found.logits == model.graph.output[0].name) == (tail is None)


def test_width_depth_and_real_exports(assets: Path) -> None:
    expected = {
        "tin20-resnet50.torchscript-op17-folded": 16,
        "tin10-resnet18w16.torchscript-op13-bn": 8,
        "tin10-resnet18w16.torchscript-op13-folded": 8,
        "tin10-resnet18w16.dynamo-op20": 8,
        "cifar10-resnet2b.torch1.8-op9": 2,
    }
    for name, blocks in expected.items():
        assert len(plan_of(assets / "models" / f"{name}.onnx").blocks) == blocks


def faults_of(model: onnx.ModelProto, saved: Save) -> tuple[str, ...]:
    with pytest.raises(UnsupportedModelError) as caught:
        read(model, saved)
    return caught.value.faults


def test_every_unsupported_node_is_named_at_once(saved: Save) -> None:
    net = Network(0)
    y = net.node("LpNormalization", net.conv("x", (3, 4)), name="gate")
    y = net.node("Hardmax", y, name="bend")
    y = net.node(
        "Conv",
        y,
        net.node(
            "Mul",
            net.constant("w", np.ones((4, 4, 1, 1), np.float32)),
            net.node("ReduceMean", "x", keepdims=0),
        ),
        name="odd",
    )
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (4, 2)),
        ["N", 3, 8, 8],
        opset=17,
    )
    faults = "\n".join(faults_of(model, saved))
    assert "LpNormalization 'gate'" in faults and "Hardmax 'bend'" in faults
    assert "Conv 'odd': its weight is not a constant" in faults


def test_training_mode_is_refused_with_the_remedy(saved: Save) -> None:
    model = resnet("basic", batch_norm=True, opset=15)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.name}.running_mean", f"{node.name}.running_var"])
    faults = faults_of(model, saved)
    assert len(faults) == 10 and all("model.eval()" in fault for fault in faults)


def test_two_inputs_are_refused(saved: Save) -> None:
    model = resnet()
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1])
    )
    assert "it has 2 inputs ('x'" in faults_of(model, saved)[0]


def test_no_logits_are_refused(saved: Save) -> None:
    net = Network(0)
    model = net.model(net.node("Relu", net.conv("x", (3, 4))), ["N", 3, 8, 8])
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("relu1.out", onnx.TensorProto.FLOAT, ["N", 4, 6, 6])
    )
    assert "(N, classes)" in faults_of(model, saved)[0]


@pytest.mark.parametrize("kind", ["DOUBLE", "INT32", "BOOL"])
def test_other_element_types_are_refused(kind: str, saved: Save) -> None:
    model = resnet()
    model.graph.input[0].type.tensor_type.elem_type = getattr(onnx.TensorProto, kind)
    with pytest.raises(LrpOnnxError, match=r"float32|not a valid ONNX model|shape of its"):
        read(model, saved)
    net = Network(0)
    cast = net.node("Cast", "x", to=onnx.TensorProto.FLOAT)
    whole = net.model(
        net.dense(
            net.node("Flatten", net.node("GlobalAveragePool", net.conv(cast, (3, 4)))), (4, 2)
        ),
        ["N", 3, 8, 8],
    )
    whole.graph.input[0].type.tensor_type.elem_type = getattr(onnx.TensorProto, kind)
    assert f"is of type {kind.lower()}: float32, float16" in faults_of(whole, saved)[0]


def test_symbolic_height_is_refused(saved: Save) -> None:
    model = resnet()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    assert "--input-size" in faults_of(model, saved)[0]


def test_several_outputs_need_a_name(saved: Save) -> None:
    net = Network(0)
    pooled = net.node("Flatten", net.node("GlobalAveragePool", net.conv("x", (3, 4))))
    model = net.model(net.dense(pooled, (4, 5)), ["N", 3, 8, 8], classes=5)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(pooled, onnx.TensorProto.FLOAT, ["N", 4])
    )
    assert "--output-name" in faults_of(model, saved)[0]
    found = plan_of(saved(model), model.graph.output[0].name)
    assert found.classes == 5 and found.outputs[pooled] == "other"


def test_a_join_whose_branches_leak_is_no_block(saved: Save) -> None:
    """Something outside reads a tensor of the branch: a block rule would lose what flows there."""
    net = Network(0)
    fork = net.node("Relu", net.conv("x", (3, 3), (1, 1)))
    inside = net.node("Relu", net.conv(fork, (3, 3), (1, 1)))
    first = net.node("Add", inside, fork, name="first")
    second = net.node("Add", first, inside, name="second")
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", second)), (3, 2)),
        ["N", 3, 8, 8],
    )
    found = read(model, saved)
    assert sum(isinstance(step.kind, kinds.Join) for step in found.steps) == 2
    assert all(block.fork == fork for block in found.blocks)


@pytest.mark.parametrize("swapped", [False, True])
def test_roles_do_not_follow_the_order_of_operands(swapped: bool, saved: Save) -> None:
    """Of two branches of one convolution each the larger one is the main branch."""
    net = Network(0)
    fork = net.node("Relu", net.conv("x", (3, 3), (1, 1)))
    large = net.conv(fork, (3, 3), (3, 3), pads=[1, 1, 1, 1], name="large")
    small = net.conv(fork, (3, 3), (1, 1), name="small")
    joined = net.node("Add", *((small, large) if swapped else (large, small)))
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", joined)), (3, 2)),
        ["N", 3, 8, 8],
    )
    (block,) = read(model, saved).blocks
    roles = {step.name: branch.role for branch in block.branches for step in branch.steps}
    assert roles == {"large": Role.MAIN, "small": Role.PROJECTION}


@pytest.mark.parametrize(("size", "fits"), [(8, True), (9, False)])
def test_ceil_mode_matters_only_where_windows_are_cut(size: int, fits: bool, saved: Save) -> None:
    net = Network(0)
    y = net.node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (3, 2)), ["N", 3, size, 8]
    )
    if fits:
        assert next(read(model, saved).steps).op == "AveragePool"
    else:
        assert "cut off at the border" in faults_of(model, saved)[0]
