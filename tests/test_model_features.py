"""The feature encoder: hand-worked rows, and the properties that let it serve a pin it has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ReleaseError
from model.feature_groups import DegreeScale, PooledTable, PopularityScale, VisualScale
from model.features import FeatureEncoder, PinContent

TOKENS = ["red", "chair", "blue", "#red", "#living room", "living", "room"]


def random_table(num_rows: int, dim: int, seed: int) -> PooledTable:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 1, num_rows).astype(np.float32)
    return PooledTable(weights, rng.normal(size=(num_rows, dim)).astype(np.float16))


def full_encoder() -> FeatureEncoder:
    rng = np.random.default_rng(5)
    return FeatureEncoder(
        {token: row for row, token in enumerate(TOKENS)},
        text=random_table(len(TOKENS), 4, 1),
        annotations=random_table(len(TOKENS), 3, 2),
        visual=VisualScale(rng.normal(size=6).astype(np.float32), rng.uniform(1, 2, 6).astype(np.float32)),
        boards=random_table(10, 5, 3),
        degree=DegreeScale(1.5, 0.5),
    )


words = st.sampled_from([*TOKENS, "unheard"])
contents = st.builds(
    PinContent,
    title=st.none() | st.lists(words, max_size=4).map(" ".join),
    annotations=st.lists(st.sampled_from(["red", "Living Room", "blue chair", "?"]), max_size=4),
    description=st.none() | st.lists(words, max_size=4).map(" ".join),
    visual_V=st.none() | st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6).map(np.array),
    boards=st.lists(st.integers(0, 14), max_size=8),
)


def test_a_row_worked_by_hand() -> None:
    table = PooledTable(np.array([1, 0.5], np.float32), np.array([[2, 0], [0, 4]], np.float16))
    encoder = FeatureEncoder(
        {"a": 0, "b": 1},
        text=table,
        visual=VisualScale(np.array([1, 1], np.float32), np.array([1, 2], np.float32)),
        boards=PooledTable(np.array([3, 1, 1], np.float32), np.array([[1, 0], [0, 3], [9, 9]], np.float16)),
        degree=DegreeScale(np.log(2), 2.0),
    )
    assert encoder.slices == {
        "text": slice(0, 2),
        "visual": slice(2, 4),
        "boards": slice(4, 6),
        "degree": slice(6, 7),
    }
    assert encoder.num_features == 7
    assert encoder.visual_dim == 2
    x = encoder.encode([PinContent(title="a b b", visual_V=np.array([4.0, 9.0]), boards=[0, 1, 99])])[0]
    # text: a counts 1 * 1 * (2, 0), b counts (1 + log 2) * 0.5 * (0, 4)
    text = np.array([2, 2 * (1 + np.log(2))])
    # visual: ((4 - 1) / 1, (9 - 1) / 2) = (3, 4); boards: (3, 0) + (0, 3); degree: 3 boards, one of them unknown
    expected = [*text / np.linalg.norm(text), 0.6, 0.8, 0.5**0.5, 0.5**0.5, (np.log(4) - np.log(2)) / 2]
    assert np.allclose(x, expected, atol=1e-6)


@given(contents, st.randoms(use_true_random=False))
def test_the_order_of_annotations_and_boards_changes_nothing(content: PinContent, random) -> None:
    boards = list(content.boards)
    annotations = list(content.annotations)
    random.shuffle(boards)
    random.shuffle(annotations)
    shuffled = PinContent(content.title, annotations, content.description, content.visual_V, boards)
    encoder = full_encoder()
    assert np.array_equal(encoder.encode([content]), encoder.encode([shuffled]))


@given(st.lists(contents, max_size=6))
def test_one_by_one_is_the_same_as_in_a_batch(batch: list[PinContent]) -> None:
    encoder = full_encoder()
    together = encoder.encode(batch)
    assert together.shape == (len(batch), encoder.num_features)
    assert together.dtype == np.float32
    for row, content in zip(together, batch, strict=True):
        assert np.array_equal(encoder.encode([content])[0], row)


@given(contents)
def test_rows_are_finite_and_groups_have_length_one_or_zero(content: PinContent) -> None:
    encoder = full_encoder()
    x = encoder.encode([content])[0]
    assert np.isfinite(x).all()
    for name in ("text", "annotations", "visual", "boards"):
        length = np.linalg.norm(x[encoder.slices[name]])
        assert length == 0 or length == pytest.approx(1, abs=1e-5)


@given(contents, st.lists(st.integers(0, 14), min_size=1, max_size=8))
def test_with_graph_is_the_same_as_encoding_with_these_boards(content: PinContent, boards: list[int]) -> None:
    encoder = full_encoder()
    before = encoder.encode([content])[0]
    kept = before.copy()
    moved = PinContent(content.title, content.annotations, content.description, content.visual_V, boards)
    assert np.array_equal(encoder.with_graph(before, boards), encoder.encode([moved])[0])
    assert np.array_equal(before, kept)


def test_unknown_tokens_are_ignored_and_nothing_known_is_zeros() -> None:
    encoder = full_encoder()
    known, more, none = encoder.encode(
        [PinContent(title="red chair"), PinContent(title="red chair xyzzy"), PinContent(title="xyzzy")]
    )
    assert np.array_equal(known, more)
    degree = encoder.slices["degree"]
    assert not none[: degree.start].any()


def test_a_board_that_the_encoder_does_not_know_counts_in_the_degree_only() -> None:
    encoder = full_encoder()
    one, two = encoder.encode([PinContent(boards=[3]), PinContent(boards=[3, 4711])])
    boards, degree = encoder.slices["boards"], encoder.slices["degree"]
    assert np.array_equal(one[boards], two[boards])
    assert two[degree] > one[degree]


def test_pooling_is_the_sum_of_scaled_rows_over_each_owner_s_entries() -> None:
    table = random_table(num_rows=9, dim=5, seed=3)
    rng = np.random.default_rng(4)
    owners, rows, factors = np.array([0, 0, 2, 3, 3, 3]), rng.integers(0, 9, 6), rng.random(6).astype(np.float32)
    by_hand = np.zeros((5, 5))
    for owner, row, factor in zip(owners, rows, factors, strict=True):
        by_hand[owner] += float(factor) * float(table.weights_R[row]) * table.table_RD[row].astype(np.float64)
    by_hand /= np.maximum(np.linalg.norm(by_hand, axis=1, keepdims=True), 1e-9)
    assert np.allclose(table.pool(owners, rows, factors, 5), by_hand, atol=1e-6)


@pytest.mark.parametrize("visual", [np.zeros(5), np.zeros((1, 6)), np.array([1, 2, 3, 4, 5, np.nan])])
def test_a_visual_vector_that_does_not_fit_is_refused(visual: np.ndarray) -> None:
    with pytest.raises(ValueError, match="visual vector"):
        full_encoder().encode([PinContent(visual_V=visual)])


def test_visual_numbers_far_out_are_clipped() -> None:
    scale = VisualScale(np.zeros(2, np.float32), np.ones(2, np.float32))
    found = scale(np.array([[3e38, 5], [0, 0]], np.float32))
    assert np.allclose(found, [[0.5**0.5, 0.5**0.5], [0, 0]])


def test_an_encoder_without_any_group_gives_rows_of_width_zero() -> None:
    assert FeatureEncoder().encode([PinContent(title="red", boards=[1])]).shape == (1, 0)


class TestFiles:
    def test_a_saved_encoder_encodes_exactly_the_same(self, tmp_path: Path) -> None:
        encoder = full_encoder()
        encoder.save(tmp_path / "encoder")
        loaded = FeatureEncoder.load(tmp_path / "encoder")
        pins = [
            PinContent("red chair", ["living room"], "blue room", np.arange(6.0), [1, 2, 11]),
            PinContent(annotations=["red"]),
        ]
        assert np.array_equal(loaded.encode(pins), encoder.encode(pins))
        assert loaded.slices == encoder.slices
        assert isinstance(loaded.boards.table_RD.base, np.memmap)

    def test_groups_that_are_not_there_stay_away(self, tmp_path: Path) -> None:
        FeatureEncoder(degree=DegreeScale(0.0, 1.0)).save(tmp_path)
        loaded = FeatureEncoder.load(tmp_path)
        assert list(loaded.slices) == ["degree"]
        assert loaded.visual_dim is None
        assert not (tmp_path / "boards.npy").exists()

    def test_wide_visual_vectors_keep_their_components(self, tmp_path: Path) -> None:
        components = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 2)))[0].astype(np.float32)
        wide = FeatureEncoder(visual=VisualScale(np.zeros(6, np.float32), np.ones(6, np.float32), components))
        wide.save(tmp_path)
        loaded = FeatureEncoder.load(tmp_path)
        pin = [PinContent(visual_V=np.arange(6.0) / 3)]
        assert loaded.num_features == 2
        assert loaded.visual_dim == 6
        assert np.array_equal(loaded.encode(pin), wide.encode(pin))

    @pytest.mark.parametrize("name", ["encoder.json", "encoder.safetensors", "vocabulary.arrow", "boards.npy"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
    def test_a_damaged_file_is_named(self, tmp_path: Path, name: str, damage: str) -> None:
        full_encoder().save(tmp_path)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        if damage != "missing":
            (tmp_path / name).write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
        with pytest.raises(ReleaseError, match=name):
            FeatureEncoder.load(tmp_path)

    def test_another_format_version_is_refused(self, tmp_path: Path) -> None:
        full_encoder().save(tmp_path)
        about = json.loads((tmp_path / "encoder.json").read_text())
        (tmp_path / "encoder.json").write_text(json.dumps(about | {"format": 99}))
        with pytest.raises(ReleaseError, match=r"encoder\.json: format 99"):
            FeatureEncoder.load(tmp_path)

    def test_files_of_two_encoders_mixed_are_refused(self, tmp_path: Path) -> None:
        full_encoder().save(tmp_path)
        np.save(tmp_path / "boards.npy", np.zeros((3, 5), np.float16))
        with pytest.raises(ReleaseError, match="group boards"):
            FeatureEncoder.load(tmp_path)


def test_popularity_by_hand() -> None:
    # Degree 3 of at most 7: log 4 / log 8 = 2/3. Asked for once of at most 3 times: log 2 / log 4 = 1/2.
    encoder = FeatureEncoder(popularity=PopularityScale(most_degree=7, most_asked=3))
    x = encoder.encode([PinContent(boards=[1, 2, 3])])
    assert x.tolist() == [pytest.approx([2 / 3, 0])]
    encoder.fill_asked(x, np.array([1]))
    assert x.tolist() == [pytest.approx([2 / 3, 1 / 2])]


def test_new_boards_leave_how_often_a_pin_was_asked_for() -> None:
    encoder = FeatureEncoder(popularity=PopularityScale(most_degree=7, most_asked=3))
    assert encoder.with_graph(np.float32([0, 0.5]), [1, 2, 3]).tolist() == pytest.approx([2 / 3, 0.5])


def test_the_degree_of_a_pin_without_boards_is_unknown_and_not_zero() -> None:
    encoder = FeatureEncoder(degree=DegreeScale(2.0, 1.0), popularity=PopularityScale(7, 3, mean_share=0.25))
    assert encoder.encode([PinContent(title="new")]).tolist() == [[0, 0.25, 0]]
    assert encoder.with_graph(np.zeros(3, np.float32), []).tolist() == [-2, 0, 0]
