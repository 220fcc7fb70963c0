"""Imports MovieTweetings (Dooms et al., CrowdRec 2013): films are pins, what one user liked is a board.

ratings.dat is user::movie::rating::timestamp, movies.dat is id::title (year)::genre|genre. One cut in time for all:
what was liked before makes edges; what was liked after makes pairs, and is nowhere in the graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from model.errors import DatasetError
from offline.data.dataset_writer import ImportSummary, staged_folder, summarise, write_tables
from offline.importers.source_text import read_text
from offline.importers.splits import (
    SHARES,
    draw_cold_pins,
    part_users,
    split_cold,
    split_cold_pairs,
    without_repeats,
)

SEED = 20130228
MIN_RATING = 6  # of 10: liked
CUT = 0.7
MIN_HISTORY = 5
LATEST_SECOND = 4_102_444_800


def import_movietweetings(source: Path, out: Path) -> ImportSummary:
    """Write the data set `out` from the folder with ratings.dat and movies.dat.

    Pairs are films that one user liked one after the other, both after the cut; users are split so that pairs fall
    70/10/20. Raises DatasetError naming file and line, UserError where `out` is there already.
    """
    rng = np.random.default_rng(SEED)
    pins = _films(source / "movies.dat")
    liked = _liked(source / "ratings.dat", pins)
    cut = int(liked["timestamp"].quantile(CUT, interpolation="lower") or 0)
    cold = draw_cold_pins(liked, pins, rng)
    earlier = liked.filter(pl.col("timestamp") <= cut)
    edges, cold_edges = split_cold(earlier, cold)
    later = liked.filter(pl.col("timestamp") > cut)
    parts = part_users(later.group_by("board_id", maintain_order=True).len(), rng)
    tables = {
        "pins": pins,
        "boards": earlier.select(pl.col("board_id").unique(maintain_order=True)),
        "edges": edges,
        **_pairs(later, parts, cold),
        "users_test": _users_test(edges, split_cold(later, cold)[0], parts),
        "coldstart_pins": cold,
        "coldstart_edges": cold_edges,
    }
    with staged_folder(out) as folder:
        write_tables(folder, tables)
    return summarise(tables)


def _pairs(later: pl.DataFrame, parts: pl.DataFrame, cold: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Consecutive likes of one user after the cut, by the part of the user; the cold ones apart."""
    following = pl.col("pin_id").shift(-1).over("board_id")
    pairs = later.select("board_id", query_pin_id="pin_id", related_pin_id=following).drop_nulls("related_pin_id")
    warm, turned = split_cold_pairs(pairs, cold)
    warm = warm.join(parts, on="board_id", how="left", maintain_order="left")
    ends = ["query_pin_id", "related_pin_id"]
    splits = {f"pairs_{part}": warm.filter(pl.col("part") == part).select(ends) for part in SHARES}
    return without_repeats(splits) | {"pairs_coldstart": turned}


def _users_test(edges: pl.DataFrame, later: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    """Users of the test part with enough films before the cut and one after: what they liked before, and after."""
    users = parts.filter(pl.col("part") == "test").select("board_id")
    history = edges.group_by("board_id", maintain_order=True).agg(history="pin_id")
    held_out = later.group_by("board_id", maintain_order=True).agg(held_out="pin_id")
    found = history.join(users, on="board_id", how="semi", maintain_order="left")
    found = found.filter(pl.col("history").list.len() >= MIN_HISTORY)
    return found.join(held_out, on="board_id", maintain_order="left").rename({"board_id": "user_id"})


def _films(path: Path) -> pl.DataFrame:
    fields = _fields(path, ["movie", "title", "genres"])
    _check(fields, pl.col("movie").str.contains(r"^\d{1,12}$"), "movie", "a number", path)
    _check(fields, pl.col("movie").is_first_distinct(), "movie", "an id that no earlier line has", path)
    genres = pl.col("genres").str.split("|").list.eval(pl.element().filter(pl.element() != ""))
    return fields.select(_pin_id(), title=pl.col("title").str.strip_chars(), annotations=genres)


def _liked(path: Path, pins: pl.DataFrame) -> pl.DataFrame:
    """pin_id, board_id, timestamp of every first like, by user and time; ties in the order of the file."""
    fields = _fields(path, ["user", "movie", "rating", "timestamp"])
    for column in ("user", "rating", "timestamp"):
        _check(fields, pl.col(column).str.contains(r"^\d{1,12}$"), column, "a whole number", path)
    _check(fields, pl.col("timestamp").cast(pl.Int64) <= LATEST_SECOND, "timestamp", "seconds since 1970", path)
    known = _pin_id().is_in(pins["pin_id"].implode())
    _check(fields, known, "movie", "a film of movies.dat", path)
    numbers = fields.select(
        _pin_id(),
        board_id=pl.concat_str(pl.lit("u"), "user"),
        user=pl.col("user").cast(pl.Int64),
        rating=pl.col("rating").cast(pl.Int64),
        timestamp=pl.col("timestamp").cast(pl.Int64),
    )
    ordered = numbers.sort("user", "timestamp", maintain_order=True)
    first = ordered.unique(["board_id", "pin_id"], keep="first", maintain_order=True)
    liked = first.filter(pl.col("rating") >= MIN_RATING).select("pin_id", "board_id", "timestamp")
    if liked.is_empty():
        raise DatasetError(f"{path.name}: no rating of {MIN_RATING} or more")
    return liked


def _pin_id() -> pl.Expr:
    return pl.concat_str(pl.lit("tt"), pl.col("movie").str.zfill(7)).alias("pin_id")


def _fields(path: Path, names: list[str]) -> pl.DataFrame:
    """Lines cut at `::`, with their line number; blank lines are passed over."""
    lines = pl.DataFrame({"text": read_text(path).split("\n")}).with_row_index("line", 1)
    lines = lines.with_columns(pl.col("text").str.strip_chars_end("\r")).filter(pl.col("text") != "")
    parts = lines.with_columns(parts=pl.col("text").str.split("::"))
    _check(parts, pl.col("parts").list.len() == len(names), "text", f"{len(names)} fields by ::", path)
    return parts.select("line", *(pl.col("parts").list.get(n).alias(name) for n, name in enumerate(names)))


def _check(lines: pl.DataFrame, holds: pl.Expr, column: str, wanted: str, path: Path) -> None:
    bad = lines.filter(~holds).head(1)
    for line, found in bad.select("line", column).iter_rows():
        raise DatasetError(f'{path.name}, line {line:,}: wanted {wanted}, found "{found[:60]}"')
