"""Category and language of pins as small numbers, so that a filter is a comparison of arrays.

The column of the release is turned into codes at the first filter that needs it, and the rows of a value are kept for
the next ones. Values that only live pins have get codes of their own.

Shape letters: P pins of the release, N rows asked for, S slots of the delta.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

NO_VALUE = -1
MAX_KEPT_FILTERS = 64


@dataclass(frozen=True)
class Filter:
    """What pins of a list must have; None lets everything through."""

    category: str | None = None
    language: str | None = None

    def __bool__(self) -> bool:
        return self.category is not None or self.language is not None


class Facet:
    """One column: the codes of the release's rows, and of values that came later."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column
        self._codes: dict[str, int] = {}
        self._lock = threading.Lock()

    def code(self, value: str | None) -> int:
        """The code of a value, a new one where it is new; NO_VALUE for None."""
        if value is None:
            return NO_VALUE
        with self._lock:
            return self._codes.setdefault(value, len(self._codes))

    def known_code(self, value: str) -> int | None:
        """The code of a value, None where no pin has it."""
        _ = self.codes_P
        return self._codes.get(value)

    @cached_property
    def codes_P(self) -> npt.NDArray[np.int32]:
        """The code of each row of the release."""
        codes_P = np.full(len(self._column), NO_VALUE, np.int32)
        start = 0
        for chunk in self._column.dictionary_encode().chunks:
            # One code more, at the end: where a row has no value its index is -1, which NumPy takes for the last.
            codes = np.array([*map(self.code, chunk.dictionary.to_pylist()), NO_VALUE], np.int32)
            codes_P[start : start + len(chunk)] = codes[pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False)]
            start += len(chunk)
        return codes_P


class Facets:
    """Both columns, and which rows a filter lets through."""

    def __init__(self, pins: pa.Table) -> None:
        self._category = Facet(pins["category"])
        self._language = Facet(pins["language"])
        self._rows: OrderedDict[Filter, Ints] = OrderedDict()
        self._lock = threading.Lock()

    def codes(self, category: str | None, language: str | None) -> tuple[int, int]:
        """The codes of a pin's values."""
        return self._category.code(category), self._language.code(language)

    def rows(self, wanted: Filter) -> Ints:
        """The release's rows that a filter lets through, ascending; kept for the next time."""
        with self._lock:
            if wanted in self._rows:
                self._rows.move_to_end(wanted)
                return self._rows[wanted]
        everywhere = [self._match(facet, value) for facet, value in self._pairs(wanted)]
        rows = np.flatnonzero(np.logical_and.reduce(everywhere)).astype(np.int32)
        with self._lock:
            self._rows[wanted] = rows
            while len(self._rows) > MAX_KEPT_FILTERS:
                self._rows.popitem(last=False)
        return rows

    def passes(self, wanted: Filter, rows_N: Ints) -> Bools:
        """Which of these rows of the release a filter lets through."""
        passed_N = np.ones(rows_N.shape, bool)
        for facet, value in self._pairs(wanted):
            code = facet.known_code(value)
            passed_N &= False if code is None else facet.codes_P[rows_N] == code
        return passed_N

    def passes_live(self, wanted: Filter, codes_S2: Ints) -> Bools:
        """Which slots, in an array of any shape, a filter lets through; columns: category, language."""
        passed_S = np.ones(codes_S2.shape[:-1], bool)
        for column, value in enumerate((wanted.category, wanted.language)):
            if value is not None:
                code = (self._category, self._language)[column].known_code(value)
                passed_S &= False if code is None else codes_S2[..., column] == code
        return passed_S

    def _match(self, facet: Facet, value: str) -> Bools:
        code = facet.known_code(value)
        return np.zeros(len(facet.codes_P), bool) if code is None else facet.codes_P == code

    def _pairs(self, wanted: Filter) -> list[tuple[Facet, str]]:
        given = ((self._category, wanted.category), (self._language, wanted.language))
        return [(facet, value) for facet, value in given if value is not None]
