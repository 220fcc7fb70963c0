"""Pins by words, for people at the console: a scan of titles and tags, without an index of its own.

A word of the query fits the start of a word of a pin. Pins that more words fit come first; a title counts more than a
tag; then pins on more boards. Arrow finds the few pins that hold the letters of a word at all; those are looked at word
by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.text import words
from service.live.catalogue import Catalogue
from service.live.views import Item

TITLE, TAG = 1.0, 0.8
MAX_WORDS = 8
MAX_HITS = 5_000  # pins of the release that are looked at, those on most boards first


class Hit(NamedTuple):
    """A pin that words fit: how many, and whether its title is why."""

    row: int
    points: float
    in_title: bool


def search_text(catalogue: Catalogue, text: str, limit: int) -> list[Item]:
    """The pins that the words of a text fit best; scores from 0 to 1, the reason says where: `title`, `annotation`."""
    wanted = list(dict.fromkeys(words(text)))[:MAX_WORDS]
    if not wanted:
        return []
    records = dict(catalogue.directory.records())
    rows = [row for row in _hold(catalogue, wanted) if row not in records]
    title, tags = catalogue.directory.value, catalogue.directory.annotations
    found = (_hit(row, wanted, title(row, "title"), tags(row)) for row in [*rows, *records])
    hits = [hit for hit in found if hit.points > 0]
    hits.sort(key=lambda hit: (-hit.points, -catalogue.graph.pin_degree(hit.row), hit.row))
    return [
        catalogue.item(hit.row, hit.points / len(wanted), "title" if hit.in_title else "annotation")
        for hit in hits[:limit]
    ]


def _hit(row: int, wanted: Sequence[str], title: str | None, tags: Sequence[str]) -> Hit:
    in_title = _count(wanted, words(title or ""))
    in_tags = _count(wanted, [word for tag in tags for word in words(tag)])
    return Hit(row, max(TITLE * in_title, TAG * in_tags), in_title > 0)


def _count(wanted: Sequence[str], known: Sequence[str]) -> int:
    return sum(any(word.startswith(want) for word in known) for want in wanted)


def _hold(catalogue: Catalogue, wanted: Sequence[str]) -> list[int]:
    """Existing rows of the release whose title or tags hold the letters of a word; those of more words, or on more
    boards, come first."""
    pins, graph = catalogue.release.pins, catalogue.release.graph
    counts_P = np.zeros(pins.num_rows, np.int8)
    for word in wanted:
        start = 0
        for batch in pins.select(["title", "annotations"]).to_batches():
            held_N = _matches(batch["title"], word)
            owners_N = pc.list_parent_indices(batch["annotations"]).to_numpy(zero_copy_only=False)
            held_N[owners_N[_matches(pc.list_flatten(batch["annotations"]), word)]] = True
            counts_P[start : start + len(held_N)] += held_N
            start += len(held_N)
    rows = np.flatnonzero(counts_P)
    rows = rows[catalogue.delta.view().exists(rows)]
    order = np.lexsort((rows, graph.pin_ptr[rows] - graph.pin_ptr[rows + 1], -counts_P[rows]))
    best: list[int] = rows[order[:MAX_HITS]].tolist()
    return best


def _matches(texts: pa.Array, word: str) -> npt.NDArray[np.bool_]:
    held = pc.match_substring(texts, word, ignore_case=True)
    matches: npt.NDArray[np.bool_] = np.array(pc.fill_null(held, False).to_numpy(zero_copy_only=False), bool)
    return matches
