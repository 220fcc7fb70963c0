"""How alike random pins are, and the guard against a space where all are."""

from __future__ import annotations

import numpy as np
import pytest

from model.errors import PinsageError
from offline.embedding.collapse import check_collapse, describe_similarity, random_cosines


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


SPREAD = unit(np.random.default_rng(1).normal(size=(2000, 400)))


def test_cosines_of_random_directions() -> None:
    """Directions in 400 dimensions have cosines that are nearly normal with deviation 1/20."""
    about = describe_similarity(random_cosines(SPREAD))
    assert about["mean"] == pytest.approx(0, abs=2e-3)
    assert about["std"] == pytest.approx(1 / 20, abs=2e-3)
    assert about["kurtosis"] == pytest.approx(3, abs=0.1)
    assert about["share_above_0.9"] == 0
    assert sum(about["histogram"]) == about["n"] == 100_000


def test_cosines_of_angles_on_an_arc() -> None:
    """Two uniform angles of an arc L: the mean cosine is (sin^2 L + (1 - cos L)^2) / L^2."""
    angles = np.linspace(0, np.radians(120), 600)
    arc = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    length = np.radians(120)
    expected = (np.sin(length) ** 2 + (1 - np.cos(length)) ** 2) / length**2
    assert random_cosines(arc).mean() == pytest.approx(expected, abs=5e-3)


def test_a_pin_is_never_compared_with_itself() -> None:
    assert random_cosines(np.eye(4), num_pairs=5000).tolist() == [0] * 5000


def test_too_few_pins_have_no_similarity() -> None:
    assert describe_similarity(random_cosines(SPREAD[:2])) == {"n": 0}


def test_equal_vectors_have_no_kurtosis() -> None:
    about = describe_similarity(random_cosines(np.tile(SPREAD[:1], (50, 1))))
    assert about["kurtosis"] is None
    assert about["share_above_0.9"] == 1


def test_a_healthy_space_passes() -> None:
    check_collapse(SPREAD)


def test_one_point_for_all_is_a_collapse() -> None:
    near = unit(SPREAD[:1] + 0.01 * SPREAD)
    with pytest.raises(PinsageError, match="collapsed: random pins have a mean cosine of 1"):
        check_collapse(near)


def test_two_opposite_points_are_a_collapse() -> None:
    """The mean cosine is about 0 here, so the mean alone would not tell."""
    with pytest.raises(PinsageError, match="collapsed"):
        check_collapse(np.repeat(np.array([[1.0, 0.0], [-1.0, 0.0]]), [600, 400], axis=0))


def test_two_points_of_equal_weight_are_a_collapse() -> None:
    """Just half of the cosines are above 0.9 here, or a little less: only the kurtosis, 1, tells."""
    points = np.repeat(np.array([[1.0, 0.0], [-1.0, 0.0]]), 500, axis=0)
    assert describe_similarity(random_cosines(points))["share_above_0.9"] <= 0.5
    with pytest.raises(PinsageError, match=r"kurtosis is 1\.00 \(at least 1\.2\)"):
        check_collapse(points)


def test_clusters_that_differ_are_no_collapse() -> None:
    """Three clusters as points have the kurtosis of a coin with p = 1/3, which is 1.5: coarse, but pins are told."""
    check_collapse(np.repeat(np.eye(3), 200, axis=0))


def test_numbers_that_are_not_finite_are_refused() -> None:
    broken = SPREAD.copy()
    broken[7] = np.nan
    with pytest.raises(PinsageError, match="not finite"):
        check_collapse(broken)


def test_a_prior_that_all_share_is_no_collapse_and_hides_none() -> None:
    shared = np.full((len(SPREAD), 1), 0.97)
    check_collapse(np.concatenate([SPREAD * (1 - 0.97**2) ** 0.5, shared], axis=1), num_prior=2)
    alike = np.repeat(np.array([[0.6, 0.8]]), 1000, axis=0) + np.random.default_rng(1).normal(0, 1e-3, (1000, 2))
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    popular = np.random.default_rng(2).uniform(0, 0.9, (1000, 1))
    with pytest.raises(PinsageError, match="collapsed"):
        check_collapse(np.concatenate([alike * (1 - popular**2) ** 0.5, popular], axis=1), num_prior=2)
