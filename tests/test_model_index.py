from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import IndexDamaged
from model.exact import exact_neighbors, top_k
from model.files import sha256_file
from model.index import AnnIndex, IndexParams, choose_ef, recall


def unit(num: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(vectors: np.ndarray, **changes: int) -> AnnIndex:
    return AnnIndex.build(vectors, IndexParams(vectors.shape[1], len(vectors), **changes))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(3000, 24)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray) -> AnnIndex:
    return build(vectors)


@pytest.fixture
def folder(index: AnnIndex, tmp_path: Path) -> Path:
    index.save(tmp_path)
    return tmp_path


def test_exact_neighbors_worked_by_hand() -> None:
    items = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0]], np.float32)
    found = exact_neighbors(items, np.array([[1, 0], [0, 1]], np.float32), 3, chunk=2)
    np.testing.assert_array_equal(found.rows_QK, [[0, 3, 2], [1, 2, 0]])
    np.testing.assert_allclose(found.scores_QK, [[1, 1, 0.6], [1, 0.8, 0]])


@given(st.integers(1, 40), st.integers(0, 50), st.integers(1, 9), st.integers(0, 9999))
def test_exact_neighbors_is_a_full_sort(num: int, k: int, chunk: int, seed: int) -> None:
    # Few distinct values, so that many scores are equal.
    items = np.random.default_rng(seed).integers(-1, 2, (num, 3)).astype(np.float32)
    queries = np.random.default_rng(seed + 1).integers(-1, 2, (4, 3)).astype(np.float32)
    found = exact_neighbors(items, queries, k, chunk=chunk)
    scores = queries @ items.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_allclose(found.scores_QK, np.take_along_axis(scores, order, axis=1))
    np.testing.assert_allclose(np.take_along_axis(scores, found.rows_QK, axis=1), found.scores_QK)
    assert all(len(set(rows)) == min(k, num) for rows in found.rows_QK)


def test_equal_scores_come_by_row() -> None:
    found = top_k(np.array([[5, 3, 9]]), np.array([[1.0, 1.0, 2.0]]), 3)
    assert found.rows_QK.tolist() == [[9, 3, 5]]


def test_the_index_agrees_with_the_exact_answer(index: AnnIndex, vectors: np.ndarray) -> None:
    queries = unit(200, 24, seed=5)
    found, exact = index.query(queries, 10), exact_neighbors(vectors, queries, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(found.rows_QK, exact.rows_QK, strict=True)]
    assert np.mean(shared) / 10 > 0.97
    np.testing.assert_allclose(found.scores_QK, np.einsum("qkd,qd->qk", vectors[found.rows_QK], queries), atol=1e-5)
    assert (np.diff(found.scores_QK, axis=1) <= 1e-6).all()
    assert recall(index, vectors, sample=200, k=10, seed=1) > 0.97


def test_ef_survives_saving(index: AnnIndex, vectors: np.ndarray, folder: Path) -> None:
    """hnswlib itself comes back with ef = 10, which cost recall."""
    loaded = AnnIndex.load(folder, vectors)
    queries = unit(100, 24, seed=6)
    np.testing.assert_array_equal(loaded.query(queries, 20).rows_QK, index.query(queries, 20).rows_QK)
    assert loaded.params == index.params


def test_one_thread_builds_the_same_file_twice(vectors: np.ndarray, index: AnnIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "a")
    build(vectors).save(tmp_path / "b")
    assert sha256_file(tmp_path / "a" / "index.bin") == sha256_file(tmp_path / "b" / "index.bin")


@pytest.mark.parametrize("num", [1, 2, 7, 60])
def test_k_is_cut_to_the_number_of_items(num: int) -> None:
    items = unit(num, 8)
    found = build(items).query(items, 500)
    np.testing.assert_array_equal(found.rows_QK, exact_neighbors(items, items, 500).rows_QK)
    assert found.rows_QK.shape == (num, num)


def test_no_queries_give_no_answers(index: AnnIndex) -> None:
    assert index.query(np.empty((0, 24), np.float32), 5).rows_QK.shape == (0, 5)


