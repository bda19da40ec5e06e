"""Methods as explainers: their maps, their targets, and models that cannot be compiled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import with_rounding

from lrp_onnx.cli.commands import main
from lrp_onnx.evaluation.explaining import MethodExplainer
from lrp_onnx.evaluation.methods import find_method
from lrp_onnx.evaluation.subject import Subject
from lrp_onnx.runtime.images import read_image

ROOT = Path(__file__).parents[2]
MODEL, SAMPLES = ROOT / "models" / "shapes-resnet.onnx", ROOT / "models" / "samples"
STAR, HEART = SAMPLES / "star.png", SAMPLES / "heart.png"


@pytest.mark.parametrize("method", ["grad-cam", "occlusion(stride=0.3)", "lrp-resnet"])
def test_maps_are_the_method_s(method: str) -> None:
    explainer = MethodExplainer(MODEL, f"{method}+c3:outside=rank,size=14", choices={})
    subject = Subject(MODEL)
    for one in explainer.explain_images([STAR, HEART], batch_size=2):
        x = subject.prepare(read_image(one.path)).tensor[None]
        (raw,) = find_method(method, subject).maps(x, np.array([one.target]))
        (shown,) = find_method(f"{method}+c3:outside=rank,size=14", subject).maps(
            x, np.array([one.target])
        )
        assert one.target_name == one.path.stem and one.start_value is None
        assert one.heatmap_raw is not None and one.region is not None
        np.testing.assert_allclose(one.heatmap_raw, raw, atol=1e-5 * np.abs(raw).max())
        np.testing.assert_allclose(one.heatmap, shown, atol=1e-4 * np.abs(shown).max())
        assert one.post.startswith("c3(") and one.composite == method


def test_targets_by_rank_and_by_name() -> None:
    explainer = MethodExplainer(MODEL, "recipro-cam", many_targets=True, choices={})
    found = list(explainer.explain_images([STAR, HEART], target=[-1, -2, 3]))
    assert [one.path for one in found] == [STAR] * 3 + [HEART] * 3
    for one in (found[:3], found[3:]):
        best = [index for index, _, _ in one[0].top5]
        assert [explained.target for explained in one] == [best[0], best[1], 3]
    single = MethodExplainer(MODEL, "recipro-cam", choices={})
    (star,) = single.explain_images([STAR], target="heart")
    assert star.target_name == "heart" and star.top5[0][1] == "star"


def test_a_model_that_cannot_be_compiled_is_explained(tmp_path: Path) -> None:
    refused_model = tmp_path / "model.onnx"
    onnx.save(with_rounding(), refused_model)
    command = ["explain", str(refused_model), str(STAR), "-o", str(tmp_path / "out"), "--json"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1 and "--method occlusion" in refused.stderr
    found = CliRunner().invoke(main, [*command, "--method", "occlusion", "--top", "2"])
    assert found.exit_code == 0, found.output
    first, second = map(json.loads, found.stdout.splitlines())
    assert first["composite"] == "occlusion" and first["start"]["value"] is None
    assert first["target"]["index"] != second["target"]["index"]
    assert (tmp_path / "out" / "report.html").exists()
    other = CliRunner().invoke(main, [*command, "--method", "rise(20)", "--top", "2"])
    assert other.exit_code == 1 and "method: occlusion there, rise(20) here" in other.stderr


def test_a_method_stands_without_a_composite() -> None:
    command = ["explain", "m.onnx", "x.png", "--method", "grad-cam", "--composite", "lrp-resnet"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "--method and --composite" in result.stderr
