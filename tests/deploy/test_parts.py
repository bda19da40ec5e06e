"""Rows of a bulk run and the folder of Parquet files, without a cluster."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lrp_onnx.cli.commands import main
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import HEATMAP, HEATMAP_RAW
from lrp_onnx.deploy.rows import map_of, row_of
from lrp_onnx.errors import OutputError, OutputExistsError
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import Explanation

ROOT = Path(__file__).parents[2]
MODEL, PHOTO = ROOT / "models" / "shapes-resnet.onnx", ROOT / "models" / "samples" / "heart.png"


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    """With a region of C3 and the relevance before it."""
    options = Options(outputs=(HEATMAP, HEATMAP_RAW, "c3"))
    compiled = compile_model(MODEL, options).model.SerializeToString()
    return next(Explainer(compiled, providers="cpu").explain_images([PHOTO]))


def test_a_row_says_what_the_explanation_says(explanation: Explanation) -> None:
    row = row_of(explanation, path="a/heart.png", sha256="ab", keep="float32")
    assert (row["path"], row["sha256"]) == ("a/heart.png", "ab")
    assert (row["height"], row["width"]) == explanation.photo.shape[:2]
    found = [(one["index"], one["name"], one["probability"]) for one in row["top5"]]
    assert found == list(explanation.top5)
    assert row["target"]["name"] == "heart"
    assert row["target"]["probability"] == explanation.probability
    assert row["target"]["score"] == explanation.scores[explanation.target]
    assert row["sums"] == explanation.sums and row["start_value"] == explanation.start_value
    np.testing.assert_array_equal(map_of(row["map"]), explanation.heatmap)


def test_half_of_a_map_and_none(explanation: Explanation) -> None:
    half = row_of(explanation, path="", sha256=None, keep="float16")["map"]
    whole = row_of(explanation, path="", sha256=None, keep="float32")["map"]
    assert len(half) < len(whole)
    np.testing.assert_array_equal(map_of(half), explanation.heatmap.astype(np.float16))
    assert row_of(explanation, path="", sha256=None, keep="none")["map"] is None


def test_the_box_of_c3_lies_around_its_region(explanation: Explanation) -> None:
    """In the pixels of a picture whose middle alone the model sees."""
    from dataclasses import replace

    from lrp_onnx.runtime.preprocess import Box

    region = np.zeros((14, 14), np.bool_)
    region[2, 3:5] = region[6, 9] = True
    photo = np.zeros((140, 300, 3), np.uint8)
    changed = replace(explanation, region=region, photo=photo, box=Box(80, 0, 140, 140))
    found = row_of(changed, path="", sha256=None, keep="none")["c3"]
    assert found == {"left": 110, "top": 20, "right": 180, "bottom": 70, "share": 3 / 196}
    nothing = replace(changed, region=np.zeros((14, 14), np.bool_))
    assert row_of(nothing, path="", sha256=None, keep="none")["c3"] is None


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    arguments = ["bulk", str(MODEL), str(PHOTO), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert 'pip install "lrp-onnx[ray]"' in result.stderr
    assert not (tmp_path / "out").exists()


class TestFolder:
    """The folder of parts."""

    @pytest.fixture(autouse=True)
    def needs_arrow(self) -> None:
        pytest.importorskip("pyarrow", reason="the extra ray is not installed: no pyarrow")

    def table(self, *names: str) -> Any:
        from lrp_onnx.deploy.rows import table_of

        return table_of([{"path": name, "sha256": f"of {name}"} for name in names])

    def test_a_part_that_is_written_again_is_the_same_file(self, tmp_path: Path) -> None:
        from lrp_onnx.deploy.parts import done_in, write_part

        first = write_part(tmp_path, self.table("a", "b"))
        assert write_part(tmp_path, self.table("a", "b")) == first
        assert write_part(tmp_path, self.table("a")) != first
        assert [row.path for row in done_in(tmp_path)].count("b") == 1
        assert len(list(tmp_path.iterdir())) == 2

    def test_rows_are_removed(self, tmp_path: Path) -> None:
        from lrp_onnx.deploy.parts import done_in, drop, write_part

        write_part(tmp_path, self.table("a", "b", "c"))
        write_part(tmp_path, self.table("d"))
        drop(tmp_path, [row for row in done_in(tmp_path) if row.path in "bd"])
        assert sorted(row.path for row in done_in(tmp_path)) == ["a", "c"]
        assert len(list(tmp_path.iterdir())) == 1

    def test_other_settings_are_refused(self, tmp_path: Path) -> None:
        from lrp_onnx.deploy.parts import begin, check_settings, parts_of, write_part

        begin(tmp_path, {"target": None, "map": "none", "sizes": (1, 2)}, force=False)
        parts = tmp_path / "parts"
        write_part(parts, self.table("a"))
        (parts / ".part-ab.parquet.x1y2z3w4").touch()
        check_settings(tmp_path, {"target": None, "map": "none", "sizes": (1, 2)})
        with pytest.raises(OutputExistsError, match="target: not given there, heart here"):
            check_settings(tmp_path, {"target": "heart", "map": "none", "sizes": (1, 2)})
        begin(tmp_path, {"target": "heart"}, force=True)
        assert not parts_of(parts) and not list(parts.iterdir())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "run.json"]

    def test_damage_is_told(self, tmp_path: Path) -> None:
        from lrp_onnx.deploy.parts import begin, check_settings, done_in, write_part

        (tmp_path / "parts").mkdir()
        part = write_part(tmp_path / "parts", self.table("a"))
        with pytest.raises(OutputExistsError, match=r"has parts, but no run\.json"):
            check_settings(tmp_path, {})
        begin(tmp_path, {}, force=False)
        part.write_bytes(part.read_bytes()[:40])
        with pytest.raises(OutputError, match=f"{part.name} cannot be read"):
            list(done_in(tmp_path / "parts"))
        (tmp_path / "run.json").write_text("[]")
        with pytest.raises(OutputError, match=r"run\.json is not a file of bulk"):
            check_settings(tmp_path, {})

    def test_a_table_reads_back(self, tmp_path: Path, explanation: Explanation) -> None:
        import pyarrow.parquet as pq

        from lrp_onnx.deploy.rows import parquet_of, table_of

        row = row_of(explanation, path="ü.png", sha256="ab", keep="float32")
        fault = {"path": "b.png", "sha256": None, "error": "it is damaged"}
        read = pq.read_table(io.BytesIO(parquet_of(table_of([row, fault])))).to_pylist()
        assert read[0] == row | {"error": None}
        assert {name for name, value in read[1].items() if value is not None} == {"path", "error"}
