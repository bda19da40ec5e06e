"""The memory that a file says it needs: by hand, against a
second count, and against what a process really takes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import resnet
from onnx import TensorProto, helper

from lrp_onnx.compiled.memory import memory_of
from lrp_onnx.compiler import compile_model
from lrp_onnx.runtime.explainer import SLACK, Explainer
from lrp_onnx.runtime.memory import UNKNOWN_FREE, memory_now

Save = Callable[[onnx.ModelProto], Path]


def test_by_hand() -> None:
    """x → a → b, a + b → y, each 4·10·N bytes: all four are
    alive at once; a chain of constants is not counted.
    """
    weight = onnx.numpy_helper.from_array(np.zeros(1000, np.float32), "w")
    nodes = [
        helper.make_node("Relu", ["w"], ["derived"]),
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
        helper.make_node("ReduceSum", ["derived"], ["s"], keepdims=0),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 10]) for name in ("x", "y")
    )
    s = helper.make_tensor_value_info("s", TensorProto.FLOAT, [])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y, s], [weight]))
    assert memory_of(model) == (0, 4 * 40)


def test_a_file_says_it_and_more_targets_take_more(saved: Save) -> None:
    path = saved(resnet(size=(64, 64), widths=(8, 16)))
    one, many = (compile_model(path, many_targets=m).contract for m in (False, True))
    assert one.memory_each > 8 * 32 * 32 * 4 and one.memory_fixed < one.memory_each / 100
    assert many.memory_fixed > 0 and 0 < many.memory_each < one.memory_each
    assert compile_model(path, composite="lrp-resnet").contract.memory_each > one.memory_each


def test_a_budget_becomes_a_batch(saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(
        compile_model(saved(resnet(size=(64, 64), widths=(8, 16)))).model.SerializeToString(),
        providers="cpu",
    )
    each = SLACK * explainer.contract.memory_each
    monkeypatch.setattr("lrp_onnx.runtime.explainer.memory_now", lambda: (1e8, 20.5 * each))
    assert explainer.batch_within() == 10
    assert explainer.batch_within(1e8 + 7.5 * each) == 7
    assert explainer.batch_within(5e7) == 1


def test_what_linux_says(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name: x\nVmRSS:\t   2000 kB\n")
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemAvailable:   3000 kB\n")
    assert memory_now(tmp_path) == (2000 * 1024, 3000 * 1024)
    assert memory_now(tmp_path / "none") == (0, UNKNOWN_FREE)


CHILD = """
import sys
import numpy as np
from lrp_onnx.runtime.explainer import Explainer

def held(what):
    return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith(what)).split()[1])

explainer = Explainer(sys.argv[1], providers="cpu", threads=1)
budget = held("VmRSS") + 150e6
batch = explainer.batch_within(budget)
explainer.explain(np.random.default_rng(0).normal(size=(batch, 3, 96, 96)).astype(np.float32))
print(batch, held("VmHWM"), budget)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux says how much memory a process holds"
)
@pytest.mark.parametrize("composite", ["c3-lrp", "lrp-resnet", "gradient", "epsilon-gamma-box"])
def test_a_process_stays_within_its_budget(composite: str, saved: Save, tmp_path: Path) -> None:
    compiled = compile_model(saved(resnet(size=(96, 96), widths=(16, 32, 64))), composite=composite)
    path = compiled.save(tmp_path / "c.onnx")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
    )
    batch, peak, budget = map(float, done.stdout.split())
    assert batch > 5 and peak <= budget, done.stdout
