"""The index stage reaches the recall that was asked for, by more candidates first and by more links where they end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.errors import PinsageError
from model.index import AnnIndex, read_params, recall
from offline.config import IndexSection
from offline.release.index_stage import build_index
from offline.run_folder import RunFolder

SPARSE = IndexSection(m=2, ef_construction=8)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Nothing but vectors, as spread out as vectors can be, which is hard for an index."""
    vectors_PD = np.random.default_rng(1).standard_normal((3000, 24)).astype(np.float32)
    run = RunFolder(tmp_path)
    np.save(run.embeddings, vectors_PD / np.linalg.norm(vectors_PD, axis=1, keepdims=True))
    return run


def build(run: RunFolder, settings: IndexSection, said: list[str] | None = None) -> AnnIndex:
    said = [] if said is None else said
    return build_index(run, settings, seed=1, num_threads=2, progress=lambda text, share: said.append(text))


def test_links_grow_until_the_recall_is_reached(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.index.EF_LADDER", (60, 90))
    said: list[str] = []
    index = build(run, SPARSE, said)
    assert index.params.m > 2
    assert index.params.ef_construction == 4 * index.params.m
    assert recall(index, np.load(run.embeddings), sample=500, k=50, seed=1) >= 0.98
    assert read_params(run.index) == index.params
    assert "adding items, M = 2, ef_construction = 8" in said
    assert f"adding items, M = {index.params.m}, ef_construction = {index.params.ef_construction}" in said


def test_a_recall_that_is_out_of_reach_is_an_error_and_leaves_the_index(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(run, IndexSection(m=16))
    before = read_params(run.index)
    monkeypatch.setattr("model.index.EF_LADDER", (60,))
    monkeypatch.setattr("offline.release.index_stage.MAX_M", 4)
    with pytest.raises(PinsageError, match=r"at best \(M = 4, ef_construction = 16, ef = 60\).*index\.target_recall"):
        build(run, SPARSE)
    assert read_params(run.index) == before


def test_a_vector_that_is_not_of_unit_length_is_named(run: RunFolder) -> None:
    vectors_PD = np.load(run.embeddings)
    vectors_PD[1234] *= 2
    np.save(run.embeddings, vectors_PD)
    with pytest.raises(PinsageError, match=r"embeddings\.npy: the vector of row 1234 has length 2"):
        build(run, SPARSE)
