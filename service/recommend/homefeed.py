"""A user's feed.

The backbone is the rule "best cosine to any of the last pins": every recent save or click asks for its nearest pins, so
that each interest of a user brings its own, as PinnerSage's medoids do. Older actions and clicks count a little less,
and what the user's pins agree on counts a little more: a share of the mean cosine to all of them is added. Then come
the rules that make a list of it:

    taken out     what the user saved, clicked, hid or was shown, and what the request excludes
    held back     pins that are more like a hidden pin than like what brought them
    spread        a pin costs what is like the pins right before it (a decaying sum of cosines), so topics take turns
    mixed in      every tenth place shows something trending, every tenth something fresh
    at the end    pins that are popular everywhere: by what all users do, then by the number of boards

Reasons: because_you_saved, because_you_clicked, trending, fresh, popular. For the same user, catalogue and trends the
feed is the same; a page continues what was shown before it, so that no pin comes twice.

Shape letters: S sources, C candidates, K results, D embedding width, H hidden pins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.live.catalogue import Catalogue
from service.live.facets import Filter
from service.live.search import NO_FILTER
from service.live.shelves import Shelves
from service.live.views import UserState
from service.recommend.spread import Spread

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float32]

MAX_SOURCES = 20
MAX_HIDES = 50
HIDE_COST = 2.0  # of being nearer to a hidden pin, for a difference of 1 in cosine
POOL = 600  # candidates of all sources together
MAX_DEPTH = 2_000
TYPE_WEIGHT = {"save": 1.0, "click": 0.5}
HALF_LIFE = 14 * 86_400.0  # seconds, counted from the last action: a user who comes back finds an unchanged feed
WEIGHT_SHARE = 0.1  # how much of a score the weight of its source can take away
AGREEMENT = 0.3  # how much the mean cosine to all sources counts, next to the best one
SLOT_PERIOD, TRENDING_SLOT, FRESH_SLOT = 10, 4, 9
REASONS = {"save": "because_you_saved", "click": "because_you_clicked"}

NOBODY_KNOWN = UserState()
NOTHING: Iterator[Any] = iter(())


class Pick(NamedTuple):
    """A place in the feed; source is the row of the user's pin behind it, or -1."""

    row: int
    score: float
    reason: str
    source: int = -1


class Source(NamedTuple):
    """A pin that the user acted on: its row, how much it counts (0 … 1), and the reason it gives to what it brings."""

    row: int
    weight: float
    reason: str


@dataclass(frozen=True)
class Asked:
    """Whom a feed is for and what is wanted; `trending` holds pin ids, the most popular first."""

    state: UserState = NOBODY_KNOWN
    trending: Sequence[str] = ()
    exclude: Sequence[str] = ()
    wanted: Filter = NO_FILTER


