"""Pins that are like a pin, or like content that is not stored.

Reasons: `saved_together` where people put both on boards that lie close in the graph (the item is among the pins that
the walks from the pin visit most), else `similar`, by content and by what is around it.

Shape letters: Q queries, K results, L results that are shown, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.related_lists import Listed
from service.live.catalogue import Catalogue
from service.live.facets import Filter
from service.live.failures import UnknownPin
from service.live.search import NO_FILTER
from service.live.views import Item, Page, PinContentIn

MAX_DEPTH = 2_000  # a list ends here: further down nothing is related
SAVED_TOGETHER = "saved_together"
SIMILAR = "similar"


def related(
    catalogue: Catalogue,
    pin_id: str,
    *,
    limit: int,
    offset: int = 0,
    exclude: Sequence[str] = (),
    wanted: Filter = NO_FILTER,
) -> Page:
    """One page of the pins nearest to a pin, the pin itself left out. Raises UnknownPin."""
    row = catalogue.row(pin_id)
    if row < 0:
        raise UnknownPin(pin_id)
    stop = min(offset + limit, MAX_DEPTH)
    items, more = list[Item](), False
    if offset < stop:
        out, vector_1D = np.array([*catalogue.rows(exclude).tolist(), row]), catalogue.vectors(np.array([row]))
        listed = catalogue.listed(row)  # after its vector, which is the release's then
        nearest = None if listed is None else listed.nearest
        # One more than wanted tells whether there is a next page.
        found = catalogue.search(vector_1D, stop + 1, exclude=out, wanted=wanted, listed=nearest)
        rows_K, scores_K = found.rows_QK[0, offset:stop], found.scores_QK[0, offset:stop]
        items = _items(catalogue, rows_K, scores_K, _together(catalogue, row, rows_K, listed))
        more = stop < MAX_DEPTH and bool(found.rows_QK[0, stop] >= 0)
    return Page(catalogue.release.id, items, stop if more else None)


def related_batch(
    catalogue: Catalogue, queries: Sequence[str | PinContentIn], *, limit: int
) -> list[list[Item] | None]:
    """The pins nearest to each of several pins or contents; None for a pin that is not there.

    Raises InvalidContent for content that does not fit the release.
    """
    rows = [catalogue.row(query) if isinstance(query, str) else -1 for query in queries]
    known = [q for q, query in enumerate(queries) if rows[q] >= 0 or not isinstance(query, str)]
    answers: list[list[Item] | None] = [None] * len(queries)
    if not known:
        return answers
    vectors_QD = np.stack([_vector(catalogue, queries[q], rows[q]) for q in known])
    found = catalogue.search(vectors_QD, limit + 1)
    for q, rows_K, scores_K in zip(known, found.rows_QK, found.scores_QK, strict=True):
        others = np.flatnonzero((rows_K != rows[q]) & (rows_K >= 0))[:limit]
        rows_L, scores_L = rows_K[others], scores_K[others]
        together = set[int]()
        if rows[q] >= 0:
            together = _together(catalogue, rows[q], rows_L, catalogue.listed(rows[q]))
        answers[q] = _items(catalogue, rows_L, scores_L, together)
    return answers


def _together(catalogue: Catalogue, row: int, rows_K: npt.NDArray[np.int64], listed: Listed | None) -> set[int]:
    """Rows that people save together with a pin: as listed, or for others than those on the list by walks as of now."""
    if listed is not None and set(listed.nearest.rows_QK[0].tolist()).issuperset(rows_K.tolist()):
        return set(listed.together.tolist())
    return set(catalogue.neighbors(row)[0].tolist())


def _vector(catalogue: Catalogue, query: str | PinContentIn, row: int) -> npt.NDArray[np.float32]:
    vector_D: npt.NDArray[np.float32]
    vector_D = catalogue.vectors(np.array([row]))[0] if isinstance(query, str) else catalogue.preview(query)
    return vector_D


def _items(
    catalogue: Catalogue, rows_K: npt.NDArray[np.int64], scores_K: npt.NDArray[np.float32], together: set[int]
) -> list[Item]:
    pairs = zip(rows_K.tolist(), scores_K.tolist(), strict=True)
    return [
        catalogue.item(row, score, SAVED_TOGETHER if row in together else SIMILAR) for row, score in pairs if row >= 0
    ]
