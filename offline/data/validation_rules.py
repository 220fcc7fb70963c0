"""Rules that rows must keep, each over a whole batch at once; what breaks one goes into the log with its row."""

from __future__ import annotations

import numpy as np
import polars as pl

from offline.data.faults import MESSAGE, ROW, Fault, FaultLog, quoted

ID_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$"
LATEST_SECOND = 4_102_444_800  # the year 2100: later ones are nearly always milliseconds


def check_ids(batch: pl.DataFrame, column: str, file: str, log: FaultLog) -> None:
    """Ids must be there and match ID_PATTERN."""
    missing = batch.filter(pl.col(column).is_null() | (pl.col(column) == ""))
    log.add_rows(file, column, "missing", missing.with_columns(pl.lit("missing id").alias(MESSAGE)))
    odd = batch.filter((pl.col(column) != "") & ~pl.col(column).str.contains(ID_PATTERN))
    rule = pl.lit(" is no id: wanted 1 to 128 of A-Z a-z 0-9 _ . : -")
    log.add_rows(file, column, "pattern", odd.with_columns(pl.concat_str(quoted(column), rule).alias(MESSAGE)))


def check_unique(table: pl.DataFrame, column: str, file: str, log: FaultLog) -> None:
    """An id must be there once; the fault is at the second and later rows and names the first."""
    several = table.filter(pl.col(column).is_not_null() & pl.col(column).is_duplicated())
    several = several.with_columns(first=pl.col(ROW).min().over(column)).filter(pl.col(ROW) > pl.col("first"))
    message = pl.concat_str(quoted(column), pl.lit(" is there already, in row "), pl.col("first").cast(pl.String))
    log.add_rows(file, column, "twice", several.with_columns(message.alias(MESSAGE)))


def check_known(batch: pl.DataFrame, column: str, known: pl.DataFrame | None, file: str, log: FaultLog) -> None:
    """Pin ids must be in the pins table (`known`, a column pin_id); None = unknown, so nothing is checked."""
    if known is None:
        return
    strange = batch.filter((pl.col(column) != "").fill_null(value=False))
    strange = strange.join(known, left_on=column, right_on="pin_id", how="anti", maintain_order="left")
    message = pl.concat_str(quoted(column), pl.lit(" is not in the pins table"))
    log.add_rows(file, column, "unknown", strange.with_columns(message.alias(MESSAGE)))


def check_members(
    batch: pl.DataFrame, column: str, members: pl.DataFrame, wrong: str, file: str, log: FaultLog, *, inside: bool
) -> None:
    """Report `wrong` for the rows whose id is among `members` (column pin_id) when `inside`, else for those not."""
    found = batch.filter((pl.col(column) != "").fill_null(value=False)).join(
        members, left_on=column, right_on="pin_id", how="semi" if inside else "anti", maintain_order="left"
    )
    message = pl.concat_str(quoted(column), pl.lit(f" {wrong}"))
    log.add_rows(file, column, wrong, found.with_columns(message.alias(MESSAGE)))


def check_timestamps(batch: pl.DataFrame, column: str, file: str, log: FaultLog, *, required: bool = False) -> None:
    """Times are seconds since 1970: not negative, not beyond 2100, and there where they are required."""
    value = pl.col(column)
    shown = value.cast(pl.String)
    negative = batch.filter(value < 0)
    message = pl.concat_str(pl.lit("negative time "), shown)
    log.add_rows(file, column, "negative", negative.with_columns(message.alias(MESSAGE)))
    late = batch.filter(value > LATEST_SECOND)
    message = pl.concat_str(pl.lit("time "), shown, pl.lit(" is after 2100: wanted seconds, are these milliseconds?"))
    log.add_rows(file, column, "late", late.with_columns(message.alias(MESSAGE)))
    if required:
        missing = batch.filter(value.is_null())
        log.add_rows(file, column, "missing", missing.with_columns(pl.lit("missing time").alias(MESSAGE)))


def check_texts(batch: pl.DataFrame, column: str, file: str, log: FaultLog) -> None:
    """Lists of words hold no null."""
    holed = batch.filter(pl.col(column).list.eval(pl.element().is_null()).list.any().fill_null(value=False))
    log.add_rows(file, column, "null", holed.with_columns(pl.lit("a null inside the list").alias(MESSAGE)))


def check_vectors(batch: pl.DataFrame, column: str, dim: int | None, file: str, log: FaultLog) -> int | None:
    """Vectors are finite and all of one length, that of the first (`dim` from earlier batches); returns it."""
    given = batch.filter(pl.col(column).is_not_null()).with_columns(length=pl.col(column).list.len())
    if given.is_empty():
        return dim
    dim = int(given["length"][0]) if dim is None else dim
    found = pl.col("length").cast(pl.String)
    message = pl.concat_str(pl.lit(f"wanted {dim} numbers as in the first row, found "), found)
    ragged = given.filter((pl.col("length") != dim) | (pl.col("length") == 0))
    log.add_rows(file, column, "ragged", ragged.with_columns(message.alias(MESSAGE)))
    finite = pl.element().is_finite().fill_null(value=False)
    bad = given.filter(~pl.col(column).list.eval(finite).list.all())
    message = pl.lit("a number is missing, NaN or infinite")
    log.add_rows(file, column, "finite", bad.with_columns(message.alias(MESSAGE)))
    return dim


def check_matrix(vectors: np.ndarray, file: str, log: FaultLog, *, chunk: int = 65_536) -> None:
    """All numbers of a matrix (rows, V) are finite; the fault names the first bad column of a row, from 0."""
    for start in range(0, len(vectors), chunk):
        bad = ~np.isfinite(vectors[start : start + chunk])
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            column = int(np.argmax(bad[row]))
            found = vectors[start + row, column]
            log.add(Fault(file, start + row + 1, str(column), f"wanted a finite number, found {found}"), kind="finite")


def check_pairs(batch: pl.DataFrame, file: str, log: FaultLog) -> None:
    """A pair joins two different pins."""
    same = batch.filter(pl.col("query_pin_id") == pl.col("related_pin_id"))
    message = pl.concat_str(quoted("related_pin_id"), pl.lit(" is paired with itself"))
    log.add_rows(file, "related_pin_id", "same", same.with_columns(message.alias(MESSAGE)))


def check_leak(pairs: pl.DataFrame, earlier: pl.DataFrame, earlier_file: str, file: str, log: FaultLog) -> None:
    """No pair of a split is, either way round, in an earlier split."""
    ends = ["query_pin_id", "related_pin_id"]
    turned = earlier.select(query_pin_id="related_pin_id", related_pin_id="query_pin_id")
    both = pl.concat([earlier.select(ends), turned])
    leaked = pairs.join(both, on=ends, how="semi", maintain_order="left")
    message = pl.concat_str(*ends, separator=" and ").alias("pair")
    leaked = leaked.with_columns(message).with_columns(
        pl.concat_str(quoted("pair"), pl.lit(f": the pair is also in {earlier_file}")).alias(MESSAGE)
    )
    log.add_rows(file, "related_pin_id", f"leak {earlier_file}", leaked)
