"""The study of families: its pictures, its methods and its page, without torch."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lrp_onnx.evaluation.methods import read_method, with_own_post
from tools.study import families, modern


def test_pictures_have_their_object_in_the_middle_half() -> None:
    drawn = modern.judged(10, families.TUNING_SEED)
    assert [label for *_, label in drawn] == [0, 1, 2, 3, 4] * 2
    for picture, mask, _ in drawn:
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert mask[:, 16:48].sum() == mask.sum() > 100
    again = modern.judged(10, families.TUNING_SEED)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(drawn, again, strict=True))


def test_the_pattern_decides_the_class_and_not_the_form() -> None:
    """The gradient of stripes lies across them; checks have both directions alike."""
    for name, angle in modern.PATTERNS.items():
        rng = np.random.default_rng(3)
        shares = []
        for _ in range(8):
            grey = modern.surface(name, rng).mean(2)
            rows, columns = np.gradient(grey)
            along = columns * np.cos(angle) + rows * np.sin(angle)
            beside = rows * np.cos(angle) - columns * np.sin(angle)
            shares.append((along**2).sum() / (along**2 + beside**2).sum())
        if name == "checks":
            assert np.mean(shares) == pytest.approx(0.5, abs=0.1)
        else:
            assert min(shares) > 0.9


@pytest.mark.parametrize("name", families.NETWORKS)
def test_stored_results_are_of_this_default(name: str) -> None:
    found = json.loads((families.STORED / f"{name}.json").read_text(encoding="utf-8"))
    family = families.NETWORKS[name][1]
    assert found["default"] == with_own_post(family.default)
    assert set(found["methods"]) == {found["default"], *family.rivals, *families.BASELINES}
    assert found["photos"] == families.TEST and found["correct"] >= 0.9 * families.TEST


@pytest.mark.parametrize("family", [families.TRANSFORMER, families.CNN])
def test_every_choice_is_a_method(family: families.Family) -> None:
    assert set(family.begin) >= set(family.space)
    for choice, values in family.space.items():
        texts = [families.named(family.base, {**family.begin, choice: text}) for text in values]
        assert len(set(texts)) == len(values)
        for text in texts:
            read_method(text)
    for rival in (*family.rivals, *families.BASELINES):
        read_method(rival)