class Feed:
    """One user's feed over one catalogue."""

    def __init__(self, catalogue: Catalogue, shelves: Shelves, asked: Asked) -> None:
        self._catalogue, self._shelves, self._asked = catalogue, shelves, asked

    def after(self, shown: Sequence[str], count: int) -> list[Pick]:
        """The next `count` places after the pins that were shown; fewer at the end of the feed."""
        before = [row for row in map(self._catalogue.row, shown) if row >= 0]
        used = {*self._out.tolist(), *before}
        candidates, values_C = self._candidates()
        spread = self._spread(candidates, values_C, before)
        slots = {TRENDING_SLOT: self._trending(used), FRESH_SLOT: self._fresh(used)}
        popular = self._popular(used)
        picks: list[Pick] = []
        for place in range(len(shown), min(len(shown) + count, MAX_DEPTH)):
            pick = next(slots.get(place % SLOT_PERIOD, NOTHING), None)
            if pick is None:
                best = spread.best()
                pick = next(popular, None) if best is None else candidates[best]
            if pick is None:
                break
            used.add(pick.row)
            spread.place([pick.row], self._catalogue.vectors(np.array([pick.row])))
            picks.append(pick)
        return picks

    @cached_property
    def _sources(self) -> list[Source]:
        """The user's last pins that still exist and are not hidden, the newest first."""
        recent, hidden = self._asked.state.recent, set(self._asked.state.hides)
        newest = max((action.timestamp for action in recent), default=0.0)
        found: dict[int, Source] = {}
        for action in recent:
            row = self._catalogue.row(action.pin_id)
            if row < 0 or action.pin_id in hidden or action.type not in REASONS:
                continue
            weight = TYPE_WEIGHT[action.type] * 0.5 ** ((newest - action.timestamp) / HALF_LIFE)
            if row not in found or weight > found[row].weight:
                found[row] = Source(row, weight, REASONS[action.type])
        return list(found.values())[:MAX_SOURCES]

    @cached_property
    def _out(self) -> Ints:
        """Rows that must not come, but for those that were only shown."""
        state = self._asked.state
        done = [action.pin_id for action in state.recent]
        return self._catalogue.rows([*done, *state.hides, *self._asked.exclude])

    @cached_property
    def _seen(self) -> set[int]:
        return set(self._catalogue.rows(self._asked.state.seen).tolist())

    def _candidates(self) -> tuple[list[Pick], npt.NDArray[np.float64]]:
        """What the sources bring, each pin once, and the best value that it has for any of them, (C,)."""
        sources = self._sources
        if not sources:
            return [], np.empty(0)
        out = np.concatenate([self._out, np.fromiter(self._seen, np.int64)])
        queries_SD = self._catalogue.vectors(np.array([source.row for source in sources]))
        found = self._catalogue.search(queries_SD, POOL // len(sources), exclude=out, wanted=self._asked.wanted)
        best: dict[int, tuple[float, Pick]] = {}
        for source, rows_K, scores_K in zip(sources, *found, strict=True):
            factor = 1 - WEIGHT_SHARE * (1 - source.weight)
            for row, score in zip(rows_K.tolist(), scores_K.tolist(), strict=True):
                if row >= 0 and (row not in best or factor * score > best[row][0]):
                    best[row] = factor * score, Pick(row, score, source.reason, source.row)
        ordered = [best[row] for row in sorted(best)]
        return [pick for _, pick in ordered], np.array([value for value, _ in ordered])

    def _agreement(self, vectors_CD: Floats) -> npt.NDArray[np.float64]:
        """(C,) mean cosines to the sources, by their weights; their mean vector gives them at once."""
        if not self._sources:
            return np.zeros(len(vectors_CD))
        rows_S, weights_S = zip(*((source.row, source.weight) for source in self._sources), strict=True)
        mean_D = np.average(self._catalogue.vectors(np.array(rows_S)), axis=0, weights=weights_S)
        return (vectors_CD @ mean_D).astype(np.float64)

    def _spread(self, candidates: Sequence[Pick], values_C: npt.NDArray[np.float64], before: Sequence[int]) -> Spread:
        """The candidates by value, with regard to what was shown before."""
        rows = [pick.row for pick in candidates]
        vectors_CD = self._catalogue.vectors(np.array(rows, np.int64))
        values_C = values_C - self._like_hidden(vectors_CD, values_C) + AGREEMENT * self._agreement(vectors_CD)
        spread = Spread(rows, values_C, vectors_CD)
        spread.place(before, self._catalogue.vectors(np.array(before, np.int64)))
        return spread

    def _like_hidden(self, vectors_CD: Floats, values_C: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(C,): what to take off pins that are more like a hidden pin than like what brought them."""
        hidden = self._catalogue.rows(self._asked.state.hides[:MAX_HIDES])
        likeness_C = np.max(vectors_CD @ self._catalogue.vectors(hidden).T, axis=1, initial=-1)
        costs_C: npt.NDArray[np.float64] = HIDE_COST * np.maximum(likeness_C - values_C, 0)
        return costs_C

    def _trending(self, used: set[int]) -> Iterator[Pick]:
        """What all users do these days; for a user of whom nothing is known it is no more than popular."""
        if not self._sources:
            return NOTHING
        rows = (row for row in self._trending_rows if row not in self._seen)
        return (Pick(row, 0.0, "trending") for row in rows if row not in used)

    def _fresh(self, used: set[int]) -> Iterator[Pick]:
        rows = (row for row in self._shelves.fresh(self._asked.wanted).tolist() if row not in self._seen)
        return (Pick(row, 0.0, "fresh") for row in rows if row not in used)

    def _popular(self, used: set[int]) -> Iterator[Pick]:
        """What is popular with all users, then what is on most boards; what was seen may come again at the end."""
        rows = chain(self._trending_rows, self._on_most_boards())
        again = []
        for row in rows:
            if row in self._seen:
                again.append(row)
            elif row not in used:
                yield Pick(row, 0.0, "popular")
        yield from (Pick(row, 0.0, "popular") for row in again if row not in used)

    def _on_most_boards(self) -> Iterator[int]:
        yield from self._shelves.popular(self._asked.wanted).tolist()

    @cached_property
    def _trending_rows(self) -> list[int]:
        found: list[int] = self._shelves.trending(self._asked.trending, self._asked.wanted).tolist()
        return found
