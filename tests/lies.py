"""Compiled files that lie: their metadata and graphs changed at random, each explained and verified
by the command line in a process of its own.

    python tests/lies.py FIRST COUNT FOLDER [REPORT [MINUTES]]

Prints one JSON line: how many commands ended well, how many refused the file, what went wrong, the
slowest, and the most memory. After so many MINUTES no further file is tried.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  imported once, here, and not in every child
import numpy as np
import onnx
import onnxruntime  # noqa: F401
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
from mutations import dropped, odd_attribute, odd_input, odd_type, pick, renamed_operator, rewired
from zoo_files import manifest

from lrp_onnx.cli.commands import main as command_line
from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import PREFIX

SAMPLE = Path(__file__).parents[1] / "models" / "samples" / "star.png"
SOURCES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("core.torchscript-op20", {"composite": "c3-lrp", "outputs": ["heatmap", "heatmap_raw", "c3"]}),
    ("core.torchscript-op20", {"composite": "epsilon-plus", "many_targets": True}),
    ("core.torchscript-uint8-nhwc", {"composite": "gradient", "outputs": ["relevance"]}),
    ("two-outputs.dynamo", {"composite": "c3-lrp", "inputs": "target,start"}),
    ("core-qdq.onnxruntime", {"composite": "epsilon-plus", "inputs": "none"}),
    ("resnet-1d.dynamo", {"composite": "epsilon-plus"}),
)
SECONDS, BYTES = 20, 1 << 30
"""Seconds of a processor that both commands of one file may take, and the memory of their process:
other work on the machine slows them down.
"""
WAIT = 15 * SECONDS
"""Seconds after which they hang."""
HOSTILE = "\x1b]8;;http://example.org\x07[red]../../x[/nobold]\u202e<script>\n"
"""A name with a hyperlink for terminals, markup, a path, a turn of direction, HTML."""
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 7, 2**31, 2**63, 10**30, 1.5, 1e308, float("nan"), float("inf"), "", "x",
    HOSTILE, "logits", "input", "none", "target", "NCHW", [], [1], [[]], [None], ["x"], [-1, 2**40],
    {}, {"a": 1}, {"x": None}, {"x": "y"},
)  # fmt: skip
Random = np.random.Generator
Change = Callable[[onnx.ModelProto, Random], None]


def odd(rng: Random) -> Any:
    return ODD[int(rng.integers(len(ODD)))]


def entry(model: onnx.ModelProto, rng: Random) -> Any:
    own = [one for one in model.metadata_props if one.key.startswith(PREFIX)]
    return pick(rng, own or model.metadata_props)


def replaced_value(model: onnx.ModelProto, rng: Random) -> None:
    entry(model, rng).value = json.dumps(odd(rng))


def raw_value(model: onnx.ModelProto, rng: Random) -> None:
    texts = ["", "{", "nul", HOSTILE, "[" * 100_000, '{"a":' * 5000, "1" * 5000, "[1,"]
    entry(model, rng).value = str(texts[int(rng.integers(len(texts)))])


def inner_value(model: onnx.ModelProto, rng: Random) -> None:
    """One value deep inside a key's JSON, replaced or dropped, or its name."""
    one = entry(model, rng)
    try:
        value = json.loads(one.value)
    except ValueError:
        return
    here: Any = value
    while isinstance(here, (list, dict)) and here:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = keys[int(rng.integers(len(keys)))]
        inside = here[key]
        if not (isinstance(inside, (list, dict)) and inside) or rng.random() < 0.25:
            kind = rng.integers(4)
            if kind == 0:
                del here[key]
            elif kind == 1 and isinstance(here, dict):
                here[HOSTILE] = here.pop(key)
            else:
                here[key] = odd(rng)
            break
        here = inside
    one.value = json.dumps(value)


def dropped_key(model: onnx.ModelProto, rng: Random) -> None:
    model.metadata_props.remove(entry(model, rng))


def swapped_values(model: onnx.ModelProto, rng: Random) -> None:
    one, other = entry(model, rng), entry(model, rng)
    one.value, other.value = other.value, one.value


def odd_number(model: onnx.ModelProto, rng: Random) -> None:
    keys = ("classes", "memory_each", "memory_fixed", "format", "start_shape", "resolution")
    key = PREFIX + str(rng.choice(keys))
    value = json.dumps(int(rng.choice([0, 1, 2, 9, 11, 1000, 2**31, 2**62, -3])))
    value = f"[{value}]" if key.endswith(("shape", "resolution")) else value
    for one in model.metadata_props:
        if one.key == key:
            one.value = value
            return
    model.metadata_props.add(key=key, value=value)


