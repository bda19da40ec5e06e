"""What "unchanged" means: equal bits without optimisations, and a note of what they move."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import Arrays, run_onnx
from networks import picture, resnet
from numpy.typing import NDArray
from zoo_files import feeds, manifest

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import runner_on
from lrp_onnx.compiled.runner import in_batches
from lrp_onnx.compiled.unchanged import SAME_OUTPUT, changed_outputs, compare
from lrp_onnx.compiled.verify import audit, check_compiled
from lrp_onnx.compiler import Compiled, compile_model
from lrp_onnx.errors import ModelFileError, VerificationError
from lrp_onnx.model.normalize.padded_pools import runnable

Save = Callable[[onnx.ModelProto], Path]


def near_zero() -> onnx.ModelProto:
    """A ResNet whose logits nearly cancel: rounding moves them by 1e-4 of their largest value.

    It sees pictures as 1 + x / 1000, and its last bias takes away the logits of x = 0.
    """
    model = resnet(size=(32, 32), widths=(8, 16))
    (logits,) = run_onnx(model, {"x": np.ones((1, 3, 32, 32), np.float32)}).values()
    for node in model.graph.node:
        node.input[:] = ["prepared" if name == "x" else name for name in node.input]
    add = onnx.helper.make_node("Add", ["scaled", "one"], ["prepared"], name="add")
    model.graph.node.insert(0, add)
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["x", "scale"], ["scaled"], name="mul"))
    for name, value in (("scale", 1e-3), ("one", 1.0)):
        constant = onnx.numpy_helper.from_array(np.float32(value), name)
        model.graph.initializer.append(constant)
    change_bias(model, lambda bias: bias - logits[0])
    return model


def change_bias(model: onnx.ModelProto, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Change the bias of the Gemm that makes the logits."""
    (gemm,) = (n for n in model.graph.node if n.op_type == "Gemm" and not n.name.startswith("lrp/"))
    bias = next(t for t in model.graph.initializer if t.name == gemm.input[2])
    values = change(onnx.numpy_helper.to_array(bias)).astype(np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))


def test_what_optimisations_move_is_a_note(saved: Save) -> None:
    path = saved(near_zero())
    compiled = compile_model(path, composite="epsilon-gamma-plus", runner=runner_on("cpu"))
    x = {"x": np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)}
    model = onnx.load(path)
    (before,), (after, *_) = (tuple(run_onnx(m, x).values()) for m in (model, compiled.model))
    assert np.abs(after - before).max() > SAME_OUTPUT * np.abs(before).max()
    (note,) = (note for note in compiled.plan.notes if "optimisations" in note)
    numbers = re.findall(r"\d\.\de-\d\d", note)
    assert len(numbers) == 4 and all(1e-6 < float(number) < 1e-3 for number in numbers)
    assert "no prediction of 1 changes" in note and note.endswith("are equal bit for bit")


def test_the_commands_show_the_note(saved: Save, tmp_path: Path) -> None:
    path, out = saved(near_zero()), tmp_path / "out.onnx"

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    said = "note: the runtime's optimisations move the output"
    compiling = ("compile", path, "-o", out, "--composite", "epsilon-gamma-plus")
    assert said in call(*compiling)
    summary = json.loads(call(*compiling, "--force", "--json"))
    assert any("optimisations move" in note for note in summary["notes"])
    verify = ("verify", out, "--original", path, "--provider", "cpu")
    assert said in call(*verify)
    found = json.loads(call(*verify, "--json"))
    assert found["passed"] and sum(said[6:] in note for note in found["notes"]) == 1
    (movement,) = found["movements"]
    assert movement["pictures"] == 2 and movement["predictions"] == 0
    assert all(0 < movement[key] < 1e-3 for key in ("compiled", "original", "between", "nudged"))


