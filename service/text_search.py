"""Pins by words, for people at the console: a scan of titles and annotations, without an index of its own.

A word of the query fits the start of a word of a pin. Pins that more words fit come first; a title counts more than a
tag; then pins on more boards. A scan of a million titles takes about a tenth of a second; nothing is built or kept.

Shape letters: P pins of the release, N annotations of all pins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.text import words
from service.catalogue import Catalogue
from service.views import Item

TITLE, TAG = 1.0, 0.8
MAX_WORDS = 8


def search_text(catalogue: Catalogue, text: str, limit: int) -> list[Item]:
    """The pins that the words of a text fit best; scores from 0 to 1, the reason says where: `title`, `annotation`."""
    wanted = list(dict.fromkeys(words(text)))[:MAX_WORDS]
    if not wanted:
        return []
    in_titles_P, in_tags_P = _scan_release(catalogue.release.pins, wanted)
    changed = [row for row, _ in catalogue.directory.records() if row < catalogue.num_base]
    in_titles_P[changed] = in_tags_P[changed] = 0
    points_P = np.maximum(TITLE * in_titles_P, TAG * in_tags_P)
    found = [(float(points_P[row]), row, bool(in_titles_P[row])) for row in _best(catalogue, points_P, limit)]
    found += _scan_records(catalogue, wanted)
    found.sort(key=lambda hit: (-hit[0], -catalogue.graph.pin_degree(hit[1]), hit[1]))
    return [
        catalogue.item(row, points / len(wanted), "title" if in_title else "annotation")
        for points, row, in_title in found[:limit]
    ]


def _scan_release(pins: pa.Table, wanted: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """How many of the words fit the title, and how many the tags, of each pin of the release, (P,) each."""
    in_titles_P, in_tags_P = np.zeros(pins.num_rows, np.float32), np.zeros(pins.num_rows, np.float32)
    for word in wanted:
        pattern = rf"(?i)(^|[^\pL\pN]){re.escape(word)}"  # \b knows the letters of English only
        start = 0
        for titles, tags in _chunks(pins):
            in_titles_P[start : start + len(titles)] += _matches(titles, pattern)
            fits_N = _matches(pc.list_flatten(tags), pattern)
            owners_N = pc.list_parent_indices(tags).to_numpy(zero_copy_only=False)
            in_tags_P[start + np.unique(owners_N[fits_N])] += 1
            start += len(titles)
    return in_titles_P, in_tags_P


def _chunks(pins: pa.Table) -> list[tuple[pa.Array, pa.Array]]:
    return [(batch["title"], batch["annotations"]) for batch in pins.select(["title", "annotations"]).to_batches()]


def _matches(texts: pa.Array, pattern: str) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_]
    found = pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False)
    return found


def _best(catalogue: Catalogue, points_P: npt.NDArray[np.float32], limit: int) -> list[int]:
    """Rows of the release with most points, existing ones, ties by boards; somewhat more than `limit` where tied."""
    hits = np.flatnonzero(points_P)
    hits = hits[catalogue.delta.view().exists(hits)]
    degrees = catalogue.release.graph.pin_ptr[hits + 1] - catalogue.release.graph.pin_ptr[hits]
    order = np.lexsort((hits, -degrees, -points_P[hits]))
    best: list[int] = hits[order[:limit]].tolist()
    return best


def _scan_records(catalogue: Catalogue, wanted: Sequence[str]) -> list[tuple[float, int, bool]]:
    """Points, row and whether by title, of pins that were put."""
    found = []
    for row, record in catalogue.directory.records():
        title = _count(wanted, words(record.title or ""))
        tags = _count(wanted, [word for tag in record.annotations for word in words(tag)])
        points = max(TITLE * title, TAG * tags)
        if points > 0:
            found.append((points, row, title > 0))
    return found


def _count(wanted: Sequence[str], known: Sequence[str]) -> int:
    return sum(any(word.startswith(want) for word in known) for want in wanted)