@pytest.mark.parametrize(
    ("queries", "k"),
    [
        (np.ones((1, 23), np.float32), 5),
        (np.ones(24, np.float32), 5),
        (np.ones((1, 24), np.int64), 5),
        (np.full((1, 24), np.nan, np.float32), 5),
        (np.full((1, 24), np.inf, np.float32), 5),
        (np.full((1, 24), 1e300), 5),
        (np.ones((1, 24), np.float32), 0),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_bad_queries_never_reach_the_native_code(index: AnnIndex, queries: np.ndarray, k: int) -> None:
    with pytest.raises(ValueError, match=r"quer|k must"):
        index.query(queries, k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1.01])
def test_an_item_that_is_not_of_unit_length_is_named(bad: float) -> None:
    items = unit(20, 8)
    items[13] *= bad if np.isfinite(bad) else 1
    items[13, 0] = items[13, 0] if np.isfinite(bad) else bad
    with pytest.raises(ValueError, match="row 13"):
        build(items)


def test_vectors_must_have_the_shape_that_the_params_say() -> None:
    with pytest.raises(ValueError, match="wants"):
        AnnIndex.build(unit(10, 8), IndexParams(8, 11))
    with pytest.raises(ValueError, match="wants"):
        AnnIndex.build(unit(0, 8), IndexParams(8, 0))


def test_a_crowd_of_equal_vectors_hides_nothing(tmp_path: Path) -> None:
    """Bare hnswlib found only 86 % of these others: the copies linked to each other alone."""
    others = unit(2000, 32, seed=1)
    items = np.concatenate([np.repeat(others[:1], 2000, axis=0), others])
    index = build(items)
    index.save(tmp_path)
    loaded = AnnIndex.load(tmp_path, items)
    found = loaded.query(others[1:], 1)
    assert (found.rows_QK[:, 0] == np.arange(2001, 4000)).mean() > 0.99
    crowd = loaded.query(others[:1], 50)
    assert len(set(crowd.rows_QK[0]) & set(range(2001))) == 50
    np.testing.assert_allclose(crowd.scores_QK, 1, atol=1e-6)
    everything = loaded.query(others[:1], 5000).rows_QK[0]
    np.testing.assert_array_equal(np.sort(everything), np.arange(4000))


def test_an_unreachable_answer_is_found_exactly(index: AnnIndex, vectors: np.ndarray) -> None:
    """hnswlib raises when it reaches fewer than k items."""

    class Short:
        def set_ef(self, ef: int) -> None: ...

        def knn_query(self, *args: object, **more: object) -> None:
            raise RuntimeError("Cannot return the results in a contiguous 2D array. Probably ef or M is too small")

    short = AnnIndex(Short(), index.params, vectors, np.empty((0, 2), np.int64))
    queries = unit(3, 24, seed=7)
    np.testing.assert_array_equal(short.query(queries, 9).rows_QK, exact_neighbors(vectors, queries, 9).rows_QK)


def test_ef_is_the_smallest_that_reaches_the_target(vectors: np.ndarray) -> None:
    index = build(vectors, m=6, ef_construction=50)
    ef = choose_ef(index, vectors, k=50, target=0.9).ef
    better, found = choose_ef(index, vectors, k=50, target=0.98)
    assert found == recall(index.with_ef(better), vectors, sample=500, k=50, seed=0)
    assert 32 < ef < better
    assert recall(index.with_ef(better), vectors, sample=500, k=50, seed=0) >= 0.98
    assert choose_ef(index, vectors, target=1.1).ef == 1024


# --- damage ----------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_is_noticed_before_the_file_is_loaded(
    vectors: np.ndarray, index: AnnIndex, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bare hnswlib gave wrong answers or crashed in 39 % of single flipped bits."""
    folder = tmp_path_factory.getbasetemp() / "damage"
    index.save(folder)
    path = folder / data.draw(st.sampled_from(["index.bin", "index.bin", "twins.npy"]))
    good = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "zero", "cut", "longer", "empty"]))
    if kind == "flip":
        good[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "zero":
        good[place : place + 4096] = b"\1" * len(good[place : place + 4096])
    else:
        good = {"cut": good[:place], "longer": good + b"x", "empty": bytearray()}[kind]
    path.write_bytes(bytes(good))
    with pytest.raises(IndexDamaged, match=path.name):
        AnnIndex.load(folder, vectors)


def forge(folder: Path, **fields: float) -> None:
    """Change header fields and make the checksum right again, as an attacker would."""
    names = ["level0", "capacity", "count", "stride", "label", "data", "top", "entry", "max_m", "max_m0", "m"]
    form = struct.Struct("<6QiI3QdQ")
    path = folder / "index.bin"
    whole = path.read_bytes()
    header = dict(zip([*names, "mult", "efc"], form.unpack_from(whole), strict=True)) | fields
    path.write_bytes(form.pack(*header.values()) + whole[form.size :])
    description = json.loads((folder / "index.json").read_text())
    description["sha256"]["index.bin"] = sha256_file(path)
    (folder / "index.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    "fields",
    [
        {"capacity": 10},  # the heap overflow of hnswlib's issue 673
        {"capacity": 10, "count": 10},
        {"count": 10**9, "capacity": 10**9},
        {"stride": 8},
        {"label": 0},
        {"data": 2**40},
        {"level0": 4},
        {"max_m": 64},
        {"max_m0": 1},
        {"m": 8},
        {"entry": 3000},
        {"top": 1000},
        {"top": -1},
        {"top": 0},
        {"top": 9},
        {"capacity": 3001},
        {"capacity": 2**62},
        {"mult": 5.0},
    ],
)
def test_a_forged_header_is_refused_although_its_checksum_is_right(
    folder: Path, vectors: np.ndarray, fields: dict[str, float]
) -> None:
    forge(folder)
    AnnIndex.load(folder, vectors)  # the forger alone changes nothing
    forge(folder, **fields)
    with pytest.raises(IndexDamaged):
        AnnIndex.load(folder, vectors)


STRIDE = 1 + 2 * 16 + 24 + 2  # words of an item: links, vector, label
ROW = 1 + 16  # words of a row of links above
NUM = 3000


def upper_rows(words: np.ndarray) -> list[tuple[int, int, int]]:
    """Item, level and place of each row of links above level 0."""
    rows, place = [], NUM * STRIDE
    for item in range(NUM):
        levels = int(words[place]) // (4 * ROW)
        rows += [(item, level, place + 1 + (level - 1) * ROW) for level in range(1, levels + 1)]
        place += 1 + levels * ROW
    return rows


def link_upwards(words: np.ndarray) -> None:
    """On level 1, a link to an item that is on level 0 only."""
    rows = upper_rows(words)
    words[rows[0][2] + 1] = min(set(range(NUM)) - {item for item, _, _ in rows})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda words: words.__setitem__(5 * STRIDE + 1, NUM), "links"),
        (lambda words: words.__setitem__(5 * STRIDE, 33), "links"),
        (lambda words: words.__setitem__(5 * STRIDE, words[5 * STRIDE] | 1 << 16), "links"),
        (lambda words: words.__setitem__(6 * STRIDE - 2, NUM), "label"),
        (lambda words: words.__setitem__(6 * STRIDE - 1, 1), "label"),
        (lambda words: words.__setitem__(NUM * STRIDE, 4 * ROW * 40), "levels"),
        (lambda words: words.__setitem__(upper_rows(words)[0][2] + 1, NUM + 7), "links"),
        (lambda words: words.__setitem__(upper_rows(words)[0][2], 17), "links"),
        (link_upwards, "links"),
    ],
    ids=range(9),
)
def test_a_forged_link_is_refused_although_its_checksum_is_right(
    folder: Path, vectors: np.ndarray, change: Callable[[np.ndarray], None], problem: str
) -> None:
    """hnswlib would follow it past its memory."""
    path = folder / "index.bin"
    whole = bytearray(path.read_bytes())
    words = np.frombuffer(whole, "<u4", offset=96)
    change(words)
    path.write_bytes(whole)
    forge(folder)
    with pytest.raises(IndexDamaged, match=problem):
        AnnIndex.load(folder, vectors)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 2}', '{"format": 1, "params": {"dim": 24}}'])
def test_a_damaged_description_is_refused(folder: Path, vectors: np.ndarray, text: str) -> None:
    (folder / "index.json").write_text(text)
    with pytest.raises(IndexDamaged, match=r"index\.json"):
        AnnIndex.load(folder, vectors)


@pytest.mark.parametrize("name", ["index.bin", "index.json", "twins.npy"])
def test_a_missing_file_is_named(folder: Path, vectors: np.ndarray, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(IndexDamaged, match=name):
        AnnIndex.load(folder, vectors)


def test_an_index_of_other_vectors_is_refused(folder: Path, vectors: np.ndarray) -> None:
    with pytest.raises(IndexDamaged, match="made for"):
        AnnIndex.load(folder, vectors[:-1])
    with pytest.raises(IndexDamaged, match="other vectors"):
        AnnIndex.load(folder, unit(3000, 24, seed=99))
    with pytest.raises(IndexDamaged, match="other vectors"):
        AnnIndex.load(folder, vectors[::-1])


def test_an_index_whose_items_are_out_of_reach_is_refused(tmp_path: Path) -> None:
    """Entry point and upper levels look right, but no item of level 0 has a link."""
    vectors = unit(500, 8)
    build(vectors).save(tmp_path)
    path = tmp_path / "index.bin"
    whole = bytearray(path.read_bytes())
    stride = 33 * 4 + 8 * 4 + 8
    for item in range(500):
        whole[96 + item * stride : 96 + item * stride + 4] = bytes(4)
    path.write_bytes(whole)
    forge(tmp_path)
    with pytest.raises(IndexDamaged, match="find themselves"):
        AnnIndex.load(tmp_path, vectors)
