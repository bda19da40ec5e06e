"""Baselines against values made by running Captum and
pytorch-grad-cam (tools/oracles/baselines.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import relative

from lrp_onnx.evaluation.methods import find_method
from lrp_onnx.evaluation.subject import Subject
from lrp_onnx.maps.resample import resample

ORACLES = Path(__file__).parents[1] / "oracles"
Case = tuple[Subject, np.ndarray, np.ndarray, dict[str, np.ndarray]]
CASES = ("basic", "bottleneck", "bottleneck-v1")


def correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    with np.load(ORACLES / f"{name}.npz") as stored, np.load(ORACLES / "baselines.npz") as made:
        x, targets = stored["input"], stored["target"]
        values = {
            key.removeprefix(f"{name}."): made[key]
            for key in made.files
            if key.startswith(f"{name}.")
        }
    return Subject(ORACLES / f"{name}.folded.onnx", provider="cpu"), x, targets, values


def test_integrated_gradients(case: Case) -> None:
    subject, x, targets, values = case
    found = find_method("integrated-gradients(steps=8)", subject).maps(x, targets)
    for ours, theirs in zip(found, values["captum.integrated_gradients"], strict=True):
        assert relative(ours, theirs) < 1e-4 and correlation(ours, theirs) > 0.99


def test_grad_cam(case: Case) -> None:
    """Captum's coarse map enlarged as ours is;
    pytorch-grad-cam's own enlarged map, which is scaled to 0..1.
    """
    subject, x, targets, values = case
    found = find_method("grad-cam", subject).maps(x, targets)
    for ours, coarse, scaled in zip(
        found, values["captum.grad_cam"], values["pytorch_grad_cam.grad_cam"], strict=True
    ):
        assert relative(ours, resample(coarse, ours.shape, method="bilinear")) < 1e-4
        if np.ptp(ours) > 0:
            assert correlation(ours, scaled) > 0.99


def test_occlusion(case: Case) -> None:
    subject, x, targets, values = case
    height = x.shape[2]
    method = find_method(f"occlusion(side={7 / height}, stride={2 / height})", subject)
    for ours, theirs in zip(method.maps(x, targets), values["captum.occlusion"], strict=True):
        assert correlation(ours, theirs) > 0.99
