"""The methods that an evaluation compares, as far as the data set has what they need.

Letters: P pins of the run, C cold pins, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offline.evaluation import baselines
from offline.evaluation.als import als_vectors, reason_against_als
from offline.evaluation.evaluation_data import EvaluationData
from offline.evaluation.homefeed_eval import Feed, best_of_recent, item_knn_feed, popularity_feed
from offline.evaluation.pixie import Pixie, labels_of
from offline.evaluation.ranking import TIE, Method, cosine_scorer

Array = npt.NDArray[Any]
Methods = dict[str, Method]

PINSAGE = "pinsage"
SEED = 7


@dataclass(frozen=True)
class AllMethods:
    """What is compared in each test, best known first; names are those of metrics.json.

    related           queries and candidates are pins of the run
    without_boards    queries are cold pins of which only the content is known
    with_boards       queries are cold pins that somebody put on boards
    feeds             from histories to candidates
    skipped           methods that are left out though the data would do, and why
    """

    related: Methods
    without_boards: Methods
    with_boards: Methods
    feeds: dict[str, Feed]
    skipped: dict[str, str]


def build_methods(data: EvaluationData, *, threads: int = 1) -> AllMethods:
    """All methods but PinSage on cold pins, whose vectors come later (see `cold_pinsage`)."""
    none = np.zeros(0, np.int64)
    content = _content(data)
    popularity = baselines.popularity(data.graph.pin_degrees())
    known = baselines.graph_matrix(data.graph, none, none, len(data.cold.ids))
    graph = _with_content(baselines.boards(known), content)
    related = {
        PINSAGE: Method(cosine_scorer(data.vectors_PD), TIE),
        "popularity": popularity,
        **content,
        **graph,
        "pixie": baselines.pixie(known),
    }
    reason = reason_against_als(known)
    if reason is None:
        related["als"] = Method(cosine_scorer(als_vectors(known[: data.num_pins], seed=SEED, threads=threads)), TIE)
    with_boards: Methods = {}
    if len(data.cold.ids):
        full = baselines.graph_matrix(data.graph, data.cold.pins_E, data.cold.boards_E, len(data.cold.ids))
        with_boards = _with_content(baselines.boards(full), content) | {"pixie": baselines.pixie(full)}
    feeds = {name: best_of_recent(method.scorer) for name, method in related.items() if not method.is_dear}
    feeds["popularity"] = popularity_feed(data.graph.pin_degrees())
    feeds["pixie"] = pixie_walks(data).feed()
    feeds["item_knn"] = item_knn_feed(known[: data.num_pins])
    return AllMethods(
        related, {"popularity": popularity, **content}, with_boards, feeds, {"als": reason} if reason else {}
    )


def pixie_walks(data: EvaluationData) -> Pixie:
    """Pixie's walks on the run's graph, biased to pins of the same language or, where that tells none, category."""
    pins_P = data.pins_A[: data.num_pins]
    return Pixie(data.graph, labels_of([pins_P["language"].to_list(), pins_P["category"].to_list()]), seed=SEED)


def cold_pinsage(data: EvaluationData, vectors_CD: Array) -> Method:
    """PinSage on cold pins with these embeddings."""
    return Method(cosine_scorer(data.vectors_PD, vectors_CD), TIE)


def _content(data: EvaluationData) -> Methods:
    texts = data.pins_A.select("title", "annotations", "description").iter_rows()
    found = {"text": baselines.text(texts)}
    if data.visual_FV is not None:
        found["visual"] = baselines.visual(data.visual_FV, data.file_rows_A)
    return {name: method for name, method in found.items() if method is not None}


def _with_content(boards: Method, content: Methods) -> Methods:
    sums = {f"boards+{name}": baselines.both(boards, method) for name, method in content.items()}
    return {"boards": boards, **sums}
