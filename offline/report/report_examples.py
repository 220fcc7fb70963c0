"""What the report shows of single pins: the map, and queries with the best pins of each method (paper, figure 5).

Letters: S pins of the map, D embedding width.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from sklearn.manifold import TSNE

from offline.evaluation.evaluation_data import EvaluationData
from offline.evaluation.ranking import Method, nearest

Array = npt.NDArray[Any]

NUM_QUERIES = 8
NUM_SHOWN = 6
MAP_PINS = 2000
THUMBNAIL = 112
LONGEST = 160  # letters of a title or a note
TOP_TAGS = 10
METHODS = ("pinsage", "pixie", "boards", "text", "visual")


@dataclass(frozen=True)
class Card:
    """A pin as the report shows it; image is a data: address."""

    pin_id: str
    title: str
    note: str
    image: str | None
    is_answer: bool = False


@dataclass(frozen=True)
class Example:
    """A query and the best pins of each method; none where a method finds nothing."""

    query: Card
    answers: dict[str, list[Card]]


@dataclass(frozen=True)
class EmbeddingMap:
    """A plane on which near pins lie near each other.

    agreement  share of labelled pins whose nearest labelled pin, by the embedding itself, has the same label; and what
               it would be by chance. None where fewer than two labels are known.
    """

    points_S2: Array
    labels: list[str | None]
    degrees_S: Array
    agreement: tuple[float, float] | None


def choose_examples(data: EvaluationData, methods: dict[str, Method], *, seed: int) -> list[Example]:
    """Some queries of the test, pins with a title or picture first."""
    queries = np.unique(data.pairs_N2[:, 0])
    drawn = np.random.default_rng(seed).permutation(queries)[: 20 * NUM_QUERIES].tolist()
    drawn.sort(key=lambda row: not _has_content(data, row))
    return [_example(data, methods, row) for row in drawn[:NUM_QUERIES]]


def map_embeddings(data: EvaluationData, *, seed: int) -> EmbeddingMap | None:
    """t-SNE of at most MAP_PINS pins; None where there are too few for a map."""
    if data.num_pins < 10:
        return None
    rows = np.sort(np.random.default_rng(seed).permutation(data.num_pins)[:MAP_PINS])
    vectors_SD = np.asarray(data.vectors_PD[rows])
    perplexity = min(30.0, (len(rows) - 1) / 4)
    tsne = TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed)
    labels = map_labels(data, rows)
    points_S2 = tsne.fit_transform(vectors_SD)
    return EmbeddingMap(points_S2, labels, data.graph.pin_degrees()[rows], label_agreement(vectors_SD, labels))


def map_labels(data: EvaluationData, rows: Array) -> list[str | None]:
    """The category of each pin; where nobody has one, the rarest of its annotations among the TOP_TAGS commonest.

    The rarest, because an annotation that most pins have tells nothing of one of them.
    """
    pins = data.pins_A[rows]
    if pins["category"].null_count() < pins.height:
        return pins["category"].to_list()
    tags = [list(dict.fromkeys(tags or [])) for tags in pins["annotations"].to_list()]
    counts = dict(Counter(tag for each in tags for tag in each).most_common(TOP_TAGS))
    return [min((tag for tag in each if tag in counts), key=counts.__getitem__, default=None) for each in tags]


def label_agreement(vectors_SD: Array, labels: list[str | None]) -> tuple[float, float] | None:
    """How often the nearest labelled pin has the same label, and how often a random one would; see EmbeddingMap."""
    known = np.array([bool(label) for label in labels])
    names, kinds_S = np.unique(np.array([label or "" for label in labels])[known], return_inverse=True)
    if len(names) < 2:
        return None
    cosines_SS = vectors_SD[known] @ vectors_SD[known].T
    np.fill_diagonal(cosines_SS, -np.inf)
    shares = np.bincount(kinds_S) / len(kinds_S)
    return float((kinds_S[cosines_SS.argmax(axis=1)] == kinds_S).mean()), float((shares**2).sum())


def _example(data: EvaluationData, methods: dict[str, Method], query: int) -> Example:
    related = set(data.pairs_N2[data.pairs_N2[:, 0] == query, 1].tolist())
    answers = {
        name: [_card(data, row, row in related) for row in _best(methods[name], query, data.num_pins)]
        for name in METHODS
        if name in methods
    }
    return Example(_card(data, query, False), answers)


def _best(method: Method, query: int, num_pins: int) -> Array:
    """The best pins, but none with a score of 0: that is what a method gives to pins that it cannot relate."""
    rows = nearest(method, query, num_pins, NUM_SHOWN)
    known: Array = rows[method.scorer(np.array([query]))(rows)[0] > 0]
    return known


def _has_content(data: EvaluationData, row: int) -> bool:
    title, image_url = data.pins_A.select("title", "image_url").row(row)
    return bool(title or image_url)


def _card(data: EvaluationData, row: int, is_answer: bool) -> Card:
    pin = data.pins_A.row(int(row), named=True)
    degree = int(data.graph.pin_ptr[row + 1] - data.graph.pin_ptr[row])
    tags = ", ".join((pin["annotations"] or [])[:4])
    note = f"{degree} board{'' if degree == 1 else 's'}" + (f" · {tags}" if tags else "")
    title = (pin["title"] or "").strip() or pin["pin_id"]
    return Card(pin["pin_id"], _short(title), _short(note), thumbnail(data.folder, pin["image_url"]), is_answer)


def _short(words: str) -> str:
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def thumbnail(folder: Path, image_url: str | None) -> str | None:
    """A small copy of a picture inside the data set's folder; None for any other address, which is never fetched."""
    if not image_url or "://" in image_url:
        return None
    path = (folder / image_url.lstrip("/")).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return None
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
