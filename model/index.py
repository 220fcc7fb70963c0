"""The index of a release: approximate nearest neighbours by inner product of unit vectors, never changed once built.

hnswlib checks nothing, neither the width of a query nor NaN nor its own file, and forgets `ef` when saved; all of that
is checked here. An index is a cache: whatever is wrong with it, it can be built again from the vectors.

Shape letters: P items, D width, Q queries, K results, R candidates, S sampled items, W twins.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hnswlib
import numpy as np
from numpy.typing import NDArray

from model.errors import IndexDamaged
from model.exact import Neighbors, Vectors, check_queries, check_unit, exact_neighbors, top_k
from model.files import sha256_file
from model.index_file import check_index_file
from model.twins import find_twins, with_twins

FORMAT = 1
EF_LADDER = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
CANARIES = 64
CHUNK = 8_192

Progress = Callable[[int], None]


@dataclass(frozen=True)
class IndexParams:
    """What gives the index's bytes their meaning. The metric is always the inner product of unit vectors.

    dim, num_items   shape of the vectors
    m                links of an item (hnswlib's M)
    ef_construction  candidates looked at while building
    ef               candidates looked at while querying
    """

    dim: int
    num_items: int
    m: int = 16
    ef_construction: int = 200
    ef: int = 128


class AnnIndex:
    """An immutable index over the rows of `vectors_PD`; queries may come from many threads."""

    def __init__(self, native: Any, params: IndexParams, vectors_PD: Vectors, twins_W2: NDArray[np.int64]) -> None:
        self.params = params
        self._native = native
        self._vectors_PD = vectors_PD
        self._twins_W2 = twins_W2
        native.set_ef(params.ef)

    @classmethod
    def build(
        cls,
        vectors_PD: Vectors,
        params: IndexParams,
        *,
        seed: int = 0,
        num_threads: int = 1,
        chunk: int = CHUNK,
        progress: Progress | None = None,
    ) -> AnnIndex:
        """Build over unit vectors; `progress` is told the number of items just done, `chunk` or fewer, and may raise.

        ValueError naming the row of a vector that is not finite or not of unit length. One thread gives the same index
        every time, several do not.
        """
        if vectors_PD.shape != (params.num_items, params.dim) or not params.num_items or params.m < 2:
            raise ValueError(f"vectors are {vectors_PD.shape}, the index wants {params}")
        for start in range(0, params.num_items, CHUNK):
            check_unit(vectors_PD[start : start + CHUNK], start)
        twins_W2 = find_twins(vectors_PD)
        rows = np.setdiff1d(np.arange(params.num_items), twins_W2[:, 1], assume_unique=True)
        native = hnswlib.Index("ip", params.dim)
        native.init_index(len(rows), M=params.m, ef_construction=params.ef_construction, random_seed=seed)
        for start in range(0, len(rows), chunk):
            some = rows[start : start + chunk]
            native.add_items(np.asarray(vectors_PD[some], np.float32), some, num_threads=num_threads)
            if progress is not None:
                progress(len(some))
        return cls(native, params, vectors_PD, twins_W2)

    def with_ef(self, ef: int) -> AnnIndex:
        """The same index with another `ef`; the old object must not be used any more."""
        return AnnIndex(self._native, dataclasses.replace(self.params, ef=ef), self._vectors_PD, self._twins_W2)

    def save(self, folder: Path) -> None:
        """Write index.bin, twins.npy and index.json (format, params and checksums) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._native.save_index(str(folder / "index.bin"))
        np.save(folder / "twins.npy", self._twins_W2)
        description = {
            "format": FORMAT,
            "params": dataclasses.asdict(self.params),
            "sha256": {name: sha256_file(folder / name) for name in ("index.bin", "twins.npy")},
        }
        (folder / "index.json").write_text(json.dumps(description, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, vectors_PD: Vectors) -> AnnIndex:
        """Read an index of just these vectors; IndexDamaged when any byte or any answer looks wrong.

        Nothing is given to hnswlib before checksum, header and size are found right.
        """
        params, sums = _read_description(folder / "index.json")
        if vectors_PD.shape != (params.num_items, params.dim):
            raise IndexDamaged(f"{folder}: made for ({params.num_items}, {params.dim}), not {vectors_PD.shape}")
        twins_W2 = _read_twins(folder / "twins.npy", sums["twins.npy"], params.num_items)
        num_stored = params.num_items - len(twins_W2)
        path = folder / "index.bin"
        check_index_file(
            path,
            sha256=sums["index.bin"],
            dim=params.dim,
            num_items=num_stored,
            m=params.m,
            num_rows=params.num_items,
        )
        native = hnswlib.Index("ip", params.dim)
        try:
            native.load_index(str(path))
        except RuntimeError as error:
            raise IndexDamaged(f"{path}: {error}") from error
        index = cls(native, params, vectors_PD, twins_W2)
        index._sing(path)
        return index

    def _sing(self, path: Path) -> None:
        """A canary: the index must hold just these vectors, and nearly all of a sample must find their own."""
        rows_S = np.unique(np.linspace(0, self.params.num_items - 1, CANARIES).astype(np.int64))
        queries_SD = np.asarray(self._vectors_PD[rows_S], np.float32)
        labels_S1, distances_S1 = self._native.knn_query(queries_SD, 1, num_threads=1)
        found_SD = np.asarray(self._vectors_PD[labels_S1[:, 0].astype(np.int64)], np.float32)
        scores_S = np.einsum("sd,sd->s", queries_SD, found_SD)
        if not np.allclose(1 - distances_S1[:, 0], scores_S, atol=1e-4):
            raise IndexDamaged(f"{path}: holds other vectors")
        share = float((scores_S > 1 - 5e-3).mean())
        if share < 0.9:
            raise IndexDamaged(f"{path}: only {share:.0%} of a sample find themselves")

    def query(self, queries_QD: Vectors, k: int, *, num_threads: int = 1) -> Neighbors:
        """The k nearest items of each query, best first; scores are cosines for queries of unit length.

        k is cut to the number of items. ValueError for queries of another width, or not finite, or k < 1.
        """
        queries_QD = check_queries(queries_QD, self.params.dim)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        k = min(k, self.params.num_items)
        if not len(queries_QD):
            return Neighbors(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        num_stored = self.params.num_items - len(self._twins_W2)
        try:
            labels, distances = self._native.knn_query(queries_QD, min(k, num_stored), num_threads=num_threads)
        except RuntimeError:  # "Cannot return the results in a contiguous 2D array": it reached fewer than k
            return exact_neighbors(self._vectors_PD, queries_QD, k)
        found = Neighbors(labels.astype(np.int64), 1 - distances)
        if num_stored < self.params.num_items:
            return self._with_twins(queries_QD, found, k)
        return found

    def _with_twins(self, queries_QD: NDArray[np.float32], found: Neighbors, k: int) -> Neighbors:
        """The answer, and where some of it has twins filled up with them."""
        firsts_W = self._twins_W2[:, 0]
        places_QK = np.minimum(firsts_W.searchsorted(found.rows_QK), len(firsts_W) - 1)
        crowded_Q = (firsts_W[places_QK] == found.rows_QK).any(axis=1)
        if found.rows_QK.shape[1] < k:
            crowded_Q[:] = True
        if not crowded_Q.any():
            return found
        filled = self._fill_up(queries_QD[crowded_Q], found.rows_QK[crowded_Q], k)
        if crowded_Q.all():
            return filled
        found.rows_QK[crowded_Q], found.scores_QK[crowded_Q] = filled
        return found

    def _fill_up(self, queries_QD: NDArray[np.float32], labels_QK: NDArray[np.int64], k: int) -> Neighbors:
        """Answers with twins, scored by their own vectors."""
        answers = []
        for query_D, rows_K in zip(queries_QD, labels_QK, strict=True):
            rows = with_twins(rows_K, self._twins_W2, k)
            scores = np.asarray(self._vectors_PD[rows], np.float32) @ query_D
            answers.append(top_k(rows[None], scores[None], k))
        return Neighbors(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))


def recall(index: AnnIndex, vectors_PD: Vectors, *, sample: int, k: int, seed: int) -> float:
    """Share of the true k nearest that the index finds, over a sample of its own items."""
    queries_SD = _sample(vectors_PD, sample, seed)
    return _recall(index.query(queries_SD, k), exact_neighbors(vectors_PD, queries_SD, k))


class Tuned(NamedTuple):
    """An `ef`, and the recall that a sample has with it."""

    ef: int
    recall: float


def choose_ef(
    index: AnnIndex,
    vectors_PD: Vectors,
    *,
    k: int = 50,
    target: float = 0.98,
    sample: int = 500,
    seed: int = 0,
    num_threads: int = 1,
) -> Tuned:
    """The smallest ef of a ladder whose recall@k on a sample reaches the target; the largest when none does.

    Tries them out on the index, which must not be in use; give the answer to `with_ef`.
    """
    queries_SD = _sample(vectors_PD, sample, seed)
    exact = exact_neighbors(vectors_PD, queries_SD, k)
    for ef in EF_LADDER:
        tuned = Tuned(ef, _recall(index.with_ef(ef).query(queries_SD, k, num_threads=num_threads), exact))
        if tuned.recall >= target:
            break
    return tuned


def _sample(vectors_PD: Vectors, sample: int, seed: int) -> NDArray[np.float32]:
    rows_S = np.random.default_rng(seed).choice(len(vectors_PD), min(sample, len(vectors_PD)), replace=False)
    return np.asarray(vectors_PD[np.sort(rows_S)], np.float32)


def _recall(found: Neighbors, exact: Neighbors) -> float:
    """A result counts when it is as near as the k-th of the exact answer: equal scores are equally good."""
    return float((found.scores_QK >= exact.scores_QK[:, -1:] - 1e-6).mean())


def read_params(folder: Path) -> IndexParams:
    """How a saved index was built; IndexDamaged when its description cannot be read."""
    return _read_description(folder / "index.json")[0]


def _read_description(path: Path) -> tuple[IndexParams, dict[str, str]]:
    try:
        description = json.loads(path.read_text())
        if description["format"] != FORMAT:
            raise IndexDamaged(f"{path}: format {description['format']} is not {FORMAT}")
        params = IndexParams(**{name: int(value) for name, value in description["params"].items()})
        sums = {name: str(description["sha256"][name]) for name in ("index.bin", "twins.npy")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexDamaged(f"{path}: {error}") from error
    if min(params.dim, params.num_items, params.ef, params.m - 1) < 1:
        raise IndexDamaged(f"{path}: impossible numbers {params}")
    return params, sums


def _read_twins(path: Path, sha256: str, num_items: int) -> NDArray[np.int64]:
    try:
        if sha256_file(path) != sha256:
            raise IndexDamaged(f"{path}: checksum does not match")
        twins_W2: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IndexDamaged(f"{path}: {error}") from error
    fits = twins_W2.ndim == 2 and twins_W2.shape[1] == 2 and twins_W2.dtype == np.int64
    if not fits or (len(twins_W2) and not (twins_W2.min() >= 0 and twins_W2.max() < num_items)):
        raise IndexDamaged(f"{path}: not pairs of rows")
    return twins_W2
