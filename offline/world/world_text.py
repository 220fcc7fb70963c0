"""Words of a synthetic world: titles, annotations and sentences of pins, titles of boards."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from offline.world.people import DAY, START
from offline.world.vocabulary import BOARD_FORMS, EVERYWHERE, OPENERS, STYLES, SUBJECTS
from offline.world.world import World

# Legend: N pins (or boards) of a chunk, W words of a topic.

Array = npt.NDArray[Any]

MIN_WORDS, MAX_WORDS = 3, 7
NOISE_SHARE = 0.15


def describe_pins(
    world: World, topics_N: Array, rng: np.random.Generator, *, sentences: bool
) -> dict[str, pl.Series | Array]:
    """Columns of the pins table for pins of these topics; descriptions only where `sentences` are wanted."""
    topics = world.topics
    subjects = topics.subjects_T[topics_N]
    first, second = (pl.Series(_details()).gather(_detail(topics_N, subjects, rng)) for _ in range(2))
    opener = pl.Series(OPENERS).gather(rng.integers(0, len(OPENERS), len(topics_N)))
    names = pl.Series(topics.names()).gather(topics_N)
    categories = pl.Series([subject.name for subject in SUBJECTS]).gather(subjects)
    shown = pl.select(name=names, opener=opener, detail=first, second=second, category=categories)
    shown = shown.with_columns(lead=pl.concat_str("opener", "name"))
    lead = pl.concat_str(pl.col("lead").str.slice(0, 1).str.to_uppercase(), pl.col("lead").str.slice(1))
    columns: dict[str, pl.Series | Array] = {
        "title": shown.select(pl.concat_str(lead, pl.lit(", "), "detail").alias("title"))["title"],
        "annotations": _annotations(world, topics_N, rng),
        "category": categories,
        "language": pl.repeat("en", len(topics_N), eager=True),
        "created_at": rng.integers(START - 365 * DAY, START, len(topics_N)),
    }
    if sentences:
        noted = pl.when(first != second).then(pl.concat_str("detail", pl.lit(" and "), "second")).otherwise("detail")
        sentence = pl.concat_str(lead, pl.lit(", noted for "), noted, pl.lit(". Filed under "), "category", pl.lit("."))
        columns["description"] = shown.select(sentence.alias("description"))["description"]
    return columns


_NUM_DETAILS = min(len(subject.details) for subject in SUBJECTS)
_NUM_OWN = 5  # a topic prefers that many details of its subject


def _details() -> list[str]:
    return [detail for subject in SUBJECTS for detail in subject.details[:_NUM_DETAILS]]


def _detail(topics_N: Array, subjects_N: Array, rng: np.random.Generator) -> Array:
    """A detail for each pin, as a position in `_details`: mostly one that its topic prefers."""
    reach = np.where(rng.random(len(topics_N)) < 0.8, _NUM_OWN, _NUM_DETAILS)
    number = (_first_detail(topics_N) + (rng.random(len(topics_N)) * reach).astype(np.int64)) % _NUM_DETAILS
    position: Array = subjects_N * _NUM_DETAILS + number
    return position


def _first_detail(topics: Any) -> Any:
    return topics * _NUM_OWN % _NUM_DETAILS


def _annotations(world: World, topics_N: Array, rng: np.random.Generator) -> pl.Series:
    """Lists of MIN_WORDS to MAX_WORDS words of the pin's topic, the telling ones most often; some say nothing."""
    table_TW, words = _topic_words(world)
    num, width = len(topics_N), table_TW.shape[1]
    sizes = rng.integers(MIN_WORDS, MAX_WORDS + 1, num)
    # Gumbel noise on the log weights: the best `size` of them are a draw without replacement.
    keys = rng.gumbel(size=(num, width)).astype(np.float32) - 0.8 * np.log(np.arange(width) + 1.5)
    order = np.argsort(-keys, axis=1)[:, :MAX_WORDS]
    chosen = np.take_along_axis(table_TW[topics_N], order, axis=1)
    noise = rng.integers(0, len(EVERYWHERE), (num, MAX_WORDS)) + len(words) - len(EVERYWHERE)
    last = np.arange(MAX_WORDS) == (sizes - 1)[:, None]
    chosen = np.where(last & (rng.random((num, 1)) < NOISE_SHARE * MAX_WORDS / 2), noise, chosen)
    kept = np.arange(MAX_WORDS) < sizes[:, None]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    values = pa.array(words).take(pa.array(chosen[kept]))
    return pl.Series("annotations", pa.ListArray.from_arrays(offsets, values))


def _topic_words(world: World) -> tuple[Array, list[str]]:
    """Words of each topic (T, W), the most telling first, as positions in the list of all words."""
    places: dict[str, int] = {}
    rows = []
    topics = world.topics
    for topic, name in enumerate(topics.names()):
        subject, style = SUBJECTS[topics.subjects_T[topic]], STYLES[topics.styles_T[topic]]
        details = [subject.details[(_first_detail(topic) + n) % _NUM_DETAILS] for n in range(_NUM_OWN)]
        own = [name, subject.nouns[topics.nouns_T[topic]], style.name, *details, subject.name.lower()]
        rows.append([places.setdefault(word, len(places)) for word in own])
    return np.array(rows), [*places, *EVERYWHERE]


def board_titles(world: World, topics_N: Array, seconds_N: Array, rng: np.random.Generator) -> pl.Series:
    """Titles of boards: a form with the topic's name, or both names where the board mixes two topics."""
    names = pl.Series(world.topics.names())
    forms = pl.Series(BOARD_FORMS).gather(rng.integers(0, len(BOARD_FORMS), len(topics_N)))
    table = pl.select(form=forms, one=names.gather(topics_N), two=names.gather(np.maximum(seconds_N, 0)))
    table = table.with_columns(mixed=pl.Series(seconds_N >= 0))
    before, after = (pl.col("form").str.split("{}").list.get(n) for n in (0, 1))
    single = pl.concat_str(before, "one", after)
    text = pl.when("mixed").then(pl.concat_str("one", pl.lit(" & "), "two")).otherwise(single)
    titles = table.select(text.alias("title"))
    upper = pl.concat_str(pl.col("title").str.slice(0, 1).str.to_uppercase(), pl.col("title").str.slice(1))
    return titles.select(upper.alias("title"))["title"]
