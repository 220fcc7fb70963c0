"""Faults of a data set: what is wrong, and where. The reader stops at the first, `validate` collects them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from model.errors import DatasetError

NUM_SHOWN = 100
ROW = "row#"  # column that carries the row number through every batch; no user column is called so
MESSAGE = "message"


@dataclass(frozen=True)
class Fault:
    """One thing wrong in one file. `row` counts data rows from 1 (a CSV header is not one); None = the whole file."""

    file: str
    row: int | None
    column: str | None
    message: str

    def __str__(self) -> str:
        row = f", row {self.row:,}" if self.row is not None else ""
        column = f", column {self.column}" if self.column is not None else ""
        return f"{self.file}{row}{column}: {self.message}"


@dataclass
class FaultLog:
    """Collects faults: of each kind the first 100, then only how many more there are."""

    _shown: dict[tuple[str, str | None, str], list[Fault]] = field(default_factory=dict)
    _num_more: dict[tuple[str, str | None, str], int] = field(default_factory=dict)

    def add(self, fault: Fault, kind: str = "") -> None:
        """Record one fault; faults of one file, column and `kind` are counted together."""
        key = (fault.file, fault.column, kind)
        shown = self._shown.setdefault(key, [])
        if len(shown) < NUM_SHOWN:
            shown.append(fault)
        else:
            self._num_more[key] = self._num_more.get(key, 0) + 1

    def add_rows(self, file: str, column: str | None, kind: str, bad: pl.DataFrame) -> None:
        """Record a fault for each row of `bad`, which has the columns ROW and MESSAGE."""
        if bad.is_empty():
            return
        for row, message in bad.select(ROW, MESSAGE).head(NUM_SHOWN).iter_rows():
            self.add(Fault(file, row, column, message), kind)
        key = (file, column, kind)
        num_beyond = max(bad.height - NUM_SHOWN, 0)
        if num_beyond:
            self._num_more[key] = self._num_more.get(key, 0) + num_beyond

    def has(self, file: str) -> bool:
        """Whether any fault of this file was recorded."""
        return any(key[0] == file for key in self._shown)

    def faults(self) -> list[Fault]:
        """All faults, by kind in the order of first sight, each kind closed by a count of those not shown."""
        result: list[Fault] = []
        for key, shown in self._shown.items():
            result += shown
            num_more = self._num_more.get(key, 0)
            if num_more:
                result.append(Fault(key[0], None, key[1], f"and {num_more:,} more faults like this"))
        return result


class FirstFault(FaultLog):
    """Raises DatasetError at the first fault: what reading does, as opposed to validating."""

    def add(self, fault: Fault, kind: str = "") -> None:
        raise DatasetError(str(fault))


def text_of(value: object, limit: int = 60) -> str:
    """The value as shown in a message: cut when long, and quoted when text."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return f'"{cut}"' if isinstance(value, str) else cut


def quoted(column: str, limit: int = 60) -> pl.Expr:
    """The same as `text_of` for a whole column of strings."""
    return pl.concat_str(pl.lit('"'), pl.col(column).str.slice(0, limit), pl.lit('"'))


def names(columns: Iterable[str]) -> str:
    """Column names as shown in a message."""
    return ", ".join(columns) or "none"
