"""How alike random pins are by each method."""

from __future__ import annotations

import numpy as np
import pytest

from offline.evaluation.ranking import Method, cosine_scorer
from offline.evaluation.similarity import method_cosines, method_similarity


def circle(num: int) -> Method:
    """Pins evenly around a circle: the cosine of random pairs has mean 0 (nearly), deviation 1/sqrt(2)."""
    angles = np.linspace(0, 2 * np.pi, num, endpoint=False)
    return Method(cosine_scorer(np.stack([np.cos(angles), np.sin(angles)], axis=1)))


def test_a_large_catalogue_is_sampled() -> None:
    cosines = method_cosines(circle(20_000), 20_000)
    assert 99_000 < len(cosines) <= 100_000
    assert cosines.mean() == pytest.approx(0, abs=0.02)
    assert cosines.std() == pytest.approx(np.sqrt(0.5), abs=0.02)
    assert cosines.max() < 1  # never a pin with itself


def test_a_small_catalogue_is_taken_whole() -> None:
    """Four pins: each has two at a right angle and one opposite."""
    assert sorted(method_cosines(circle(4), 4).round(6).tolist()) == [-1] * 4 + [0] * 8
    assert method_cosines(circle(2), 2).tolist() == []


def test_only_methods_that_score_with_a_cosine_have_a_row() -> None:
    table = method_similarity({"pixie": circle(9), "text": circle(9), "pinsage": circle(9)}, 9)
    assert list(table) == ["pinsage", "text"]
    assert table["text"]["n"] == 72
    # All other eight points of the circle: the cosines of a point with all nine sum to 0.
    assert table["text"]["mean"] == pytest.approx(-1 / 8, abs=1e-5)
