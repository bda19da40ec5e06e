"""The study runs on the embedded model and twenty generated
pictures, and its page says what it found.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.methods import read_method
from tools.study import comparing, default, families, harder, report, search
from tools.study.pictures import KINDS
from tools.study.run import CASES, embedded, pictures, shapes

ROOT = Path(__file__).parents[2]
PHOTOS, STEPS = 20, 5


def study(folder: Path) -> Mapping[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tools.study.run",
        str(folder),
        "-o",
        str(folder),
        "--case",
        "shapes",
    ]
    command += ["--photos", str(PHOTOS), "--steps", str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads((folder / "shapes.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def found(folder: Path) -> Mapping[str, Any]:
    return study(folder)


def test_twenty_photos_and_more_than_twenty_methods(found: Mapping[str, Any], folder: Path) -> None:
    methods = found["methods"]
    assert found["photos"] == PHOTOS and found["correct"] >= 0.9 * PHOTOS
    assert len(methods) >= 30
    assert {
        "constant",
        "random",
        "gaussian",
        "edges",
        "grad-cam",
        "lrp-resnet",
        "c3-lrp+c3",
    } <= set(methods)
    for values in methods.values():
        assert {"exact ID", "keio ID", "srg ID", "pointing", "mass", "rank", "sparseness"} <= set(
            values
        )
        for mean, low, high in values.values():
            assert low <= mean <= high
    assert found["may_be_shown"] is True
    for picture in found["pictures"]:
        assert cv2.imread(str(folder / picture["file"])) is not None


def test_a_constant_map_games_keio_and_not_exact(found: Mapping[str, Any]) -> None:
    """Near the maximum of all methods where ties enter together,
    near chance, a random map's score, where exactly n pixels do.
    """
    methods = found["methods"]
    keio, exact = (
        {name: values[f"{p} ID"][0] for name, values in methods.items()} for p in ("keio", "exact")
    )
    assert keio["constant"] > max(keio.values()) - 0.1
    assert abs(exact["constant"]) < 0.1 and abs(exact["constant"] - exact["random"]) < 0.05


def test_relevance_lies_on_the_object(found: Mapping[str, Any]) -> None:
    """Floors of mass and rank accuracy against exact masks:
    composites that promise to explain, not noise.
    """
    methods = found["methods"]
    share = methods["constant"]["rank"][0]
    for name in (
        "lrp-resnet",
        "epsilon-plus",
        "epsilon-plus-flat",
        "epsilon-gamma-box",
        "epsilon-alpha2-beta1-flat",
        "excitation-backprop",
        "epsilon-gamma-plus",
        "epsilon-gamma-plus+smooth",
    ):
        mass, rank = methods[name]["mass"][0], methods[name]["rank"][0]
        assert mass > 2 * share and rank > 2 * share, (name, mass, rank, share)


def test_it_goes_on_where_it_was(found: Mapping[str, Any], folder: Path) -> None:
    lines = (folder / "shapes.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "shapes.jsonl").write_text("".join(lines[:-7]), encoding="utf-8")
    again = study(folder)
    for name, values in found["methods"].items():
        for column, (mean, _, _) in values.items():
            assert again["methods"][name][column][0] == pytest.approx(mean, abs=1e-3)


def test_the_page(found: Mapping[str, Any]) -> None:
    page = report.page({"shapes": found}, {}, [])
    for name in found["methods"]:
        assert f"`{name}`" in page or f"*{name}*" in page
    assert "](evaluation/shapes-0.png)" in page


def pages_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The report's own folder, moved to another place that
    has one stored case to fill the README and the guide with.
    """
    stored = folder / "models" / "evaluation"
    stored.mkdir(parents=True)
    monkeypatch.setattr(report, "STORED", stored)
    monkeypatch.setattr(report, "PAGE", folder / "models" / "EVALUATION.md")
    for name in ("README", "GUIDE"):
        text = getattr(report, name).read_bytes()
        monkeypatch.setattr(report, name, folder / f"{name}.md")
        (folder / f"{name}.md").write_bytes(text)
    return stored


