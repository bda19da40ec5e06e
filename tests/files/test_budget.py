"""Memory is bounded before anything unfolds or runs, in originals and with the sizes of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import Network, resnet
from onnx import TensorProto, helper, numpy_helper

import lrp_onnx
from lrp_onnx.cli.commands import main
from lrp_onnx.cli.given import run_settings
from lrp_onnx.cli.verify import verify_file
from lrp_onnx.compiler import compile_model, plan_model
from lrp_onnx.errors import LrpOnnxError, ModelFileError
from lrp_onnx.files.budget import Footprint, bytes_made
from lrp_onnx.files.compiled import read_compiled
from lrp_onnx.files.loops import loop_faults
from lrp_onnx.files.originals import check_original
from lrp_onnx.files.structure import bytes_of
from lrp_onnx.model.load import load_model
from lrp_onnx.runtime.explainer import Explainer

MODELS = Path(__file__).parents[2] / "models"
MODEL, STAR = MODELS / "shapes-resnet.onnx", MODELS / "samples" / "star.png"
Save = Callable[[onnx.ModelProto], Path]


@pytest.fixture(scope="module")
def compiled() -> bytes:
    return compile_model(MODEL, composite="lrp-resnet").model.SerializeToString()


def taken(data: bytes, sizes: dict[str, tuple[int, ...]]) -> float:
    """Bytes of a run."""
    with pytest.raises(ModelFileError, match="MB for") as caught:
        Footprint.of(onnx.load_from_string(data), "m", 1).check(sizes=sizes)
    return 1e6 * float(str(caught.value).split(" takes ")[1].split(" MB")[0])


def test_a_batch_is_bounded_as_it_is_run(compiled: bytes) -> None:
    two, three = (taken(compiled, {"input": (n, 3, 96, 96), "target": (n,)}) for n in (2, 3))
    assert 1.2 * two < three < 1.6 * two
    most = (two + three) / 2
    explainer = Explainer(compiled, providers="cpu", threads=1, max_memory=most)
    explainer.explain(np.zeros((2, 3, 96, 96), np.float32))
    words = r"for 3 pictures or targets at once.*take fewer at once, or give --max-memory"
    with pytest.raises(ModelFileError, match=words):
        explainer.explain(np.zeros((3, 3, 96, 96), np.float32))


def test_few_shapes_are_remembered(compiled: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's runs have any number of shapes."""
    explainer = Explainer(compiled, providers="cpu", threads=1)
    seen: list[int] = []

    def check(_: Footprint, *, sizes: dict[str, tuple[int, ...]]) -> None:
        seen.append(sizes["input"][0])

    monkeypatch.setattr(Footprint, "check", check)
    for rows in (*range(1, 101), 100, 99, 1):
        explainer._check_memory({"input": (rows, 3, 96, 96)})
    assert seen == [*range(1, 101), 1] and len(explainer._checked) == 64


def test_targets_are_bounded_too() -> None:
    data = compile_model(MODEL, composite="lrp-resnet", many_targets=True).model.SerializeToString()
    shape = (1, 3, 96, 96)
    most = (taken(data, {"target": (1,)}) + taken(data, {"target": (10,)})) / 2
    explainer = Explainer(data, providers="cpu", threads=1, max_memory=most)
    explainer.explain(np.zeros(shape, np.float32), target=[0])
    with pytest.raises(ModelFileError, match="10 pictures or targets at once"):
        explainer.explain(np.zeros(shape, np.float32), target=[*range(10)])


def test_symbolic_sizes_of_pictures_are_those_of_the_run() -> None:
    """A file with an open height and width: 100 times the pixels take 100 times the memory."""
    net = Network(0)
    model = net.model(net.conv("x", (3, 4)), [None, 3, None, None], classes=4)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info(model.graph.output[0].name, 1, None)
    )
    footprint = Footprint.of(model, "m", 1e6)
    footprint.check()
    footprint.check(sizes={"x": (1, 3, 100, 100)})
    with pytest.raises(ModelFileError, match="most of it for Conv"):
        footprint.check(sizes={"x": (1, 3, 1000, 1000)})
    with pytest.raises(ModelFileError, match="16 pictures"):
        footprint.check(sizes={"x": (16, 3, 100, 100)})


def test_inputs_take_memory_too(compiled: bytes, tmp_path: Path) -> None:
    """That of a file which looks at its size alone."""
    size = helper.make_node("Size", ["x"], ["y"])
    inputs = [helper.make_tensor_value_info("x", 1, [1, 3, 2**14, 2**14])]
    outputs = [helper.make_tensor_value_info("y", 7, [])]
    model = helper.make_model(helper.make_graph([size], "g", inputs, outputs))
    with pytest.raises(ModelFileError, match=r"takes 3\.2 GB .* \(most of it for its inputs\)"):
        Footprint.of(model, "m", 1e9).check()


