"""Fitting the feature encoder: known answers, planted topics, and determinism."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from model.errors import DatasetError
from model.features import FeatureEncoder, PinContent
from model.graph import BipartiteGraph
from model.halves import to_halves
from model.inference import unit_rows
from offline.inputs.board_tables import fit_board_table
from offline.inputs.encoder_config import EncoderConfig
from offline.inputs.encoders import encode_all, fit_degree, fit_encoder, fit_visual
from offline.inputs.spectral import fit_pooled_table, rarity_weights
from offline.inputs.token_tables import count_matrix, learn_vocabulary

NUM_PINS, NUM_TOPICS = 240, 4
CONFIG = EncoderConfig(text_dim=8, annotation_dim=8, board_dim=8, visual_dim=16)


class World:
    """Pins of four topics: each topic has its words, its boards and its corner of the visual space."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        self.topics = np.arange(NUM_PINS) % NUM_TOPICS
        words = [[f"topic{topic}word{n}" for n in rng.integers(0, 15, 6)] for topic in self.topics]
        self.pins = pl.DataFrame(
            {
                "pin_id": [f"p{n}" for n in range(NUM_PINS)],
                "title": [" ".join(some[:4]) for some in words],
                "annotations": [some[4:] for some in words],
                "description": [None] * NUM_PINS,
            },
            schema_overrides={"description": pl.String},
        )
        boards = self.topics[:, None] + NUM_TOPICS * rng.integers(0, 10, (NUM_PINS, 4))
        self.graph = BipartiteGraph.from_edges(
            np.repeat(np.arange(NUM_PINS), 4), boards.ravel(), num_pins=NUM_PINS, num_boards=45
        )
        corners = rng.normal(size=(NUM_TOPICS, 12)) * 4
        self.visual = (corners[self.topics] + rng.normal(size=(NUM_PINS, 12))).astype(np.float32)
        self.visual[5] = np.nan

    def fit(self, config: EncoderConfig = CONFIG) -> FeatureEncoder:
        return fit_encoder(self.pins, self.graph, self.visual, config, seed=1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def encoder(world: World) -> FeatureEncoder:
    return world.fit()


@pytest.fixture
def features(world: World, encoder: FeatureEncoder, tmp_path: Path) -> np.ndarray:
    return encode_all(encoder, world.pins, world.graph, world.visual, tmp_path / "features.npy")


@pytest.mark.parametrize("group", ["text", "annotations", "visual", "boards"])
def test_the_nearest_pins_by_each_group_are_of_the_same_topic(
    world: World, encoder: FeatureEncoder, features: np.ndarray, group: str
) -> None:
    part = np.delete(features[:, encoder.slices[group]], 5, axis=0)
    topics = np.delete(world.topics, 5)
    cosines = part @ part.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    # By chance a quarter would be.
    assert (topics[nearest] == topics[:, None]).mean() > 0.95


def test_a_new_pin_is_encoded_as_a_fitted_one_with_the_same_content(
    world: World, encoder: FeatureEncoder, features: np.ndarray, tmp_path: Path
) -> None:
    encoder.save(tmp_path / "encoder")
    loaded = FeatureEncoder.load(tmp_path / "encoder")
    for row in (0, 5, 17):
        title, annotations = world.pins["title"][row], world.pins["annotations"][row].to_list()
        visual = None if row == 5 else world.visual[row]
        content = PinContent(title, annotations, None, visual, world.graph.boards_of(row))
        assert np.array_equal(to_halves(loaded.encode([content]))[0], features[row])


def test_encoding_in_small_batches_by_several_threads_writes_the_same_rows(
    world: World, encoder: FeatureEncoder, features: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline.inputs.encoders.BATCH", 7)
    counts: list[int] = []
    path = tmp_path / "again.npy"
    again = encode_all(encoder, world.pins, world.graph, world.visual, path, num_threads=3, progress=counts.append)
    assert np.array_equal(again, features)
    assert sum(counts) == NUM_PINS
    assert np.array_equal(np.load(path), features)


def test_the_same_seed_fits_the_same_encoder(world: World, encoder: FeatureEncoder) -> None:
    again = world.fit()
    assert again.vocabulary == encoder.vocabulary
    for name in ("text", "annotations", "boards"):
        assert np.array_equal(getattr(again, name).table_RD, getattr(encoder, name).table_RD)


def test_groups_without_data_are_left_out(world: World) -> None:
    bare = pl.DataFrame({"title": [None] * 4, "annotations": [[]] * 4, "description": [None] * 4}).cast(
        {"title": pl.String, "annotations": pl.List(pl.String), "description": pl.String}
    )
    graph = BipartiteGraph.from_edges([0, 1, 2], [0, 0, 1], num_pins=4, num_boards=2)
    fitted = fit_encoder(bare, graph, np.full((4, 3), np.nan, np.float32), EncoderConfig(), seed=1)
    assert list(fitted.slices) == ["boards", "degree"]
    alone = BipartiteGraph.from_edges([0, 1, 2], [0, 1, 2], num_pins=4, num_boards=3)
    assert list(fit_encoder(bare, alone, None, EncoderConfig(), seed=1).slices) == ["degree"]


def test_groups_of_width_zero_are_left_out(world: World) -> None:
    config = EncoderConfig(text_dim=0, annotation_dim=0, visual_dim=0, board_dim=0)
    assert list(world.fit(config).slices) == ["degree"]


def test_fitting_on_a_sample_still_knows_every_topic(world: World, tmp_path: Path) -> None:
    fitted = world.fit(EncoderConfig(text_dim=8, annotation_dim=0, board_dim=8, fit_sample=60))
    x = encode_all(fitted, world.pins, world.graph, world.visual, tmp_path / "x.npy")
    for group in ("text", "boards"):
        part = x[:, fitted.slices[group]]
        assert (np.linalg.norm(part, axis=1) > 0.99).mean() > 0.95


def test_a_table_times_a_row_is_the_svd_of_the_matrix() -> None:
    rng = np.random.default_rng(2)
    counts = sp.csr_array((rng.random((30, 12)) < 0.3).astype(np.float32))
    weights = rarity_weights(counts.sum(axis=0).astype(np.int64))
    table = fit_pooled_table(counts, weights, 4, max_columns=100, seed=1)
    dense = counts.toarray() * weights
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    left, values, _ = np.linalg.svd(dense, full_matrices=False)
    expected = left[:, :4] * values[:4]
    owners, columns = counts.nonzero()
    found = table.pool(owners, columns, 1.0, 30)
    lengths = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    # Singular vectors have no sign; cosines between rows do. Tables are float16.
    unit = expected / lengths
    assert np.allclose(found @ found.T, unit @ unit.T, atol=5e-3)


def test_width_is_cut_to_the_rank() -> None:
    counts = sp.csr_array(np.repeat(np.eye(3, dtype=np.float32), 4, axis=0))
    assert fit_pooled_table(counts, np.ones(3, np.float32), 64, max_columns=9, seed=1).dim == 3
    nothing = sp.csr_array((5, 4), dtype=np.float32)
    assert fit_pooled_table(nothing, np.zeros(4, np.float32), 64, max_columns=9, seed=1) is None


def test_columns_beyond_the_most_frequent_are_folded_in() -> None:
    # Columns 0 to 3 and 4 to 7 are two blocks; column 8 is rare and lies with the first block only.
    block = np.zeros((40, 9), np.float32)
    block[:20, :4] = block[20:, 4:8] = 1
    block[:2, 8] = 1
    counts = sp.csr_array(block)
    table = fit_pooled_table(counts, np.ones(9, np.float32), 2, max_columns=8, seed=1)
    rows = table.table_RD.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows[8] @ rows[0] > 0.99
    assert abs(rows[8] @ rows[5]) < 0.05


def test_rows_beyond_a_sample_are_folded_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of five planted blocks: what a sample of them spans is what all span."""
    rng = np.random.default_rng(3)
    blocks_N = rng.integers(5, size=400)
    dense_NC = (blocks_N[:, None] == np.arange(40) // 8) * (rng.random((400, 40)) < 0.7)
    counts, weights = sp.csr_array(dense_NC.astype(np.float32)), rarity_weights(dense_NC.sum(0))
    whole = fit_pooled_table(counts, weights, 5, max_columns=100, seed=1)
    monkeypatch.setattr("offline.inputs.spectral.MOST_DECOMPOSED", 120)
    sampled = fit_pooled_table(counts, weights, 5, max_columns=100, seed=1)
    assert whole is not None
    assert sampled is not None
    cosines = []
    for table in (whole, sampled):
        z_ND = unit_rows((counts @ sp.diags_array(weights)) @ table.table_RD.astype(np.float32))
        cosines.append(z_ND @ z_ND.T)
    assert np.abs(cosines[0] - cosines[1]).max() < 0.1
    same_NN = blocks_N[:, None] == blocks_N
    assert cosines[1][same_NN].min() > cosines[1][~same_NN].max()


def test_a_board_of_one_pin_says_nothing() -> None:
    graph = BipartiteGraph.from_edges([0, 1, 2, 2], [0, 0, 0, 1], num_pins=3, num_boards=2)
    table = fit_board_table(graph, np.arange(3), 4, max_boards=10, seed=1)
    assert table.weights_R.tolist() == [pytest.approx(3**-0.5), 0]


def test_the_vocabulary_counts_pins_not_repeats_and_keeps_the_most_frequent() -> None:
    documents = [["a", "a", "a", "b"], ["b", "c"], ["c", "b"], ["d", "c"]]
    assert learn_vocabulary(documents, min_count=2, max_size=10) == {"b": 0, "c": 1}
    assert learn_vocabulary(documents, min_count=1, max_size=3) == {"b": 0, "c": 1, "a": 2}


def test_count_matrix_counts_tokens_over_batches() -> None:
    def batches() -> Iterator[list[PinContent]]:
        yield [PinContent(title="a b a"), PinContent(title="x")]
        yield [PinContent(description="b", annotations=["b"])]

    found = count_matrix({"a": 0, "b": 1, "#b": 2}, batches())
    assert found.toarray().tolist() == [[2, 1, 0], [0, 0, 0], [0, 2, 1]]


def test_visual_vectors_are_standardised_and_wide_ones_reduced() -> None:
    rng = np.random.default_rng(4)
    flat = rng.normal(size=(200, 3)).astype(np.float32)
    wide = (flat @ rng.normal(size=(3, 20)) * 100 + 7).astype(np.float32)
    wide[:, 5] = 42  # a column that never changes
    scale = fit_visual(wide, 64, seed=1)
    standard = scale.standardise(wide)
    assert np.allclose(standard.mean(0), 0, atol=0.05)
    assert np.allclose(np.delete(standard, 5, 1).std(0), 1, atol=0.05)
    reduced = fit_visual(wide, 8, seed=1)
    assert reduced.dim == 8
    assert len(reduced.mean_V) == 20
    # Rank 3 (but for clipping): eight components keep all cosines.
    assert np.allclose(reduced(wide) @ reduced(wide).T, scale(wide) @ scale(wide).T, atol=0.02)
    assert fit_visual(np.full((3, 4), np.nan, np.float32), 8, seed=1) is None


def test_degrees_are_standardised() -> None:
    degrees = np.array([0, 1, 3, 200])
    scaled = fit_degree(degrees)(degrees)
    assert scaled.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(1, abs=1e-6)
    assert fit_degree(np.array([2, 2])).deviation == 1


def test_a_visual_vector_that_is_partly_not_finite_is_named(
    world: World, encoder: FeatureEncoder, tmp_path: Path
) -> None:
    visual = world.visual.copy()
    visual[7, 3] = np.inf
    with pytest.raises(DatasetError, match="pin 8"):
        encode_all(encoder, world.pins, world.graph, visual, tmp_path / "x.npy")
