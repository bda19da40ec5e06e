"""Insertion and deletion by hand, on maps small enough to think through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_onnx.evaluation.metrics.curves import (
    PROTOCOLS,
    area,
    counts,
    masks,
    patched,
    ranked,
    read,
    spread,
)

EXACT, KEIO, RISE = (PROTOCOLS[name] for name in ("exact", "keio", "rise"))


def test_exact_by_hand() -> None:
    """2 × 2, four steps: one pixel more at every point,
    most relevant first; deletion is what is left.
    """
    relevance = np.array([[4, 1], [3, 2]], np.float32)
    shown, left = masks(relevance, EXACT, steps=4)
    expected = [
        [[0, 0], [0, 0]],
        [[1, 0], [0, 0]],
        [[1, 0], [1, 0]],
        [[1, 0], [1, 1]],
        [[1, 1], [1, 1]],
    ]
    np.testing.assert_array_equal(shown, np.array(expected, bool))
    np.testing.assert_array_equal(left, ~np.array(expected, bool))


def test_areas_by_hand() -> None:
    """Insertion 0, ½, 1 at 0, ½, 1 of the pixels: ½. Deletion 1, 0, 0: ¼. ID ¼."""
    made = read(
        np.zeros((2, 2), np.float32), EXACT, np.array([0, 0.5, 1]), np.array([1.0, 0, 0]), steps=2
    )
    assert (made.insertion_area, made.deletion_area, made.difference) == (0.5, 0.25, 0.25)
    np.testing.assert_array_equal(made.fractions, [0, 0.5, 1])
    assert area(np.array([0.25, 0.5, 1.0]), np.array([1.0, 3.0, 1.0])) == pytest.approx(
        (0.5 + 1.0) / 0.75
    )


def test_ties_enter_together() -> None:
    """keio: the curve starts after the first step, and
    whatever equals the n-th pixel enters with it.
    """
    relevance = np.array([[5, 1, 1, 1]], np.float32)
    shown, _ = masks(relevance, KEIO, steps=4)
    np.testing.assert_array_equal(
        shown[:, 0], [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    )
    constant, left = masks(np.zeros((3, 3), np.float32), KEIO, steps=3)
    assert constant.all() and not left.any() and len(constant) == 3


def test_ties_break_at_random_and_by_seed() -> None:
    relevance = np.zeros((20, 20), np.float32)
    one, again, other = (masks(relevance, EXACT, steps=10, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    np.testing.assert_array_equal(one.sum((1, 2)), np.arange(11) * 40)


@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 3),
    st.sampled_from(list(PROTOCOLS)),
)
def test_masks_grow_and_end_whole(
    rows: int, columns: int, steps: int, seed: int, name: str
) -> None:
    relevance = np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(np.float32)
    protocol = PROTOCOLS[name]
    shown, left = masks(relevance, protocol, steps=steps, seed=seed)
    assert shown[-1].all() and (shown[1:] >= shown[:-1]).all() and (left == ~shown).all()
    assert len(shown) == len(counts(relevance.size, steps, protocol))
    for mask in shown:  # nothing left out is more relevant than something shown
        if mask.any() and not mask.all():
            assert relevance[mask].min() >= relevance[~mask].max()


def test_without_ties_keio_and_exact_show_the_same() -> None:
    relevance = np.random.default_rng(0).permutation(120).reshape(10, 12).astype(np.float32)
    np.testing.assert_array_equal(
        masks(relevance, KEIO, steps=7)[0], masks(relevance, EXACT, steps=7)[0][1:]
    )


def test_the_order_is_uniform_among_ties() -> None:
    firsts = [int(ranked(np.zeros((1, 5), np.float32), seed)[0]) for seed in range(2000)]
    assert min(np.bincount(firsts, minlength=5)) > 300


def test_patches_come_together_and_are_ranked_by_their_mean() -> None:
    relevance = np.array([[9, 0, 2, 2, 7], [0, 0, 2, 2, 7], [1, 1, 0, 0, 3]], np.float32)
    np.testing.assert_allclose(patched(relevance, 2), [[2.25, 2, 7], [1, 0, 3]])
    shown, _ = masks(relevance, EXACT, steps=6, patch=2)
    np.testing.assert_array_equal(shown[1], [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(shown[3], [[1, 1, 0, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 0, 1]])
    assert spread(np.ones((1, 2, 3), bool), 2, (3, 5)).shape == (1, 3, 5)


def test_the_labs_steps() -> None:
    """A hundred steps are about the lab's 500 pixels of 224 × 224; none starts before the first."""
    many = counts(224 * 224, 100, KEIO)
    assert abs(int(many[0]) - 500) <= 2 and many[-1] == 224 * 224 and len(many) == 100


def reference_keio(relevance: np.ndarray, step: int) -> list[np.ndarray]:
    """The released code's definition, in its own words: thresholds at every `step`-th value of the
    sorted map, and everything that is at least the threshold is in.
    """
    falling = np.sort(relevance.ravel())[::-1]
    found = []
    for last in range(step, relevance.size + 1, step):
        found.append(relevance >= falling[last - 1])
    return found


@pytest.mark.parametrize("levels", [3, 10, 10**6])
def test_keio_is_the_released_codes_definition(levels: int) -> None:
    relevance = np.random.default_rng(levels).integers(0, levels, (20, 25)).astype(np.float32)
    shown, _ = masks(relevance, KEIO, steps=10)
    np.testing.assert_array_equal(shown, reference_keio(relevance, 50))


def test_a_constant_map_games_keio_and_not_exact() -> None:
    """A model that sees its object as soon as half of it is
    shown: the trap of the published metric, in numbers.
    """
    rng, truth = np.random.default_rng(0), np.zeros((16, 16), bool)
    truth[4:12, 4:12] = True

    def probability(keep: np.ndarray) -> np.ndarray:
        return np.clip((keep & truth).sum((1, 2)) / truth.sum(), 0, 1) ** 2

    def score(relevance: np.ndarray, name: str) -> float:
        shown, left = masks(relevance.astype(np.float32), PROTOCOLS[name], steps=32)
        return read(
            relevance, PROTOCOLS[name], probability(shown), probability(left), steps=32
        ).difference

    constant, perfect, noise = np.zeros((16, 16)), truth.astype(float), rng.normal(size=(16, 16))
    assert score(constant, "keio") == pytest.approx(1.0)
    assert score(constant, "keio") >= score(perfect + 0.01 * noise, "keio")
    assert abs(score(constant, "exact") - score(noise, "exact")) < 0.1
    assert score(perfect, "exact") > 0.6


def test_insertion_into_one_fill_is_the_least_relevant_deleted() -> None:
    """Why ID under one fill is the symmetric relevance gain."""
    relevance = np.random.default_rng(3).normal(size=(6, 6)).astype(np.float32)
    shown, _ = masks(relevance, EXACT, steps=9)
    _, left = masks(-relevance, EXACT, steps=9)
    np.testing.assert_array_equal(shown, left[::-1])
    assert PROTOCOLS["srg"].hidden == PROTOCOLS["srg"].deleted


def test_ties_that_enter_together_start_from_nothing_where_the_curve_does() -> None:
    shown, left = masks(np.ones((2, 3), np.float32), replace(KEIO, from_zero=True), steps=2)
    assert not shown[0].any() and left[0].all() and shown[1:].all()


def test_the_seed_is_0_where_none_is_given() -> None:
    ties = np.zeros((6, 7), np.float32)
    np.testing.assert_array_equal(masks(ties, EXACT, steps=5), masks(ties, EXACT, steps=5, seed=0))
