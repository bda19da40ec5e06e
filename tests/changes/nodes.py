"""Changes of nodes: attributes, inputs, operators, functions, inner graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from changes.drawing import (
    HOSTILE,
    REAL,
    TEXTS,
    WHOLE,
    Change,
    Random,
    inserted,
    pick,
    some_edge,
    some_tensor,
    stored,
    value_info,
)

POINTWISE = (
    "Relu", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Sigmoid", "Tanh", "Erf", "Elu",
    "Selu", "Celu", "Gelu", "HardSwish", "HardSigmoid", "Mish", "Softplus", "Softsign", "LeakyRelu",
    "ThresholdedRelu", "Softmax", "LogSoftmax", "Hardmax", "Floor", "Ceil", "Round", "Sign", "Sin",
    "Cos", "Identity", "Dropout", "Flatten", "LpNormalization", "MeanVarianceNormalization", "LRN",
    "GlobalAveragePool", "GlobalMaxPool", "Shape", "Size", "IsNaN", "Not", "Trilu", "Det",
)  # fmt: skip
OF_TWO = (
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Mod", "MatMul", "PRelu",
    "Concat", "Where", "Equal", "Gather", "Expand", "Tile", "Reshape",
)  # fmt: skip


def any_value(rng: Random) -> object:
    """A value for an attribute, of any type that there is."""
    kind = int(rng.integers(9))
    if kind == 0:
        return int(pick(rng, WHOLE))
    if kind == 1:
        return float(pick(rng, REAL))
    if kind == 2:
        return str(pick(rng, TEXTS))
    if kind == 3:
        return [int(pick(rng, WHOLE)) for _ in range(int(pick(rng, (1, 2, 4, 8, 5000))))]
    if kind == 4:
        return [float(pick(rng, REAL)) for _ in range(int(pick(rng, (1, 2, 4))))]
    if kind == 5:
        return [str(pick(rng, TEXTS)) for _ in range(3)]
    if kind == 6:
        return numpy_helper.from_array(rng.normal(size=int(rng.integers(4))).astype("f"), "t")
    if kind == 7:
        return helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "g", [], [value_info("y")]
        )
    values = numpy_helper.from_array(np.ones(1, "f"), "v")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    return helper.make_sparse_tensor(values, places, [3])


def attribute_of_another_type(model: onnx.ModelProto, rng: Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if nodes:
        attribute = pick(rng, pick(rng, nodes).attribute)
        if rng.random() < 0.3:  # the type alone; the value stays where it was
            attribute.type = int(rng.integers(0, 16)) if rng.random() < 0.9 else 0
        else:
            attribute.CopyFrom(helper.make_attribute(attribute.name, any_value(rng)))


def attribute_value(model: onnx.ModelProto, rng: Random) -> None:
    """Another value of the same type."""
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    one = pick(rng, pick(rng, nodes).attribute)
    if one.type == AttributeProto.INT:
        one.i = pick(rng, WHOLE)
    elif one.type == AttributeProto.FLOAT:
        one.f = pick(rng, REAL)
    elif one.type == AttributeProto.STRING:
        one.s = pick(rng, TEXTS).encode() if rng.random() < 0.9 else b"\xff\xfe"
    elif one.type == AttributeProto.INTS:
        action = int(rng.integers(4))
        if action == 0:
            one.ints.append(pick(rng, WHOLE))
        elif action == 1:
            one.ints.extend([1] * 3000)
        elif one.ints and action == 2:
            del one.ints[-1]
        elif one.ints:
            one.ints[int(rng.integers(len(one.ints)))] = int(rng.integers(-2, 6))


def attribute_of_schema(model: onnx.ModelProto, rng: Random) -> None:
    """An attribute that the operator has, and the file does not state, with any value."""
    node = pick(rng, model.graph.node)
    try:
        schema = onnx.defs.get_schema(node.op_type)
    except onnx.defs.SchemaError:
        return
    names = sorted(schema.attributes)
    if not names:
        return
    name = pick(rng, names)
    kind = int(schema.attributes[name].type.value)
    values = {
        1: float(pick(rng, REAL)),
        2: int(rng.integers(-2, 6)),
        3: str(pick(rng, TEXTS)),
        7: rng.integers(-1, 4, int(rng.integers(1, 5))).tolist(),
    }
    value = values.get(kind) if rng.random() < 0.9 else any_value(rng)
    kept = [one for one in node.attribute if one.name != name]
    if value is not None:
        kept.append(helper.make_attribute(name, value))
    del node.attribute[:]
    node.attribute.extend(kept)


def attribute_dropped_or_doubled(model: onnx.ModelProto, rng: Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = pick(rng, nodes)
    index = int(rng.integers(len(node.attribute)))
    action = int(rng.integers(4))
    if action == 0:
        del node.attribute[index]
    elif action == 1:
        node.attribute.append(node.attribute[index])
    elif action == 2:
        node.attribute[index].ref_attr_name = str(rng.choice(["alpha", "none", HOSTILE]))
    else:
        node.attribute[index].name = str(rng.choice(["", "no_such", HOSTILE, "axis", "value"]))


def inputs_changed(model: onnx.ModelProto, rng: Random) -> None:
    """An input more, less, empty, twice, or in another place."""
    nodes = [node for node in model.graph.node if node.input]
    node = pick(rng, nodes)
    names, action = list(node.input), int(rng.integers(5))
    index = int(rng.integers(len(names)))
    if action == 0:
        names.append(str(rng.choice(["", "no such tensor", *names])))
    elif action == 1:
        del names[index]
    elif action == 2:
        names[index] = str(rng.choice(["", HOSTILE]))
    elif action == 3:
        names = [*names[1:], names[0]]
    else:
        names *= 40
    del node.input[:]
    node.input.extend(names)


def outputs_changed(model: onnx.ModelProto, rng: Random) -> None:
    """An output more, less, empty, or of a name that there is already."""
    node = pick(rng, model.graph.node)
    taken = [n for one in model.graph.node for n in (*one.input, *one.output)] or [""]
    action = int(rng.integers(4))
    if action == 0:
        node.output.append(f"more_{int(rng.integers(10**9))}")
    elif action == 1 and node.output:
        del node.output[-1]
    elif action == 2:
        node.output.append("")
    elif node.output:
        node.output[0] = pick(rng, taken)


def other_operator(model: onnx.ModelProto, rng: Random) -> None:
    """A node of another operator that takes as many inputs."""
    node = pick(rng, model.graph.node)
    if len(node.input) < 2:
        node.op_type = str(rng.choice(POINTWISE))
    elif rng.random() < 0.7:
        node.op_type = str(rng.choice(OF_TWO))
    else:
        node.op_type = str(rng.choice(["Conv", "Gemm", "BatchNormalization", "Clip", "Slice"]))
    if rng.random() < 0.5:
        del node.attribute[:]


def pointwise_inserted(model: onnx.ModelProto, rng: Random) -> None:
    operator = str(rng.choice(POINTWISE))
    inserted(model, rng, lambda x, y: [helper.make_node(operator, [x], [y])])


def with_number_inserted(model: onnx.ModelProto, rng: Random) -> None:
    """An operator of two operands, the other of which is stored."""
    shape = pick(rng, ((), (1,), (3,), (1, 1, 1, 1), (1, 3, 1, 1), (0,), (2, 1, 1, 1, 1)))
    kind = np.float32 if rng.random() < 0.7 else pick(rng, (np.int64, np.int32, np.float16, bool))
    with np.errstate(all="ignore"):
        values = np.full(shape, pick(rng, REAL[:9]) if rng.random() < 0.8 else 2.0).astype(kind)
    number, operator = stored(model, values, rng), str(rng.choice(OF_TWO))
    turned = rng.random() < 0.3

    def make(x: str, y: str) -> list[onnx.NodeProto]:
        names = [number, x] if turned else [x, number]
        axis = {"axis": int(rng.integers(-1, 3))} if operator == "Concat" else {}
        return [helper.make_node(operator, names, [y], **axis)]

    inserted(model, rng, make)


def movement_inserted(model: onnx.ModelProto, rng: Random) -> None:
    """Reshape, Transpose, Slice, Pad, Cast and the like with arguments at random; operators whose
    results are as large as their arguments say.
    """

    def whole(*sizes: int) -> str:
        return stored(model, np.array(sizes, np.int64), rng)

    def scales() -> str:
        return stored(model, np.array([1, 1, *rng.choice([0, 1, 2, 0.5, 1e6], 2)], "f"), rng)

    def whole_number(number: int) -> str:
        return stored(model, np.array(number, np.int64), rng)

    def unfolded(operator: str, *names: str) -> str:
        """What an operator makes of stored values."""
        made = f"unfolded_{int(rng.integers(10**9))}"
        model.graph.node.insert(0, helper.make_node(operator, names, [made]))
        return made

    large = int(pick(rng, (2, 300, 20_000, 2**24, 2**33)))
    few = [int(one) for one in rng.integers(-1, 5, 4)]
    low, high = (int(pick(rng, WHOLE)) for _ in range(2))
    order, mode = [int(i) for i in rng.permutation(4)], str(pick(rng, TEXTS[8:12]))
    usual = pick(rng, ((0, -1), (0, 0, 0, 0), (-1,), (0, 0, -1)))
    forms: list[Callable[[], tuple[str, list[str], dict[str, Any]]]] = [
        lambda: ("Reshape", [whole(*few)], {"allowzero": int(rng.integers(2))}),
        lambda: ("Reshape", [whole(*usual)], {}),
        lambda: ("Transpose", [], {"perm": order}),
        lambda: ("Slice", [whole(low), whole(high), whole(few[0]), whole(few[1])], {}),
        lambda: ("Pad", [whole(0, 0, *few[:2], 0, 0, *few[2:])], {"mode": mode}),
        lambda: ("Cast", [], {"to": int(rng.integers(0, 24))}),
        lambda: ("Unsqueeze", [whole(few[0])], {}),
        lambda: ("Squeeze", [whole(few[0])] if rng.random() < 0.5 else [], {}),
        lambda: ("Resize", ["", scales()], {}),
        lambda: ("Expand", [whole(1, 1, *map(abs, few[:2]))], {}),
        lambda: ("Expand", [whole(1, 1, large, large)], {}),
        lambda: ("Tile", [whole(1, 1, large, int(pick(rng, (1, large))))], {}),
        lambda: ("Pad", [whole(0, 0, large, large, 0, 0, 0, 0)], {"mode": mode}),
        lambda: ("Add", [unfolded("ConstantOfShape", whole(large, large))], {}),
        lambda: ("Add", [unfolded("Range", *map(whole_number, (0, min(large**2, 2**60), 1)))], {}),
        lambda: ("Mul", [unfolded("Tile", stored(model, np.ones(4, "f"), rng), whole(large))], {}),
    ]
    operator, names, attributes = pick(rng, forms)()
    inserted(model, rng, lambda x, y: [helper.make_node(operator, [x, *names], [y], **attributes)])


def moved_there_and_back(model: onnx.ModelProto, rng: Random) -> None:
    """Pairs of nodes that change nothing: the model stays valid, of a form that nobody writes."""
    kind, order = int(rng.integers(4)), [int(i) for i in rng.permutation(4)]

    def make(x: str, y: str) -> list[onnx.NodeProto]:
        between = f"{y} between"
        if kind == 0:
            back = [int(i) for i in np.argsort(order)]
            return [
                helper.make_node("Transpose", [x], [between], perm=order),
                helper.make_node("Transpose", [between], [y], perm=back),
            ]
        if kind == 1:
            return [
                helper.make_node("Neg", [x], [between]),
                helper.make_node("Neg", [between], [y]),
            ]
        if kind == 2:
            return [
                helper.make_node("Cast", [x], [between], to=11),
                helper.make_node("Cast", [between], [y], to=1),
            ]
        return [
            helper.make_node("Identity", [x], [between]),
            helper.make_node("Dropout", [between], [y, ""]),
        ]

    inserted(model, rng, make)


def nodes_shuffled(model: onnx.ModelProto, rng: Random) -> None:
    nodes = list(model.graph.node)
    order = rng.permutation(len(nodes)) if rng.random() < 0.5 else range(len(nodes) - 1, -1, -1)
    copies = [onnx.NodeProto.FromString(nodes[int(i)].SerializeToString()) for i in order]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def node_doubled(model: onnx.ModelProto, rng: Random) -> None:
    """The same node twice: its output has two makers."""
    model.graph.node.append(pick(rng, model.graph.node))


def circle(model: onnx.ModelProto, rng: Random) -> None:
    """A node that reads what it makes, itself or through the next one."""
    nodes = [node for node in model.graph.node if node.input and node.output]
    node = pick(rng, nodes)
    readers = [one for one in nodes if set(node.output) & set(one.input)] or [node]
    node.input[0] = pick(rng, [node, pick(rng, readers)]).output[0]


def names_changed(model: onnx.ModelProto, rng: Random) -> None:
    """Names of nodes or tensors: empty, all the same, hostile, long; used as before."""
    name = str(rng.choice(["", "same", HOSTILE, "n" * 3000, "heatmap", "target", "a/b", "\u202e"]))
    if rng.random() < 0.5:
        for node in model.graph.node:
            if rng.random() < 0.7:
                node.name = name
        return
    edge = some_edge(model, rng)
    old = edge[0].input[edge[1]] if edge else ""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, one in enumerate(names):
                if one == old:
                    names[index] = name
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.name = name if value.name == old else value.name


def domain_changed(model: onnx.ModelProto, rng: Random) -> None:
    domain = str(
        rng.choice(["ai.onnx", "com.microsoft", "ai.onnx.ml", "ai.onnx.training", HOSTILE])
    )
    pick(rng, model.graph.node).domain = domain
    if rng.random() < 0.5:
        model.opset_import.add(domain=domain, version=int(rng.choice([0, 1, 5, 2**40])))


def function_made(model: onnx.ModelProto, rng: Random) -> None:
    """A node moved into a function: of a domain of its own or a standard one, rightly or not."""
    index = int(rng.integers(len(model.graph.node)))
    node = model.graph.node[index]
    body = onnx.NodeProto.FromString(node.SerializeToString())
    inputs = [name for name in dict.fromkeys(node.input) if name]
    standard = rng.random() < 0.3
    domain, name = ("", node.op_type) if standard else ("own", f"Own{node.op_type}")
    fault = int(rng.integers(6))
    if fault == 0:
        inputs = inputs[:-1]
    bodies = [body]
    if fault == 1:
        bodies.append(helper.make_node(name, inputs[:1], ["r"], domain=domain))  # calls itself
    function = helper.make_function(
        domain, name, inputs, list(node.output), bodies, list(model.opset_import)
    )
    if fault == 2:
        del function.opset_import[:]
    if fault == 3:
        function.output.append("nobody makes it")
    if fault == 4 and body.attribute:
        body = function.node[0]
        body.attribute[0].ref_attr_name = body.attribute[0].name
        function.attribute.append(body.attribute[0].name)
    model.functions.append(function)
    if fault == 5:
        model.functions.append(function)
    call = helper.make_node(name, inputs, list(node.output), name=node.name, domain=domain)
    model.graph.node[index].CopyFrom(call)
    if not any(one.domain == domain for one in model.opset_import) and rng.random() < 0.8:
        model.opset_import.add(domain=domain, version=1)
    model.ir_version = max(model.ir_version, 8)


def function_shadows(model: onnx.ModelProto, rng: Random) -> None:
    """A function with the name of an operator that the model uses, and another meaning."""
    node = pick(rng, model.graph.node)
    inner = str(rng.choice(["Identity", "Neg", node.op_type]))
    inputs = [f"i{i}" for i in range(len(node.input))]
    outputs = [f"o{i}" for i in range(len(node.output))]
    bodies = [helper.make_node(inner, inputs[:1], [one]) for one in outputs]
    version = max((one.version for one in model.opset_import if not one.domain), default=18)
    function = helper.make_function(
        node.domain, node.op_type, inputs, outputs, bodies, [helper.make_opsetid("", version)]
    )
    model.functions.append(function)
    model.ir_version = max(model.ir_version, 8)


def functions_multiply(model: onnx.ModelProto, rng: Random) -> None:
    """Functions that call the next one often, or in a circle."""
    depth, times = (40, 3) if rng.random() < 0.5 else (int(rng.choice([3, 150, 1500])), 1)
    circle_closed = rng.random() < 0.3
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    for level in range(depth):
        below = f"F{level + 1}" if level + 1 < depth else ("F0" if circle_closed else "Relu")
        domain = "own" if below != "Relu" else ""
        names = ["x", *[f"t{i}" for i in range(times - 1)], "y"]
        nodes = [
            helper.make_node(below, [names[i]], [names[i + 1]], domain=domain) for i in range(times)
        ]
        model.functions.append(
            helper.make_function("own", f"F{level}", ["x"], ["y"], nodes, opsets)
        )
    model.opset_import.add(domain="own", version=1)
    model.ir_version = max(model.ir_version, 8)
    inserted(model, rng, lambda x, y: [helper.make_node("F0", [x], [y], domain="own")])


def branch(model: onnx.ModelProto, rng: Random) -> None:
    """An If around what is read from outside its graphs; its condition is stored or computed."""
    always = stored(model, np.array(rng.random() < 0.5), rng)

    def make(x: str, y: str) -> list[onnx.NodeProto]:
        def graph(operator: str, name: str) -> onnx.GraphProto:
            return helper.make_graph(
                [helper.make_node(operator, [x], [name])], name, [], [value_info(name)]
            )

        first, second = graph("Identity", f"{y} then"), graph("Relu", f"{y} else")
        return [helper.make_node("If", [always], [y], then_branch=first, else_branch=second)]

    inserted(model, rng, make)


def loop(model: onnx.ModelProto, rng: Random) -> None:
    """A Loop or a Scan that captures a tensor from outside, in the path or beside it."""
    turns = stored(model, np.array(int(rng.choice([0, 1, 3, 2**40])), np.int64), rng)
    on = stored(model, np.array(True), rng)
    scan = rng.random() < 0.3

    def make(x: str, y: str) -> list[onnx.NodeProto]:
        if scan:
            body = helper.make_graph(
                [helper.make_node("Relu", ["e"], ["f"])], "b", [value_info("e")], [value_info("f")]
            )
            return [helper.make_node("Scan", [x], [y], body=body, num_scan_inputs=1)]
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["c"], ["d"]),
                helper.make_node("Add", ["v", x], ["w"]),
            ],
            "b",
            [value_info("i", 7, []), value_info("c", 9, []), value_info("v")],
            [value_info("d", 9, []), value_info("w")],
        )
        return [helper.make_node("Loop", [turns, on, x], [y], body=body)]

    inserted(model, rng, make)
    if rng.random() < 0.4:  # beside the path: nothing reads it but an output of its own
        maker = next((n for n in model.graph.node if n.op_type in ("Loop", "Scan")), None)
        if maker is not None:
            for node in model.graph.node:
                for index, name in enumerate(node.input):
                    if name == maker.output[0]:
                        node.input[index] = maker.input[-1]
            model.graph.output.append(value_info(maker.output[0]))


def graph_in_attribute(model: onnx.ModelProto, rng: Random) -> None:
    """A graph where no operator has one; inside another, many times."""
    graph: onnx.GraphProto = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", [], []
    )
    for level in range(int(rng.choice([1, 10, 25]))):
        node = helper.make_node(
            "If", ["c"], ["y"], then_branch=graph, else_branch=onnx.GraphProto()
        )
        graph = helper.make_graph([node], f"g{level}", [], [])
    node = pick(rng, model.graph.node)
    node.attribute.append(helper.make_attribute(str(rng.choice(["body", "axis", "pads"])), graph))


def constant_of_another_form(model: onnx.ModelProto, rng: Random) -> None:
    """An initializer as a Constant node with one of the attributes that ONNX has for it."""
    if not model.graph.initializer:
        return
    index = int(rng.integers(len(model.graph.initializer)))
    tensor = model.graph.initializer[index]
    forms = {
        "value": tensor,
        "value_float": 0.5,
        "value_int": 1,
        "value_ints": [1, 2, 3],
        "value_floats": [0.5, 1.0],
        "value_string": "text",
        "sparse_value": None,
    }
    name = str(rng.choice(["value", *forms]))
    value = forms[name]
    if value is None:
        values = numpy_helper.from_array(np.ones(1, "f"), tensor.name)
        places = numpy_helper.from_array(np.zeros(1, np.int64), "i")
        value = helper.make_sparse_tensor(values, places, [int(np.prod(tensor.dims))])
    node = helper.make_node("Constant", [], [tensor.name], **{name: value})
    if rng.random() < 0.1:
        node.attribute.append(helper.make_attribute("value_int", 3))
    if rng.random() < 0.9:
        del model.graph.initializer[index]
    model.graph.node.insert(0, node)


def optional_tensor_missing(model: onnx.ModelProto, rng: Random) -> None:
    """A node whose stored operand is left out by an empty name."""
    kept = {tensor.name for tensor in model.graph.initializer}
    edges = [(n, i) for n in model.graph.node for i, name in enumerate(n.input) if name in kept]
    if edges and some_tensor(model, rng) is not None:
        node, index = pick(rng, edges)
        node.input[index] = ""


NODES: tuple[Change, ...] = (
    attribute_of_another_type,
    attribute_value,
    attribute_of_schema,
    attribute_dropped_or_doubled,
    inputs_changed,
    outputs_changed,
    other_operator,
    pointwise_inserted,
    with_number_inserted,
    movement_inserted,
    moved_there_and_back,
    nodes_shuffled,
    node_doubled,
    circle,
    names_changed,
    domain_changed,
    function_made,
    function_shadows,
    functions_multiply,
    branch,
    loop,
    graph_in_attribute,
    constant_of_another_form,
    optional_tensor_missing,
)
