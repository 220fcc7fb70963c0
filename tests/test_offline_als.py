"""Matrix factorisation as a baseline: it finds planted blocks, and says why where it cannot be had."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import scipy.sparse as sp

from offline.evaluation import als
from offline.evaluation.als import als_vectors, reason_against_als
from offline.evaluation.ranking import TIE, Method, cosine_scorer, nearest

PINS_EACH, BOARDS_EACH = 12, 10


def blocks() -> sp.csr_matrix:
    """Three groups of pins, each on boards of its own, half of them at random; the last pin is on none."""
    rng = np.random.default_rng(4)
    parts = [(rng.random((PINS_EACH, BOARDS_EACH)) < 0.5).astype(np.float32) for _ in range(3)]
    return sp.csr_matrix(sp.vstack([sp.block_diag(parts), sp.csr_matrix((1, 3 * BOARDS_EACH))]))


@pytest.fixture(scope="module")
def vectors_PD() -> np.ndarray:
    pytest.importorskip("implicit", reason="the extra als is not installed")
    return als_vectors(blocks(), seed=1, factors=8)


def test_pins_of_a_block_are_nearest(vectors_PD: np.ndarray) -> None:
    method = Method(cosine_scorer(vectors_PD), TIE)
    for query in range(3 * PINS_EACH):
        found = nearest(method, query, len(vectors_PD), PINS_EACH - 1)
        assert set(found // PINS_EACH) == {query // PINS_EACH}, query


def test_rows_have_unit_length_or_none(vectors_PD: np.ndarray) -> None:
    lengths = np.linalg.norm(vectors_PD, axis=1)
    assert lengths[:-1] == pytest.approx(1, abs=1e-5)
    assert lengths[-1] == 0


def test_the_same_seed_gives_the_same_rows_on_any_number_of_threads(vectors_PD: np.ndarray) -> None:
    np.testing.assert_allclose(als_vectors(blocks(), seed=1, factors=8, threads=2), vectors_PD, atol=1e-5)


def test_reasons_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert reason_against_als(blocks()) == "implicit is not installed: pip install 'pinsage[als]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert reason_against_als(blocks()) is None
    monkeypatch.setattr(als, "MOST_EDGES", 100)
    assert "too many for a matrix factorisation" in str(reason_against_als(blocks()))