def test_verifying_keeps_what_the_ledger_names(compiled: bytes, tmp_path: Path) -> None:
    """What one run takes is not enough for it."""
    (tmp_path / "c.onnx").write_bytes(compiled)
    most = taken(compiled, {"input": (2, 3, 96, 96)})
    with pytest.raises(ModelFileError, match="2 pictures or targets at once"):
        verify_file(tmp_path / "c.onnx", original=None, images=[], provider="cpu", max_memory=most)


def test_open_sizes_are_asked_for_as_before(saved: Save) -> None:
    """With one pixel nothing would fit: what is missing is said, not that the file is damaged."""
    net = Network(0)
    y = net.node("Flatten", net.conv("x", (3, 4), (1, 1)))
    model = net.model(net.dense(y, (4 * 64, 5)), ["N", 3, "H", "W"], classes=5)
    with pytest.raises(LrpOnnxError, match=r"give height and\s+width|--input-size"):
        plan_model(saved(model))
    assert plan_model(saved(model), lrp_onnx.Options(input_size=(8, 8)))[1].classes == 5


@pytest.mark.parametrize("command", ["compile", "plan", "explain", "web", "triton"])
def test_the_option(command: str, tmp_path: Path) -> None:
    more = [] if command in ("compile", "plan") else ["-o", str(tmp_path / "out")]
    more += [str(STAR)] if command == "explain" else []
    arguments = [command, str(MODEL), *more, "--max-memory", "0.0001"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    advice = "0.1 MB are allowed: give --max-memory, where the command has it, if that is meant"
    assert "takes" in done.stderr and advice in done.stderr
    assert not list(tmp_path.glob("**/*.*"))


def test_the_option_decides_no_result() -> None:
    """A run that was stopped goes on with another one."""
    settings = [
        run_settings(MODEL, lrp_onnx.Options(max_memory=most), {}, without=())
        for most in (None, 1e9)
    ]
    assert settings[0] == settings[1]


def test_sizes_below_zero_take_nothing() -> None:
    """They make no room for others."""
    assert bytes_of(helper.make_tensor_type_proto(1, [-4, 1000]).tensor_type) == 0
    assert bytes_of(helper.make_tensor_type_proto(1, [4, 1000]).tensor_type) == 16_000
    assert bytes_of(helper.make_tensor_type_proto(1, [4, "N"]).tensor_type) is None


def test_the_option_in_python(compiled: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"0\.1 MB are allowed"):
        compile_model(MODEL, max_memory=1e5)
    with pytest.raises(ModelFileError, match=r"0\.1 MB are allowed"):
        lrp_onnx.Explainer(compiled, max_memory=1e5, provider="cpu")
    # Of a compiled file it is the only choice that is not made already.
    assert lrp_onnx.Explainer(compiled, max_memory=1e9, provider="cpu").contract.classes == 10


def test_the_run_that_checks_a_compilation_is_bounded() -> None:
    """The forward pass fits, the compiled file does not."""

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("it ran")

    with pytest.raises(ModelFileError, match="the compiled model takes"):
        compile_model(MODEL, composite="lrp-resnet", max_memory=1.5e6, runner=never)


def shared_weights(path: Path, copies: int) -> None:
    """A model whose weights are all the same bytes of one file."""
    model = resnet()
    onnx.save(model, path, save_as_external_data=True, location="w", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    (path.parent / "w").write_bytes(bytes(1_000_000))
    for number in range(copies):
        one = model.graph.initializer.add(name=f"copy{number}", data_type=1, dims=[250_000])
        one.data_location = TensorProto.EXTERNAL
        one.external_data.add(key="location", value="w")
    path.write_bytes(model.SerializeToString())


def test_weights_that_are_read_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shared_weights(path, 100)
    with pytest.raises(
        ModelFileError, match=r"in other files take 0\.1 GB, and 50\.0 MB are allowed"
    ):
        plan_model(path, lrp_onnx.Options(max_memory=5e7))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Add", [np.zeros((2**15, 1), np.int64), np.zeros((1, 2**15), np.int64)], {}),
        ("Where", [np.zeros((2**15, 1), bool), np.int64(1), np.zeros((1, 2**15), np.int64)], {}),
        ("Gather", [np.zeros((2, 2**14), np.int64), np.zeros(2**15, np.int64)], {}),
        ("Expand", [np.zeros(1, np.int64), np.array([2**40])], {}),
        ("Tile", [np.zeros(2**10, np.int64), np.array([2**20])], {}),
        ("ConstantOfShape", [np.array([2**20, 2**20])], {}),
        ("Range", [np.int64(0), np.int64(2**40), np.int64(1)], {}),
        ("MatMul", [np.zeros((2**15, 1), np.float32), np.zeros((1, 2**15), np.float32)], {}),
        # Their evaluation takes more than their result.
        (
            "Resize",
            [
                np.zeros((1, 1, 32, 32), np.float32),
                np.zeros(0, np.float32),
                np.float32([1, 1, 64, 64]),
            ],
            {"mode": "nearest"},
        ),
        (
            "Conv",
            [np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 2**12), np.float32)],
            {"pads": [0, 2**16, 0, 2**16]},
        ),
    ],
)
def test_what_constants_unfold_to_is_known_before(
    op: str,
    inputs: list[Any],
    attributes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    saved: Save,
) -> None:
    """Neither folded nor computed as a weight: nothing is evaluated."""
    arrays = {f"in{number}": np.asarray(value) for number, value in enumerate(inputs)}
    node = helper.make_node(op, [*arrays], ["grown"], **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in arrays.items()
    ]
    single = helper.make_graph([node], "g", values, [onnx.ValueInfoProto(name="grown")])
    single_model = helper.make_model(single, opset_imports=[helper.make_opsetid("", 20)])
    made = bytes_made(single_model, arrays)
    assert made is not None and made > 2**18

    model = resnet(opset=18)
    model.graph.node.insert(0, node)
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.insert(1, helper.make_node("ReduceMax", ["grown"], ["most"], keepdims=0))
    model.graph.node.insert(2, helper.make_node("Cast", ["most"], ["cast"], to=1))
    model.graph.node.insert(3, helper.make_node("Add", [conv.input[1], "cast"], ["weight"]))
    conv.input[1] = "weight"
    path = saved(model)
    evaluated = []

    class Never:
        def __init__(self, proto: onnx.ModelProto) -> None:
            evaluated.append(proto.graph.node[0].op_type)

        def run(self, *_: object) -> Any:
            raise AssertionError("it was evaluated")

    monkeypatch.setattr("lrp_onnx.model.normalize.fold.ReferenceEvaluator", Never)
    with pytest.raises(LrpOnnxError):
        plan_model(path, lrp_onnx.Options(max_memory=1e12))
    assert op not in evaluated


