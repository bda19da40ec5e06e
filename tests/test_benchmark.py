"""The benchmark runs, and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_benchmark_measures_the_embedded_model(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "benchmark.py"), "--model", str(ROOT / "models/shapes-resnet.onnx")]
    command += ["--composite", "c3-lrp", "gradient", "--batch", "1", "2", "--runs", "2", "--threads", "1", "--memory"]
    done = subprocess.run([*command, "--json", str(tmp_path / "b.json")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["threads"] == 1 and found["processor"] and "lrp-onnx" in found["versions"]
    rows = {(row["batch"], row["method"]): row for row in found["rows"]}
    assert set(rows) == {(b, m) for b in (1, 2) for m in ("forward", "c3-lrp", "gradient")}
    for (batch, method), row in rows.items():
        assert row["milliseconds"] > 0 and row["peak_megabytes"] > 0
        assert abs(row["pictures_per_second"] - 1000 * batch / row["milliseconds"]) < 1e-6 * row["pictures_per_second"]
        assert (row["multiple"] == 1) == (method == "forward")
        assert f"| {batch} | {method} |" in done.stdout