@pytest.mark.parametrize("said", [{}, {"may_be_shown": False}, {"may_be_shown": True}])
def test_pictures_are_shown_of_cases_that_allow_it_alone(
    said: Mapping[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else lies in the results' folder, also where
    results do not say whether it may be shown.
    """
    results, stored = tmp_path / "results", pages_in(tmp_path / "repository", monkeypatch)
    results.mkdir()
    case = json.loads((ROOT / "models" / "evaluation" / "tin20.json").read_text(encoding="utf-8"))
    del case["may_be_shown"]
    case |= {"pictures": [{"file": "tin20-0.png", "why": "the first photo"}], **said}
    (results / "tin20.json").write_text(json.dumps(case), encoding="utf-8")
    curves = {"tin20-exact.png", "tin20-keio.png"}
    for name in (*curves, "tin20-0.png", "tin20-1.png"):
        (results / name).write_bytes(b"a picture")
    assert report.main([str(results)]) == 0
    copied = {path.name for path in stored.glob("*.png")}
    assert copied == curves | ({"tin20-0.png"} if said.get("may_be_shown") else set())
    shown = "](evaluation/tin20-0.png)" in report.PAGE.read_text(encoding="utf-8")
    assert shown == bool(said.get("may_be_shown"))


def test_no_case_of_photos_may_be_shown(tmp_path: Path) -> None:
    """Only drawn pictures may; of the others the study does not even make pictures."""
    for collection in ("tin20", "tin10", "cifar10-jpeg"):
        (tmp_path / "images" / collection).mkdir(parents=True)
        (tmp_path / "images" / collection / "labels.csv").write_text(
            "file,label\n0.png,0\n", encoding="utf-8"
        )
        cv2.imwrite(str(tmp_path / "images" / collection / "0.png"), np.zeros((8, 8, 3), np.uint8))
    made = {name: make(tmp_path, tmp_path) for name, make in CASES.items()}
    assert {name for name, case in made.items() if case.may_be_shown} == {"shapes"}
    with pytest.raises(ValueError, match="tin20 may not be shown"):
        pictures(made["tin20"], tmp_path)


def test_every_stored_picture_may_be_shown() -> None:
    cases, _, _ = report.stored(report.STORED)
    assert {name for name, case in cases.items() if case["may_be_shown"]} == {"shapes"}
    assert {path.name for path in report.STORED.glob("*.png")} == report.files_of(cases)


def test_the_stored_page_is_made_of_the_stored_results() -> None:
    cases, searches, speed = report.stored(report.STORED)
    assert {"tin20", "tin10", "cifar10", "shapes", "sanity"} <= set(cases) and {
        "tin20",
        "tin10",
    } <= set(searches)
    defaults = report.stored_defaults(report.STORED)
    assert set(defaults) == set(default.CASES)
    of_families = report.stored_families(report.STORED)
    assert set(of_families) == {n + end for n in families.NETWORKS for end in ("", ".search")}
    page = report.page(cases, searches, speed, defaults, of_families)
    assert report.PAGE.read_text(encoding="utf-8") == page
    guide, readme = (path.read_text(encoding="utf-8") for path in (report.GUIDE, report.README))
    both = defaults["tin20"], defaults["tin20-costly"]
    assert guide == report.with_table(guide, *both)
    assert readme == report.with_short_table(readme, *both)
    assert cases["tin20"]["photos"] == 500 and len(cases["tin20"]["methods"]) >= 20
    for name in ("tin20-exact.png", "tin20-keio.png"):
        assert cv2.imread(str(report.STORED / name)) is not None


def test_the_default_is_what_the_study_found_best() -> None:
    """The bounds that were written before the run, on photos that no choice was made on."""
    found = report.stored_defaults(report.STORED)["tin20"]
    assert found["photos"] >= 200 and set(default.METHODS) <= set(found["methods"])
    for metric in ("exact", "srg"):
        _, low, _, _ = found["comparisons"][metric][default.FORMER]
        assert low >= -0.01, (metric, low)
    values = {column: mean for column, (mean, _, _) in found["methods"][default.OURS].items()}
    assert found["rightly"][default.OURS][0] >= 0.93  # of photos that are predicted rightly
    assert values["lattice phase"] <= 2 and values["lattice border"] <= 1.8
    adjusted = comparing.corrected(report.stored_defaults(report.STORED))
    for rival in default.RIVALS:
        for metric in ("exact", "srg", "mosaic"):
            gap = found["comparisons"][metric][rival]
            verdict = report.verdict(gap, adjusted["tin20", metric, rival])
            assert verdict == "higher", (metric, rival, gap)


def test_the_default_s_case_runs(tmp_path: Path) -> None:
    """On the embedded model and drawn pictures; every comparison is of the stored rows."""
    paths, labels = shapes(tmp_path / "shapes", 10)
    case = replace(
        embedded(tmp_path, tmp_path),
        photos=paths,
        labels=labels,
        methods=default.METHODS,
        metrics=default.METRICS,
        steps=3,
    )
    found = default.run(case, tmp_path, 2)
    assert found["photos"] == 10 and set(found["methods"]) == set(default.METHODS)
    columns = {"exact ID", "srg ID", "rank", "mosaic", "lattice phase", "lattice border"}
    assert columns <= set(found["methods"][default.OURS])
    lines = (tmp_path / "default-shapes.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    rows = [json.loads(line) for line in lines]
    ours, grad = (
        np.array([row["srg"]["id"] for row in rows if row["method"] == name])
        for name in (default.OURS, "grad-cam")
    )
    mean, low, high, p = found["comparisons"]["srg"]["grad-cam"]
    assert mean == pytest.approx((ours - grad).mean(), abs=1e-4) and low <= mean <= high
    assert 0 < p <= 1
    adjusted = comparing.corrected({"one": found, "two": found})
    assert len(adjusted) == 2 * 3 * 7  # three metrics, seven rivals
    assert all(
        corrected >= found["comparisons"][metric][rival][3]
        for (_, metric, rival), corrected in adjusted.items()
    )
    page = report.page({}, {}, [], {"tin20": found})
    assert "Of all 21 comparisons" in page and default.HYPOTHESES[0] in page


@pytest.mark.parametrize("name", harder.NETWORKS)
def test_pictures_of_known_evidence(name: str) -> None:
    """The same from the same seed; the evidence is where the mask is: the class's form alone."""
    pictures, masks, labels = harder.make(name, 6, 3)
    again, _, _ = harder.make(name, 6, 3)
    np.testing.assert_array_equal(pictures, again)
    assert pictures.shape == (6, 96, 96, 3) and masks.shape == (6, 96, 96)
    classes = harder.NETWORKS[name][1]
    assert set(labels) <= set(range(len(classes))) and set(classes) <= set(KINDS)
    shares = masks.mean((1, 2))
    low, high = (0.002, 0.03) if name == "watermark" else (0.01, 0.2)
    assert (low < shares).all() and (shares < high).all()


def test_a_case_without_mosaics_is_shown(tmp_path: Path) -> None:
    """Drawn pictures: the relevance on the evidence is compared instead."""
    paths, labels = shapes(tmp_path / "shapes", 6)
    metrics = tuple(m for m in (*default.METRICS, *default.FILLS) if m != "mosaic")
    methods = (default.OURS, "grad-cam", "layer-cam", "random")
    case = replace(
        embedded(tmp_path, tmp_path),
        photos=paths,
        labels=labels,
        methods=methods,
        metrics=metrics,
        steps=3,
    )
    found = default.run(case, tmp_path, 2)
    assert set(found["comparisons"]) == {"exact", "srg", "mass"}
    assert set(found["comparisons"]["mass"]) == {"grad-cam", "layer-cam"}
    text = report.page({}, {}, [], {"decoys": found, "decoys-masked": found})
    assert "correlates with that of the network without by 1.00, in SRG" in text
    assert "### The fill of deleted pixels" in text and "Mosaic of the default" not in text


def test_hidden_blocks() -> None:
    """Half of the pictures stay whole; of the others no more is hidden than was said."""
    keep = harder.hidden(400, np.random.default_rng(0))
    whole = keep.min((1, 2, 3)) == 1
    assert 0.4 < whole.mean() < 0.6 and set(np.unique(keep)) == {0.0, 1.0}
    assert 0.3 < 1 - keep[~whole].mean() < 0.5


def test_a_network_that_was_not_trained_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"python -m tools\.study\.harder -o"):
        default.case_of("decoys", tmp_path, tmp_path, None)


def test_fills_are_compared() -> None:
    """The least correlation of two fills' orders, and what random deletion leaves."""

    def values(black: float, mean: float, blur: float, noise: float) -> dict[str, list[float]]:
        columns = dict(zip(report.FILL_COLUMNS, (black, mean, blur, noise), strict=True))
        left = {name.replace("ID", "deletion"): [one / 2] for name, one in columns.items()}
        return {name: [one] for name, one in columns.items()} | left

    methods = {
        "a": values(1, 1, 1, 3),
        "b": values(2, 2, 2, 2),
        "c": values(3, 3, 3, 1),
        "random": values(0.2, 0.4, 0.6, 0.8),
    }
    found = {"title": "one", "methods": methods}
    assert report.fill_table({"one": found}).splitlines()[-1] == (
        "| one | -1.00 | black and noise | 0.100 | 0.200 | 0.300 | 0.400 |"
    )
    del methods["random"]
    assert report.fills_of(found) == []


@pytest.mark.parametrize("base", search.SPACES)
def test_every_choice_of_a_search_is_a_method(base: str) -> None:
    for choice, values in search.SPACES[base].items():
        names = {search.named({choice: text}, base) for text in values}
        assert len(names) == len(values) and all(name.startswith(base) for name in names)
        for name in names:
            read_method(name)


def test_readme_and_guide_say_what_known_evidence_showed() -> None:
    """Pointing on drawn pictures, in their words."""
    cases = report.stored_defaults(report.STORED)
    readme, text = (
        " ".join(path.read_text(encoding="utf-8").split()) for path in (report.README, report.GUIDE)
    )

    def pointing(case: str, method: str) -> int:
        return round(100 * cases[case]["methods"][method]["pointing"][0])

    ours, grad_cam = (pointing("decoys", method) for method in (default.OURS, "grad-cam"))
    said = f"in {ours} of 100, Grad-CAM's in {grad_cam}"
    assert said in text and said in readme and ours > 90 > 50 > grad_cam
    ours, rival = (pointing("watermark", method) for method in (default.OURS, "lrp-resnet"))
    right = cases["watermark"]["correct"]
    assert f"in {ours} of 100 (a network that is right in {right}), `lrp-resnet` in {rival}" in text
    methods = cases["decoys"]["methods"]
    assert methods["grad-cam"]["exact ID"][0] > methods[default.OURS]["exact ID"][0]
