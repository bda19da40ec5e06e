"""The lattice of maps: by hand, and what the residual rules make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import resnet

from lrp_onnx.evaluation.methods import find_method
from lrp_onnx.evaluation.metrics.intervals import mean_of, statistic_of
from lrp_onnx.evaluation.metrics.lattice import Profile, profile, ratio, values_of
from lrp_onnx.evaluation.subject import Maps, Subject
from lrp_onnx.evaluation.summary import as_csv, as_json, markdown, summary
from lrp_onnx.relevance.composites.presets import DEFAULT
from tools.study.pictures import KINDS, make_picture

ROOT = Path(__file__).parents[3]
Save = Callable[[onnx.ModelProto], Path]


def test_a_profile_by_hand() -> None:
    relevance = np.tile(np.array([1, -3, 2, 2, 1, 3, 0, 4], np.float32), (5, 1))
    found = profile(10 * relevance, 2)
    assert found["phases"] == [0.5, 1.5]  # (1 + 2 + 1 + 0) / 4 and (3 + 2 + 3 + 4) / 4, over 2
    assert found["edges"] == [0.5, 2.0]
    assert (
        ratio(values_of([found], "phase"))[0] == 3 and ratio(values_of([found], "border"))[0] == 4
    )
    # Columns behind the last whole period count for the edges alone; short pictures have one.
    assert profile(relevance[:, :7], 3)["phases"] == [
        pytest.approx(v / (12 / 7), abs=1e-6) for v in (1.5, 2.0, 2.5)
    ]
    assert len(profile(relevance, 32)["phases"]) == 8


def test_the_border_is_an_eighth_of_the_columns() -> None:
    relevance = np.zeros((2, 57), np.float32)
    relevance[:, 6], relevance[:, 7], relevance[:, -7], relevance[:, -8] = 1, 9, 2, 9
    mean = 21 / 57
    expected = [1 / 7 / mean, 2 / 7 / mean]
    assert profile(relevance, 1)["edges"] == [round(value, 6) for value in expected]


def test_a_map_of_zeros_and_one_column() -> None:
    nothing = profile(np.zeros((4, 16), np.float32), 4)
    assert set(nothing["phases"]) == {0.0} and ratio(values_of([nothing], "phase"))[0] == 1
    one = profile(np.eye(1, 16, 3, dtype=np.float32), 4)
    assert ratio(values_of([one], "phase"))[0] == np.inf
    assert ratio(values_of([profile(np.ones((3, 1), np.float32), 8)], "border"))[0] == 1


def test_the_statistic_of_a_mean_has_an_interval() -> None:
    sample = np.random.default_rng(0).uniform(1, 2, (400, 3))
    mean = statistic_of(sample, lambda means: means[..., 0])
    assert mean.value == pytest.approx(sample[:, 0].mean()) and mean.count == 400
    plain = mean_of(sample[:, 0])
    assert (mean.low, mean.high) == pytest.approx((plain.low, plain.high), abs=5e-3)
    assert np.isnan(statistic_of(np.zeros((0, 3)), ratio).value)


def test_the_lattice_of_photos_is_that_of_their_mean() -> None:
    """Two photos with opposite phases have none together."""
    profiles: list[Profile] = [
        {"phases": [1.5, 0.5], "edges": [1.0, 2.0]},
        {"phases": [0.5, 1.5], "edges": [1.0, 2.0]},
    ]
    rows = [
        {"image": f"{i}.png", "method": "m", "target": 0, "label": 0, "lattice": one}
        for i, one in enumerate(profiles)
    ]
    found = summary(rows)["m"]
    assert found["lattice", "phase"].value == 1 and found["lattice", "border"].value == 2
    assert found["lattice", "phase"].high == 3
    assert set(as_json(rows)["m"]) == {"lattice phase", "lattice border"}
    assert "| lattice phase | lattice border |" in markdown(rows)
    assert as_csv(rows).splitlines()[1] == "0.png,m,0,0,3.0,2.0"


def lattice(maps: Maps, period: int) -> tuple[float, float]:
    profiles = [profile(relevance, period) for relevance in maps]
    phase, border = (
        float(ratio(values_of(profiles, part).mean(0))) for part in ("phase", "border")
    )
    return phase, border


def test_the_default_has_no_lattice_on_the_embedded_model() -> None:
    """The rules without a window for strided shortcuts have one, in the middle and at borders."""
    rng = np.random.default_rng(7)
    pictures = [make_picture(KINDS[i % len(KINDS)], rng)[0] for i in range(60)]
    x = np.stack(pictures).astype(np.float32).transpose(0, 3, 1, 2)
    x = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    x = np.concatenate([x, x[..., ::-1]])  # where objects lie says nothing of the borders
    subject = Subject(ROOT / "models" / "shapes-resnet.onnx", provider="cpu")
    targets = subject.probabilities(x).argmax(1)

    def of(method: str) -> tuple[float, float]:
        return lattice(find_method(method, subject).maps(x, targets), subject.deepest_stride)

    phase, border = of(DEFAULT)
    assert phase <= 2 and border <= 2, (phase, border)
    before, border_before = of("epsilon-gamma-plus")
    assert before > 2 and border_before > border, (before, border_before)
    without, _ = of(f"{DEFAULT}(resolution=full, @subsampling convolution=gamma)")
    spread, _ = of(f"{DEFAULT}(resolution=full)")
    assert without > 1.2 * spread, (without, spread)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_spreading_flattens_random_networks(kind: str, saved: Save) -> None:
    """On noise, which has no lattice, by weights that mean nothing, where the shortcuts lie."""
    found: dict[str, list[tuple[float, float]]] = {"z-plus": [], "spread": []}
    for seed in range(4):
        path = saved(resnet(kind, size=(64, 64), widths=(8, 16, 16), seed=seed))
        subject = Subject(path, provider="cpu")
        x = np.random.default_rng(seed).normal(size=(48, 3, 64, 64)).astype(np.float32)
        for rule, ratios in found.items():
            method = f"lrp-resnet(resolution=1/4, @subsampling convolution={rule})"
            maps = find_method(method, subject).maps(x, np.zeros(len(x), np.int64))
            ratios.append(lattice(maps, subject.deepest_stride))
    plain, spread = (np.mean(ratios, 0) for ratios in found.values())
    assert spread[0] - 1 < 0.8 * (plain[0] - 1) and spread[1] < plain[1], (plain, spread)
