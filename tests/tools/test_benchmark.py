"""The benchmark and its companions run, and say what they
measured; the guide's table is the stored results'.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
from networks import Network

from tools.benchmark import report
from tools.benchmark.arithmetic import multiply_adds

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "shapes-resnet.onnx"


def run(tool: str, *arguments: object) -> str:
    command = [sys.executable, "-m", f"tools.benchmark.{tool}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_measures_the_embedded_model(tmp_path: Path) -> None:
    choices = [
        "--composite",
        "c3-lrp",
        "gradient",
        "--top",
        3,
        "--resolution",
        12,
        "--memory",
        "--profile",
    ]
    sizes = ["--batch", 1, 2, "--runs", 2, "--threads", 1, "--json", tmp_path / "b.json"]
    said = run("run", "--model", MODEL, *choices, *sizes)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["threads"] == 1 and found["processor"] and "lrp-onnx" in found["versions"]
    rows = {(row["batch"], row["method"]): row for row in found["rows"]}
    forms = [
        f"{name}{form}" for name in ("c3-lrp", "gradient") for form in ("", " --resolution 12")
    ]
    tops = {(1, f"{name} --top 3") for name in ("c3-lrp", "gradient")}
    assert set(rows) == {(b, m) for b in (1, 2) for m in ("forward", *forms)} | tops
    for (batch, method), row in rows.items():
        assert row["milliseconds"] > 0 and row["session_seconds"] > 0
        assert (
            abs(row["pictures_per_second"] - 1000 * batch / row["milliseconds"])
            < 1e-6 * row["pictures_per_second"]
        )
        assert (row["multiple"] == 1) == (method == "forward")
        if (batch, method) not in tops:
            assert 0 < row["run_megabytes"] < row["peak_megabytes"]
        assert f"| {batch} | {method} |" in said
    for batch in (1, 2):
        coarse, full = (
            rows[batch, f"c3-lrp{form}"]["arithmetic"] for form in (" --resolution 12", "")
        )
        assert 1 < coarse < full < 2.1
    assert found["profiles"]["shapes-resnet c3-lrp, batch 1"]["Conv"] > 0


def test_the_passes_are_measured(tmp_path: Path) -> None:
    sizes = ("--batch", 1, "--runs", 2, "--json", tmp_path / "p")
    said = run("passes", "--model", MODEL, "--composite", "lrp-resnet", *sizes)
    rows = json.loads((tmp_path / "p").read_text())["passes"]
    assert rows[0]["ratio"] == 1 and {"signs", "ratios", "relevance_last"} < {
        row["without"] for row in rows
    }
    assert all(f"| {row['without']} |" in said and row["peak_megabytes"] > 0 for row in rows)


def test_files_are_timed_as_they_are_shipped(tmp_path: Path) -> None:
    forms = ("residual-c3", "residual-c3 --top 3", "lrp-resnet @1/8", "lrp-resnet")
    sizes = ("--batch", 1, 2, "--runs", 2, "--rounds", 1, "--json", tmp_path / "a.json")
    said = run("alone", "--model", MODEL, "--forms", *forms, *sizes)
    found = json.loads((tmp_path / "a.json").read_text())
    rows = {(row["batch"], row["method"]): row for row in found["alone"]}
    every = {(batch, form) for batch in (1, 2) for form in ("forward", *forms)}
    assert set(rows) == every - {(2, "residual-c3 --top 3")}
    for (batch, form), row in rows.items():
        assert row["multiple"] == row["milliseconds"] / rows[batch, "forward"]["milliseconds"] > 0
        assert f"| {batch} | {form} |" in said
    assert rows[1, "lrp-resnet @1/8"]["arithmetic"] < rows[1, "lrp-resnet"]["arithmetic"]
    assert rows[1, "residual-c3 --top 3"]["arithmetic"] is None


def test_the_default_s_cost_is_the_bound_s() -> None:
    """At most 2.5 forward passes of a ResNet-50, its five best classes 6, c3-lrp at 1/8 1.9."""
    found = report.read(ROOT / "models" / "benchmark" / "alone.json")
    assert "--network resnet50" in found["command"]
    costs = {(row["batch"], row["method"]): row["multiple"] for row in found["alone"]}
    assert max(costs[batch, "residual-c3"] for batch in (1, 8)) <= 2.5
    assert costs[1, "residual-c3 --top 5"] <= 6
    assert max(costs[batch, "c3-lrp @1/8"] for batch in (1, 8)) <= 1.9


def test_coarse_maps_are_compared(tmp_path: Path) -> None:
    arguments = ("--composite", "lrp-resnet", "--resolution", "24", "12", "--json", tmp_path / "c")
    run("coarse", MODEL, ROOT / "models" / "samples", *arguments)
    rows = json.loads((tmp_path / "c").read_text())["coarse"]
    assert [row["resolution"] for row in rows] == ["24", "12"]
    for row in rows:
        low, middle, high = row["correlation"]
        assert -1 <= low <= middle <= high <= 1 and 0 <= row["overlap"][1] <= 1


def test_multiply_adds_by_hand() -> None:
    """Strided and grouped convolution, its transpose, a dense
    layer; what depends on weights alone is not counted.
    """
    net = Network(0)
    y = net.conv(
        "x", (4, 6), (3, 3), group=2, strides=[2, 2], pads=[1] * 4
    )  # 6·4·4 outputs, 2·9 products each
    weight = net.constant("w", net.rng.normal(size=(6, 5, 2, 2)).astype("float32"))
    derived = net.node("Relu", weight)
    y = net.node(
        "ConvTranspose", y, derived, kernel_shape=[2, 2], strides=[2, 2]
    )  # 6·4·4 inputs, 5·4 products each
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    model = net.model(net.dense(y, (5, 7)), ["N", 4, 8, 8])
    assert multiply_adds(model) == {"Conv": 6 * 16 * 18, "ConvTranspose": 6 * 16 * 20, "Gemm": 35}
    assert sum(multiply_adds(onnx.load(MODEL)).values()) > 1e6


def test_the_stored_results_are_what_is_shown() -> None:
    results = [
        report.read(ROOT / "models" / "benchmark" / f"{name}.json") for name in report.RESULTS
    ]
    guide = report.GUIDE.read_text(encoding="utf-8")
    assert report.with_summary(guide, results[0]) == guide
    assert (ROOT / "models" / "BENCHMARK.md").read_text(encoding="utf-8") == report.page(results)