def test_one_unit_in_the_last_place_is_a_change(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    compiled, original = compile_model(path), onnx.load(path)
    x = picture(original)
    report = audit(compiled.model, compiled.contract, run_onnx, pictures=x, original=original)
    assert report.passed and report.notes == ()
    check_compiled(compiled.model, original, compiled.contract, run_onnx)
    change_bias(compiled.model, lambda bias: np.nextafter(bias, np.float32(np.inf)) + 1e-7)
    report = audit(compiled.model, compiled.contract, run_onnx, pictures=x, original=original)
    assert dict(report.checks)["original outputs unchanged"]
    with pytest.raises(VerificationError, match="no change is allowed"):
        check_compiled(compiled.model, original, compiled.contract, run_onnx)


def zoo(name: str, folder: Path) -> tuple[Compiled, onnx.ModelProto, NDArray[Any]]:
    """(compiled, original, pictures) of a file of the zoo."""
    (file,) = (file for file in manifest() if file.name == name)
    compiled = compile_model(file.save(folder), composite="lrp-resnet", runner=runner_on("cpu"))
    (pictures,) = feeds(file, compiled.model).values()
    return compiled, runnable(file.model), pictures


def test_the_real_movement_of_int8_is_said(tmp_path: Path) -> None:
    """How far they are moved depends on the processor's kernels: by nothing with VNNI."""
    compiled, original, x = zoo("core-qdq-channels.onnxruntime", tmp_path)
    report = audit(compiled.model, compiled.contract, run_onnx, pictures=x, original=original)
    (movement,) = report.movements
    (before,), (plain,) = (
        run_onnx(original, {compiled.contract.input: x}, optimize=on).values()
        for on in (True, False)
    )
    moved = float(np.abs(before - plain).max() / np.abs(plain).max())
    assert report.passed and movement.original == pytest.approx(moved)
    said = any("optimisations move" in note for note in compiled.plan.notes)
    if moved < 1e-6:
        assert not said and not report.notes
        pytest.skip("this processor's int8 kernels give the bits of the unoptimised ones")
    assert said and f"by {moved:.1e} in the original" in report.notes[0]


def test_fused_operators_are_compared_to_rounding(tmp_path: Path) -> None:
    compiled, original, x = zoo("core.onnxruntime-extended", tmp_path)
    report = audit(compiled.model, compiled.contract, run_onnx, pictures=x, original=original)
    assert report.passed
    assert report.notes[0].startswith("the original has fused operators of com.microsoft")
    change_bias(original, lambda bias: bias * 1.01)
    report = audit(compiled.model, compiled.contract, run_onnx, pictures=x, original=original)
    (fault,) = dict(report.checks)["original outputs unchanged"]
    assert fault.endswith("1e-05 is rounding")


def test_a_runtime_that_always_optimises(saved: Save) -> None:
    def always(
        model: bytes, feeds: Mapping[str, NDArray[np.generic]], *, optimize: bool = True
    ) -> Arrays:
        if not optimize:
            raise ModelFileError("there are no such kernels")
        return run_onnx(model, feeds)

    path = saved(resnet(size=(32, 32)))
    compiled = compile_model(path, runner=always)
    assert "cannot run the original without optimisations" in compiled.plan.notes[-1]
    assert "1e-05 of their largest value" in compiled.plan.notes[-1]
    other = resnet(size=(32, 32), seed=1)
    with pytest.raises(VerificationError, match="is rounding"):
        check_compiled(compiled.model, other, compiled.contract, always)


def test_integer_pictures_are_not_nudged(tmp_path: Path) -> None:
    compiled, original, x = zoo("core.torchscript-uint8-nhwc", tmp_path)
    found = compare(
        compiled.model,
        original,
        compiled.contract,
        run_onnx,
        pictures=x,
        optimised=run_onnx(compiled.model, {compiled.contract.input: x}),
        measure=True,
    )
    assert found.faults == () and [m.nudged for m in found.movements] == [None]


@pytest.mark.parametrize("size", [None, 1, 2, 3, 5, 8])
def test_batches_of_a_fixed_size(size: int | None) -> None:
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    seen = []

    def double(
        model: bytes, feeds: Mapping[str, NDArray[np.generic]], *, optimize: bool = True
    ) -> dict[str, NDArray[np.generic]]:
        assert model == b"model" and not optimize
        seen.append(len(feeds["x"]))
        return {"y": 2 * feeds["x"].astype(np.float32)}

    found = in_batches(double, b"model", "x", x, size, optimize=False)
    assert np.array_equal(found["y"], 2 * x) and set(seen) == {size or 5}


def test_what_counts_as_equal() -> None:
    one = {"y": np.array([[1.0, np.nan]], np.float32)}
    assert changed_outputs(one, {"y": one["y"].copy()}) == []
    assert "missing" in changed_outputs(one, {})[0]
    assert changed_outputs(one, {"y": one["y"].astype(np.float64)})
    assert changed_outputs(one, {"y": one["y"][0]})
    near = {"y": np.array([[1.0, np.nextafter(np.float32(2), np.float32(3))]], np.float32)}
    exact = {"y": np.array([[1.0, 2.0]], np.float32)}
    assert changed_outputs(exact, near) and changed_outputs(exact, near, tolerance=1e-6) == []