def test_a_large_weight_is_not_computed(saved: Save) -> None:
    """More than `MOST_DERIVED`, and its shape is right."""
    net = Network(0)
    x = net.conv("x", (4, 3))
    shape = net.constant("shape", np.array([2**28], np.int64))
    large = net.node("ConstantOfShape", shape)
    model = net.model(net.dense(net.node("Flatten", x), (256, 5)), [1, 3, 10, 10], classes=5)
    model.graph.output.append(helper.make_tensor_value_info(large, 1, [2**28]))
    graph = load_model(saved(model))
    value = next(one for one in graph.outputs if one.name == large)
    assert graph.is_constant(value) and graph.constant(value) is None


def with_loop(
    count: list[onnx.NodeProto], name: str, body: list[onnx.NodeProto], state: np.ndarray[Any, Any]
) -> onnx.ModelProto:
    """``x`` (N, 3, 4) → ``y``, a Loop over the stored `state` with `name` turns, and ``x``."""
    info = helper.make_tensor_value_info
    inner = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), *body],
        "body",
        [info("i", 7, []), info("c", 9, []), info("v", 1, None)],
        [info("d", 9, []), info("w", 1, None)],
    )
    loop = helper.make_node("Loop", [name, "on", "state"], ["y"], body=inner)
    stored = {"on": np.array(True), "state": state, "ten": np.array(10), "long": np.array(2**40)}
    stored |= {"zero": np.array(0), "below": np.array(-1)}
    graph = helper.make_graph(
        [*count, loop, helper.make_node("Identity", ["x"], ["z"])],
        "g",
        [info("x", 1, ["N", 3, 4])],
        [info("y", 1, None), info("z", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


STILL = [helper.make_node("Identity", ["v"], ["w"])]
CAST = ("Cast", ["i"], "n", {"to": 7})


@pytest.mark.parametrize(
    ("nodes", "name", "fine"),
    [
        ([], "ten", True),
        ([], "long", False),
        ([], "", False),
        ([("Constant", [], "n", {"value_int": 10_000})], "n", True),
        ([("Constant", [], "n", {"value_int": 10_001})], "n", False),
        ([("Constant", [], "n", {"value_string": "ten"})], "n", False),
        ([("Shape", ["x"], "s"), ("Gather", ["s", "zero"], "n")], "n", True),
        ([("Size", ["x"], "s"), ("Min", ["s", "ten"], "n")], "n", True),
        ([("Size", ["x"], "s"), ("Max", ["s", "long"], "n")], "n", False),
        ([("Size", ["x"], "s"), ("Mul", ["s", "s"], "n")], "n", False),
        ([("ReduceMax", ["x"], "s"), ("Cast", ["s"], "n", {"to": 7})], "n", False),
        ([("Size", ["x"], "s"), ("Cast", ["s"], "i", {"to": 6}), CAST], "n", True),
        # Numbers below 0 and types without a sign: 4,294,967,295 turns
        ([("Size", ["x"], "s"), ("Cast", ["s"], "i", {"to": 12}), CAST], "n", False),
        ([("Cast", ["ten"], "i", {"to": 12}), CAST], "n", False),
        ([("Size", ["x"], "s"), ("Min", ["s", "below"], "n")], "n", False),
        # The least of no numbers is the largest that there is.
        ([("Shape", ["x"], "s"), ("ReduceMin", ["s"], "n")], "n", False),
        # Operators of other domains may be anything.
        ([("Size", ["x"], "n", {"domain": "own"})], "n", False),
        ([("Constant", [], "n", {"value_int": 10, "domain": "own"})], "n", False),
    ],
)
def test_the_turns_of_a_loop(nodes: list[Any], name: str, fine: bool) -> None:
    made = [
        helper.make_node(op, inputs, [output], **(attributes[0] if attributes else {}))
        for op, inputs, output, *attributes in nodes
    ]
    faults = loop_faults(with_loop(made, name, STILL, np.zeros(3, np.float32)).graph)
    assert faults == [] if fine else "up to 10,000 are run" in faults[0]


def test_what_a_loop_gathers() -> None:
    state = np.zeros((1000, 4), np.float32)

    def check(
        name: str, *joined: str, most: float, every: bool = False, inside: bool = False
    ) -> None:
        """Of a Loop whose state becomes what is `joined`; `every` state is kept if that is asked,
        and the Loop is inside a branch.
        """
        body = [helper.make_node("Concat", joined, ["w"], axis=0)]
        model = with_loop([], name, body, state)
        (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
        if every:
            graph = loop.attribute[0].g
            graph.node.append(helper.make_node("Identity", ["v"], ["kept"]))
            graph.output.append(helper.make_tensor_value_info("kept", 1, None))
            loop.output.append("all")
        if inside:
            result = [helper.make_tensor_value_info("y", 1, None)]
            branch = helper.make_graph([loop], "branch", [], result)
            chosen = helper.make_node("If", ["on"], ["y"], then_branch=branch, else_branch=branch)
            model.graph.node.remove(loop)
            model.graph.node.append(chosen)
        Footprint.of(model, "m", most).check()

    check("ten", "v", most=1e5)
    check("ten", "v", "state", most=1e6)  # ten times 16 kB
    with pytest.raises(ModelFileError, match="most of it for Loop 'y'"):
        check("ten", "v", "state", most=1e5)
    with pytest.raises(ModelFileError, match="most of it for If 'y'"):
        check("ten", "v", "state", most=1e5, inside=True)
    with pytest.raises(ModelFileError, match="most of it for Loop 'y'"):
        check("ten", "v", most=1e5, every=True)
    with pytest.raises(ModelFileError, match="that grow faster from turn to turn"):
        check("ten", "v", "v", most=1e12)


def test_loops_behind_the_outputs_of_compiled_files(compiled: bytes) -> None:
    def read(body: list[onnx.NodeProto]) -> None:
        model = onnx.load_from_string(compiled)
        other = with_loop([], "ten", body, np.zeros(9, np.float32))
        model.graph.initializer.extend(other.graph.initializer)
        model.graph.node.append(other.graph.node[0])
        model.graph.output.append(other.graph.output[0])
        read_compiled(model.SerializeToString())

    read(STILL)
    with pytest.raises(ModelFileError, match="grow faster"):
        read([helper.make_node("Concat", ["v", "v"], ["w"], axis=0)])
    (inner,) = (
        n for n in with_loop([], "ten", STILL, np.zeros(9)).graph.node if n.input[0] == "ten"
    )
    inner.output[0] = "w"
    with pytest.raises(ModelFileError, match="Loop 'y' is a Loop with another inside"):
        read([inner])


def test_sparse_constants_are_refused(compiled: bytes) -> None:
    model = onnx.load_from_string(compiled)
    one = numpy_helper.from_array(np.ones(1, np.float32), "values")
    where = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    sparse = helper.make_sparse_tensor(one, where, [2**40])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["large"], sparse_value=sparse))
    with pytest.raises(ModelFileError, match="sparse weights"):
        read_compiled(model.SerializeToString())


def test_originals_that_are_run_as_they_are(tmp_path: Path) -> None:
    """By methods that need no more than runs, and beside a compiled file."""
    path = tmp_path / "model.onnx"
    endless = with_loop([], "long", STILL, np.zeros(3, np.float32))
    model = onnx.load(MODEL)
    model.graph.node.append(endless.graph.node[0])
    model.graph.initializer.extend(endless.graph.initializer)
    model.graph.output.append(endless.graph.output[0])
    onnx.save(model, path)
    out = ["-o", str(tmp_path / "out"), "--provider", "cpu"]
    done = CliRunner().invoke(
        main, ["explain", str(path), str(STAR), *out, "--method", "occlusion"]
    )
    assert done.exit_code == 1 and "1,099,511,627,776 turns: up to 10,000 are run" in done.stderr
    compile_model(MODEL, composite="gradient").save(tmp_path / "c.onnx")
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "c.onnx"), "--original", str(path)])
    assert done.exit_code == 1 and "up to 10,000 are run" in done.stderr


