"""Ranks of related pins, against a circle of pins worked by hand, a naive loop, and the judge where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from offline.data.dataset import open_dataset
from offline.embedding.collapse import describe_similarity, random_cosines
from offline.evaluation import ranking
from offline.evaluation.evaluation_data import TestUser
from offline.evaluation.homefeed_eval import best_of_recent, feed_values
from offline.evaluation.metrics import pair_values
from offline.evaluation.ranking import TIE, Method, cosine_scorer, nearest, related_ranks

SHARED = Path(__file__).parents[2] / "shared"


def circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def ranks(vectors: np.ndarray, pairs: list[tuple[int, int]], others: np.ndarray | None = None) -> list[float]:
    queries, related = np.array(pairs).T
    return related_ranks(Method(cosine_scorer(vectors, others), TIE), queries, related, len(vectors)).tolist()


# Pins a b c d e f; the ranks from each, nearest first, are easily read from the angles.
PINS = circle(0, 10, 20, 20, 90, 180)
A, B, C, D, E, F = range(6)


@pytest.mark.parametrize(
    ("pair", "rank"),
    [((A, B), 1), ((A, C), 2.5), ((A, D), 2.5), ((A, F), 5), ((E, F), 4.5), ((E, A), 4.5), ((E, B), 3)],
)
def test_rank_among_all_others_with_ties_at_their_mean(pair: tuple[int, int], rank: float) -> None:
    assert ranks(PINS, [pair]) == [rank]


def test_many_pairs_at_once_keep_their_order() -> None:
    assert ranks(PINS, [(E, F), (A, B), (A, F), (A, C)]) == [4.5, 1, 5, 2.5]


def test_cosines_within_a_millionth_are_a_tie() -> None:
    nearly = PINS.copy()
    nearly[D] = circle(20.00001)[0]
    assert ranks(nearly, [(A, C), (A, D)]) == [2.5, 2.5]


def test_a_collapsed_space_ranks_everything_in_the_middle() -> None:
    assert ranks(np.ones((6, 2), np.float32) / np.sqrt(np.float32(2)), [(A, B), (E, F)]) == [3, 3]


def test_a_cold_query_ranks_all_pins() -> None:
    # From 12 degrees: b (2), c and d (8), a (12), e (78), f (168).
    assert ranks(PINS, [(6, A), (6, D), (6, F)], others=circle(12)) == [4, 2.5, 6]


def naive_ranks(vectors: np.ndarray, pairs: np.ndarray) -> list[float]:
    found = []
    for query, related in pairs:
        scores = np.delete(vectors @ vectors[query], query)
        own = vectors[related] @ vectors[query]
        equal = np.abs(scores - own) <= TIE
        found.append(1 + float((scores > own + TIE).sum()) + (float(equal.sum()) - 1) / 2)
    return found


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_batches_and_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    # Whole numbers make many exact ties; 230 pins over blocks of 50, 9 queries at a time.
    vectors = rng.integers(-2, 3, (230, 4)).astype(np.float32) + np.float32(0.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.array([pair for pair in rng.integers(0, 230, (300, 2)) if pair[0] != pair[1]])
    monkeypatch.setattr(ranking, "CANDIDATES", 50)
    monkeypatch.setattr(ranking, "QUERIES", 9)
    method = Method(cosine_scorer(vectors), TIE)
    done: list[int] = []
    found = related_ranks(method, pairs[:, 0], pairs[:, 1], 230, threads=threads, progress=done.append)
    assert found.tolist() == naive_ranks(vectors, pairs)
    assert sum(done) == len(pairs)


def test_no_pairs_have_no_ranks() -> None:
    none = np.zeros(0, np.int64)
    assert related_ranks(Method(cosine_scorer(PINS), TIE), none, none, 6).tolist() == []


def test_nearest_leaves_out_the_query_and_orders_ties_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "CANDIDATES", 4)
    exact = Method(cosine_scorer(PINS))
    assert nearest(exact, A, 6, 3).tolist() == [B, C, D]
    assert nearest(exact, E, 6, 10)[:3].tolist() == [C, D, B]
    assert len(nearest(exact, E, 6, 10)) == 5


def judge_python() -> str | None:
    """A Python that can run the judge: one named in JUDGE_PYTHON, or this one where it has pandas."""
    return os.environ.get("JUDGE_PYTHON") or (sys.executable if importlib.util.find_spec("pandas") else None)


@pytest.mark.skipif(not (SHARED / "tools/judge.py").exists(), reason="no shared folder beside the checkout")
@pytest.mark.skipif(judge_python() is None, reason="the judge needs pandas; set JUDGE_PYTHON to a Python with it")
def test_agrees_with_the_judge_to_the_last_digit(tmp_path: Path) -> None:
    folder = SHARED / "data/tiktok-micro"
    dataset = open_dataset(folder)
    cold = set(dataset.coldstart_pins())
    ids = [pin for pin in dataset.pins()["pin_id"] if pin not in cold]
    vectors = np.random.default_rng(3).integers(-3, 4, (len(ids), 6)).astype(np.float32) + np.float32(0.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    judged = run_judge(folder, vectors, ids, tmp_path)

    row = {pin: place for place, pin in enumerate(ids)}
    pairs, users = dataset.pairs("test"), dataset.users_test()
    assert pairs is not None
    assert users is not None
    queries, related = (np.array([row[pin] for pin in pairs[name]]) for name in pairs.columns)
    found = related_ranks(Method(cosine_scorer(vectors), TIE), queries, related, len(ids), threads=2)
    ours = {name: round(float(values.mean()), 5) for name, values in pair_values(found).items()}
    assert ours == {name: judged["pairs_test"][name] for name in ours}

    tested = [
        TestUser(np.array([row[p] for p in saved]), np.array([row[p] for p in later]), len(later))
        for _, saved, later in users.select("user_id", "history", "held_out").iter_rows()
    ]
    values = feed_values(best_of_recent(cosine_scorer(vectors)), tested, len(ids), threads=2)
    # Equal cosines may differ in the last bit of a float sum, and then another one of them makes the list.
    for name, each in values.items():
        assert each.mean() == pytest.approx(judged["users_test"][name], abs=2e-4)

    similarity = describe_similarity(random_cosines(vectors))
    theirs = judged["similarity"]
    assert [similarity[k] for k in ("mean", "std", "kurtosis", "share_above_0.9")] == pytest.approx(
        [theirs[k] for k in ("mean", "std", "kurtosis_pearson", "share_gt_0.9")], abs=1.1e-5
    )


def run_judge(folder: Path, vectors: np.ndarray, ids: list[str], work: Path) -> dict[str, dict[str, float]]:
    np.save(work / "e.npy", vectors)
    (work / "ids.txt").write_text("\n".join(ids) + "\n")
    command = [str(judge_python()), str(SHARED / "tools/judge.py"), str(folder)]
    command += ["--embeddings", str(work / "e.npy"), "--ids", str(work / "ids.txt"), "--json", str(work / "out.json")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr
    result: dict[str, dict[str, float]] = json.loads((work / "out.json").read_text())
    return result