def added_key(model: onnx.ModelProto, rng: Random) -> None:
    keys = ("selection", "boxes", "start_shape", "sources", "labels", "preprocessing")
    texts = [
        "[:, 3]",
        "[:, 0:99]",
        "[:, :, :]",
        "[",
        "xyxy:logits[:, :4, :]",
        "logits[:, a]",
    ]
    texts += [HOSTILE, json.dumps(odd(rng)), json.dumps({"mean": odd(rng), "std": odd(rng)})]
    texts += [json.dumps([HOSTILE] * 10), json.dumps({"preprocessing": HOSTILE})]
    key = PREFIX + str(rng.choice(keys))
    for one in list(model.metadata_props):
        if one.key == key:
            model.metadata_props.remove(one)
    model.metadata_props.add(key=key, value=texts[int(rng.integers(len(texts)))])


def hostile_names(model: onnx.ModelProto, rng: Random) -> None:
    """A name everywhere, in the graph and in the metadata, with what a terminal would obey."""
    names = [node.name for node in model.graph.node] + [
        name for node in model.graph.node for name in node.output
    ]
    old = names[int(rng.integers(len(names)))]
    if not old:
        return
    for node in model.graph.node:
        node.name = node.name.replace(old, HOSTILE) if node.name == old else node.name
        for field in (node.input, node.output):
            field[:] = [HOSTILE if name == old else name for name in field]
    for value in model.graph.output:
        value.name = HOSTILE if value.name == old else value.name
    for one in model.metadata_props:
        one.value = one.value.replace(json.dumps(old), json.dumps(HOSTILE))


def replaced_output(model: onnx.ModelProto, rng: Random) -> None:
    """An output that is something else: another rank or type, NaN, text, gigabytes."""
    output = pick(rng, model.graph.output)
    for node in model.graph.node:
        node.output[:] = [f"{n}/was" if n == output.name else n for n in node.output]
        node.input[:] = [f"{n}/was" if n == output.name else n for n in node.input]
    kind = int(rng.integers(9))
    kinds: list[tuple[Any, int]] = [
        (np.zeros((1, 4), np.float32), TensorProto.FLOAT),
        (np.full((1, 32, 32), np.nan, np.float32), TensorProto.FLOAT),
        (np.full((1, 32, 32), np.inf, np.float32), TensorProto.FLOAT),
        (np.zeros((), np.float32), TensorProto.FLOAT),
        (np.zeros((1, 10), np.int64), TensorProto.INT64),
        (np.zeros((0, 32, 32), np.float32), TensorProto.FLOAT),
        (np.array([["a"] * 10]), TensorProto.STRING),
        (np.zeros((1, 32, 32), bool), TensorProto.BOOL),
    ]
    if kind == 8:
        shape = numpy_helper.from_array(np.array([1, 20000, 50000], np.int64), "huge shape")
        model.graph.initializer.append(shape)
        model.graph.node.append(helper.make_node("ConstantOfShape", ["huge shape"], [output.name]))
        values, element = np.zeros((1, 1, 1), np.float32), TensorProto.FLOAT
        dims = [None] * 3
    else:
        values, element = kinds[kind]
        stored = numpy_helper.from_array(values, f"{output.name}/stored")
        model.graph.initializer.append(stored)
        model.graph.node.append(helper.make_node("Identity", [stored.name], [output.name]))
        dims = list(values.shape)
    if rng.random() < 0.8:
        output.CopyFrom(helper.make_tensor_value_info(output.name, element, dims))


def growing(model: onnx.ModelProto, rng: Random) -> None:
    """A few bytes that unfold to gigabytes, into an input of some node."""
    node = pick(rng, [one for one in model.graph.node if one.input])
    at, most = int(rng.integers(len(node.input))), int(rng.choice([2**24, 2**30, 2**40]))
    old = node.input[at]
    whole = lambda name, *v: model.graph.initializer.append(  # noqa: E731
        numpy_helper.from_array(np.array(v, np.int64), name)
    )
    op = str(rng.choice(["ConstantOfShape", "Expand", "Tile", "Range", "Pad", "chain"]))
    whole("grow", most)
    if op == "ConstantOfShape":
        nodes = [helper.make_node(op, ["grow"], ["grown"])]
    elif op == "Range":
        for name, value in (("g0", 0), ("g1", most), ("g2", 1)):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        nodes = [helper.make_node("Range", ["g0", "g1", "g2"], ["grown"])]
    elif op == "Pad":
        whole("one", 1)
        whole("pads", 0, most)
        nodes = [helper.make_node("Pad", ["one", "pads"], ["grown"])]
    elif op == "chain":
        whole("one", 1)
        whole("factor", 2**8)
        names = ["one", *(f"t{i}" for i in range(4)), "grown"]
        nodes = [helper.make_node("Tile", [a, "factor"], [b]) for a, b in pairwise(names)]
    else:
        whole("one", 1)
        nodes = [helper.make_node(op, ["one", "grow"], ["grown"])]
    nodes += [
        helper.make_node("ReduceMax", ["grown"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "nought"], ["nothing"]),
        helper.make_node("Add", [old, "nothing"], ["old and more"]),
    ]
    nought = numpy_helper.from_array(np.float32(0), "nought")
    model.graph.initializer.append(nought)
    every = [*nodes, *model.graph.node]
    node.input[at] = "old and more"
    place = next(i for i, one in enumerate(model.graph.node) if one is node or one == node)
    every = [*list(model.graph.node)[:place], *nodes, *list(model.graph.node)[place:]]
    del model.graph.node[:]
    model.graph.node.extend(every)


