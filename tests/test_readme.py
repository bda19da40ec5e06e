"""What the README says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import lrp_onnx
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.preprocess import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = ROOT / "models" / "shapes-resnet.onnx"


def composite_rows() -> list[str]:
    rows = ["| composite | what it does | starts from | source |", "|---|---|---|---|"]
    return rows + [
        f"| `{name}` | {c.title} | {c.start} | {c.source} |" for name, c in COMPOSITES.items()
    ]


def test_the_table_of_composites_is_the_registry() -> None:
    assert "\n".join(composite_rows()) in README


def test_every_preset_and_public_name_is_mentioned() -> None:
    for preset in PRESETS:
        assert f"`{preset}`" in README
    for name in ("Explainer", "Options", "compile_model"):
        assert name in README and hasattr(lrp_onnx, name)


def test_the_changelog_and_the_package_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {lrp_onnx.__version__}" in changelog
    assert f"lists {len(COMPOSITES)} named composites" in changelog


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the README, in order, on the embedded model and a sample picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(MODEL.read_bytes())
    (tmp_path / "photo.jpg").write_bytes((ROOT / "models" / "samples" / "star.png").read_bytes())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "star.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes())
    compile_model("model.onnx").save("model.lrp.onnx")
    compile_model("model.onnx", many_targets=True).save("many.lrp.onnx")
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        code = block.replace('"tabby"', '"star"').replace(
            '.save("model.lrp.onnx")', ".save('model.lrp.onnx', force=True)"
        )
        exec(compile(code, "README.md", "exec"), names)
    rows = names["rows"]
    assert isinstance(rows, list) and {row["method"] for row in rows} == {"lrp-resnet", "grad-cam"}
    assert np.shape(names["heatmap"]) == (1, 96, 96) and np.shape(names["heatmaps"]) == (5, 96, 96)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_compiled_file_is_hardly_larger(composite: str) -> None:
    compiled = compile_model(
        MODEL, Options(composite=composite, outputs=("heatmap", "relevance"))
    ).model
    # The matrices that resample maps depend on the picture's size, not on the model.
    resampling = sum(
        tensor.ByteSize()
        for tensor in compiled.graph.initializer
        if tensor.data_type == onnx.TensorProto.DOUBLE
    )
    assert len(compiled.SerializeToString()) - resampling <= 1.05 * MODEL.stat().st_size


def test_the_embedded_model_explains_its_objects() -> None:
    """Samples are recognised; under lrp-resnet relevance is
    at least 2.5 times denser on and beside the object.
    """
    import cv2

    data = compile_model(MODEL, Options(composite="lrp-resnet")).model.SerializeToString()
    paths = sorted((ROOT / "models" / "samples").glob("*.png"))
    assert len(paths) == 4
    for found in Explainer(data, providers="cpu").explain_images(paths):
        assert found.target_name == found.path.stem and found.top5[0][2] > 0.9
        mask = cv2.imread(str(ROOT / "models" / "masks" / found.path.name), cv2.IMREAD_GRAYSCALE)
        near = (
            cv2.resize(
                cv2.dilate(mask, np.ones((25, 25), np.uint8)),
                (96, 96),
                interpolation=cv2.INTER_AREA,
            )
            > 127
        )
        share = float(found.heatmap[near].sum() / found.heatmap.sum())
        assert share > 2.5 * near.mean(), (found.path.name, share)


def test_the_embedded_model_is_small_and_says_how_to_use_it() -> None:
    proto = onnx.load(MODEL)
    keys = {entry.key for entry in proto.metadata_props}
    assert MODEL.stat().st_size <= 3_000_000 and keys == {
        "lrp_onnx.preprocessing",
        "lrp_onnx.labels",
    }
    assert (ROOT / "models" / "shapes-resnet.labels.txt").read_text().split() == list(
        Explainer(compile_model(MODEL).model.SerializeToString()).labels
    )