def with_function(nodes: list[onnx.NodeProto], *, opset: int = 18) -> onnx.ModelProto:
    """``x`` (1, 3) → ``y``, by a function of the file: ``a`` → ``b``."""
    own = helper.make_function(
        "own", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", opset), OWN]
    )
    graph = helper.make_graph(
        [helper.make_node("F", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    opsets = [helper.make_opsetid("", 18), OWN]
    return helper.make_model(graph, functions=[own], opset_imports=opsets)


OWN = helper.make_opsetid("own", 1)


def test_functions_of_originals_are_looked_into(tmp_path: Path) -> None:
    def refused(model: onnx.ModelProto) -> str:
        with pytest.raises(ModelFileError) as caught:
            check_original(model, "m", tmp_path, max_memory=1e9)
        return str(caught.value)

    relu = [helper.make_node("Relu", ["a"], ["b"])]
    check_original(with_function(relu), "m", tmp_path, max_memory=1e9)
    loop = with_loop([], "n", STILL, np.zeros(1)).graph.node[0]
    loop.input[1:], loop.output[0] = ["", "a"], "b"
    endless = [helper.make_node("Constant", [], ["n"], value_int=10**12), loop]
    assert "1,000,000,000,000 turns" in refused(with_function(endless))
    sizes = helper.make_node("Constant", [], ["n"], value_ints=[2**32, 3])
    large = [sizes, helper.make_node("Expand", ["a", "n"], ["b"])]
    assert "takes 51.5 GB" in refused(with_function(large))
    # What cannot be put in place of its calls
    call = helper.make_node("F", ["a"], ["b"], domain="own")
    assert "call each other in a circle" in refused(with_function([call]))
    info = helper.make_tensor_value_info("b", 1, None)
    branch = helper.make_graph([call], "branch", [], [info])
    choice = helper.make_node("If", ["a"], ["b"], then_branch=branch, else_branch=branch)
    assert "call each other in a circle" in refused(with_function([choice]))
    assert "F 'y' cannot be put in the place" in refused(with_function(relu, opset=17))
    damaged = with_function(relu)
    damaged.graph.node[0].input.append("x")
    assert "cannot be put in the place of their calls" in refused(damaged)
    damaged = with_function(relu)
    damaged.functions[0].domain, damaged.functions[0].name = "", "Relu"
    assert "of the domain of the standard operators" in refused(damaged)


@pytest.mark.parametrize("listed", [False, True])
def test_an_empty_weight_lifts_no_limit(listed: bool, tmp_path: Path) -> None:
    """One in another file, whether or not it is listed among the inputs too."""
    sizes = helper.make_node("Constant", [], ["n"], value_ints=[2**32, 3])
    model = with_function([sizes, helper.make_node("Expand", ["a", "n"], ["b"])])
    (tmp_path / "w").write_bytes(b"")
    empty = model.graph.initializer.add(name="empty", data_type=1, dims=[1, 0])
    empty.data_location = TensorProto.EXTERNAL
    empty.external_data.add(key="location", value="w")
    if listed:
        model.graph.input.append(helper.make_tensor_value_info("empty", 1, [1, 0]))
    with pytest.raises(ModelFileError, match=r"takes 51\.5 GB"):
        check_original(model, "m", tmp_path, max_memory=1e9)