def endless(model: onnx.ModelProto, rng: Random) -> None:
    """A Loop without end: in the loop of the file, or in an added one."""
    info = helper.make_tensor_value_info
    own = [node for node in model.graph.node if node.op_type == "Loop"]
    most = int(rng.choice([2**62, 2**31, 10**9]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(most), "most"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
    form = int(rng.integers(3))
    if own and form == 0:
        node = own[0]
        node.input[0] = "most"
        body = node.attribute[0].g
        body.initializer.append(numpy_helper.from_array(np.array(True), "ever"))
        body.node.append(helper.make_node("Identity", ["ever"], ["ever on"]))
        body.output[0].name = "ever on"
        return
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [info("i", 7, []), info("c", 9, []), info("v", 7, [])],
        [info("d", 9, []), info("w", 7, [])],
    )
    count = "most" if form == 1 else ""
    loop = helper.make_node("Loop", [count, "on", "most"], ["looped"], body=body)
    model.graph.node.append(loop)
    model.graph.output.append(info("looped", 7, []))


def gathering(model: onnx.ModelProto, rng: Random) -> None:
    """A Loop whose tensors double, or that gathers in as many turns as something computes, behind
    which no map lies, or a sparse constant of gigabytes.
    """
    info = helper.make_tensor_value_info
    stored = {"seed": np.zeros(1000, np.float32), "turns": np.array(40), "on": np.array(True)}
    for name, value in stored.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    form, nodes, count = int(rng.integers(4)), [], "turns"
    if form == 3:
        one = numpy_helper.from_array(np.ones(1, np.float32), "values")
        where = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
        sparse = helper.make_sparse_tensor(one, where, [int(rng.choice([9, 2**33]))])
        model.graph.node.append(helper.make_node("Constant", [], ["looped"], sparse_value=sparse))
        model.graph.output.append(info("looped", 1, None))
        return
    if form == 1:
        nodes = [
            helper.make_node("Size", ["seed"], ["size"]),
            helper.make_node("Mul", ["size", "size"], ["square"]),
        ]
        count = "square"
    elif form == 2:
        nodes, count = [helper.make_node("Size", ["seed"], ["size"])], "size"
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["d"]),
            helper.make_node("Concat", ["v", "v" if form == 0 else "seed"], ["w"], axis=0),
        ],
        "body",
        [info("i", 7, []), info("c", 9, []), info("v", 1, None)],
        [info("d", 9, []), info("w", 1, None)],
    )
    loop = helper.make_node("Loop", [count, "on", "seed"], ["looped"], body=body)
    model.graph.node.extend([*nodes, loop])
    model.graph.output.append(info("looped", 1, None))


def foreign_node(model: onnx.ModelProto, rng: Random) -> None:
    node = pick(rng, model.graph.node)
    node.domain = str(rng.choice(["com.microsoft", "evil", HOSTILE, "ai.onnx.ml"]))


def external_weight(model: onnx.ModelProto, rng: Random) -> None:
    tensor = pick(rng, model.graph.initializer)
    places = ["../secret", "/etc/passwd", "missing.bin", "model.onnx", HOSTILE, ""]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(rng.choice(places)))


def odd_shape_stated(model: onnx.ModelProto, rng: Random) -> None:
    """The stated shape of an input or output, changed."""
    value = pick(rng, [*model.graph.output, *model.graph.input])
    dims = value.type.tensor_type.shape.dim
    if rng.random() < 0.4 and dims:
        del dims[int(rng.integers(len(dims)))]
    elif dims:
        pick(rng, dims).dim_value = int(rng.choice([0, 1, 7, 11, 2**20, 2**40]))
    if rng.random() < 0.2:
        value.type.tensor_type.elem_type = int(rng.choice([1, 7, 8, 9, 10, 16]))


def odd_values(model: onnx.ModelProto, rng: Random) -> None:
    tensor = pick(rng, model.graph.initializer)
    values = numpy_helper.to_array(tensor).copy()
    if values.size and values.dtype.kind in "fi":
        odd_ones = [np.nan, np.inf, -1e38, 0] if values.dtype.kind == "f" else [-1, 0, 5, 10**6]
        place = int(rng.integers(values.size))
        values.flat[place] = np.asarray(rng.choice(odd_ones)).astype(values.dtype)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


CHANGES: tuple[Change, ...] = (
    replaced_value,
    replaced_value,
    raw_value,
    inner_value,
    inner_value,
    inner_value,
    dropped_key,
    swapped_values,
    odd_number,
    added_key,
    hostile_names,
    replaced_output,
    replaced_output,
    growing,
    endless,
    gathering,
    foreign_node,
    external_weight,
    odd_shape_stated,
    odd_values,
    odd_attribute,
    odd_input,
    odd_type,
    renamed_operator,
    rewired,
    dropped,
)


def compiled_sources(folder: Path) -> list[bytes]:
    """The honest files."""
    files = {file.name: file for file in manifest()}
    path, found = folder / "source.onnx", []
    for name, choices in SOURCES:
        path.write_bytes(files[name].data)
        found.append(compile_model(path, **choices).model.SerializeToString())
    path.unlink()
    return found


def lie(sources: list[bytes], seed: int) -> tuple[str, bytes]:
    """(what was changed, the file number `seed`)."""
    rng = np.random.default_rng(seed)
    model = onnx.load_from_string(sources[seed % len(sources)])
    names = []
    for _ in range(1 if rng.random() < 0.8 else 2):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        names.append(change.__name__)
        change(model, rng)
    return " ".join(names), model.SerializeToString()


def controls(text: str) -> str:
    """The characters of a text that a terminal would obey."""
    return "".join(
        sorted({c for c in text if (ord(c) < 32 and c not in "\n\t") or c in "\u202e\x7f"})
    )


def command(arguments: list[str]) -> tuple[str, str]:
    """(``well``, ``refused`` or what went wrong, what was printed) of one command."""
    done = CliRunner().invoke(command_line, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return "".join(traceback.format_exception(done.exception)[-3:]), done.output
    if found := controls(done.output):
        return f"printed {found!r}: {done.output!r}", done.output
    if done.exit_code not in (0, 1):
        return f"exit {done.exit_code}: {done.output[-500:]}", done.output
    return "well" if done.exit_code == 0 else "refused", done.output


def both(folder: Path, first: Path, report: str) -> dict[str, str]:
    """What `explain` and `verify` do with a file; `report` is as in ``--report``."""
    path, common = str(folder / "model.onnx"), ["--provider", "cpu", "--threads", "1"]
    where = ["-o", str(folder / "out"), "--force", "--report", report]
    explained = command(["explain", path, str(first), *where, *common])
    verified = command(["verify", path, *common])
    return {"explain": explained[0], "verify": verified[0], "said": explained[1] + verified[1]}


def apart(work: Callable[[], dict[str, str]]) -> tuple[dict[str, str], float, int]:
    """What `work` returns, in a process of its own; its seconds of a processor and bytes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(WAIT)
        with os.fdopen(writing, "w", encoding="utf-8") as pipe:
            json.dump(work(), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    seconds, size = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    if not text:
        wrong = f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no answer"
        return {"explain": wrong, "verify": wrong, "said": ""}, seconds, size
    return json.loads(text), seconds, size


def main(first: int, count: int, folder: Path, report: str = "none", minutes: str = "600") -> None:
    folder.mkdir(exist_ok=True)
    sources = compiled_sources(folder)
    series = folder / "series.npy"
    np.save(series, np.random.default_rng(0).normal(size=(2, 128)).astype(np.float32))
    tally: dict[str, int] = {}
    wrong, slowest, most = [], 0.0, 0
    until = time.monotonic() + 60 * float(minutes)
    for seed in range(first, first + count):
        if time.monotonic() > until:
            break
        try:
            changed, data = lie(sources, seed)
        except (ValueError, TypeError):  # two changes that do not go together
            tally["no file"] = tally.get("no file", 0) + 1
            continue
        (folder / "model.onnx").write_bytes(data)
        picture = series if seed % len(sources) == 5 else SAMPLE
        found, seconds, size = apart(lambda picture=picture: both(folder, picture, report))
        for name in ("explain", "verify"):
            result = found[name]
            kind = result if result in ("well", "refused") else "wrong"
            tally[f"{name} {kind}"] = tally.get(f"{name} {kind}", 0) + 1
            if kind == "wrong":
                wrong.append(f"{seed} {changed}: {name}: {result}")
        slowest, most = max(slowest, seconds), max(most, size)
        if size > BYTES or seconds > SECONDS:
            wrong.append(f"{seed} {changed}: {seconds:.1f} s, {size:,} bytes")
        beside = {path.name for path in folder.iterdir()} - {"model.onnx", "series.npy", "out"}
        if beside:
            wrong.append(f"{seed} {changed}: wrote {sorted(beside)}")
    print(json.dumps({"tally": tally, "wrong": wrong, "slowest": slowest, "memory": most}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
