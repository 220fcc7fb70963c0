"""Imports citeulike-a (Wang, Chen & Li, IJCAI 2013): libraries are boards, articles pins, citations the pairs.

users.dat, item-tag.dat and citations.dat hold one line per user or article: a count, then that many numbers from 0.
titles.txt (a title a line) and raw-data.csv (titles and abstracts, numbers from 1) are used where they are there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from model.errors import DatasetError
from offline.data.dataset_writer import ImportSummary, staged_folder, summarise, write_tables
from offline.importers.source_text import read_text
from offline.importers.splits import ENDS, draw_cold_pins, hold_out, split_cold, split_cold_pairs, split_shuffled

SEED = 20130803
MIN_TAGGED = 5  # a tag on fewer articles can point at one user; the paper drops it too
CSV_NUMBER = ("doc.id", "id")
CSV_TITLE = ("raw.title", "title")
CSV_ABSTRACT = ("raw.abstract", "abstract")


def import_citeulike(source: Path, out: Path) -> ImportSummary:
    """Write the data set `out` from the publisher's folder; its citations become pairs, 70/10/20.

    5 % of the articles are cold, and a fifth of the users with ten articles or more lose a fifth of theirs to the
    test. Raises DatasetError naming file and line, UserError where `out` is there already.
    """
    rng = np.random.default_rng(SEED)
    pins = _articles(source)
    libraries = _lists(source / "users.dat", pins.height)
    boards = pl.DataFrame({"board_id": [f"u{user}" for user in range(len(libraries))]})
    engagements = _joined(libraries, "u", "board_id")
    cold = draw_cold_pins(engagements, pins, rng)
    warm_edges, cold_edges = split_cold(engagements, cold)
    edges, users_test = hold_out(warm_edges, rng)
    tables = {
        "pins": pins,
        "boards": boards,
        "edges": edges,
        "users_test": users_test,
        "coldstart_pins": cold,
        "coldstart_edges": cold_edges,
    }
    if (source / "citations.dat").exists():
        warm_pairs, cold_pairs = split_cold_pairs(_links(source, pins.height, rng), cold)
        tables |= split_shuffled(warm_pairs, rng) | {"pairs_coldstart": cold_pairs}
    with staged_folder(out) as folder:
        write_tables(folder, tables)
    return summarise(tables)


def _articles(source: Path) -> pl.DataFrame:
    tags = _tags(source)
    abstracts = _abstracts(source / "raw-data.csv") if (source / "raw-data.csv").exists() else {}
    titles = read_text(source / "titles.txt").splitlines() if (source / "titles.txt").exists() else []
    if titles and len(titles) != len(tags):
        raise DatasetError(f"titles.txt: wanted {len(tags):,} lines as in item-tag.dat, found {len(titles):,}")
    if abstracts and max(abstracts) >= len(tags):
        raise DatasetError(f"raw-data.csv: article {max(abstracts) + 1:,} of only {len(tags):,} in item-tag.dat")
    articles = range(len(tags))
    return pl.DataFrame(
        {
            "pin_id": [f"a{article}" for article in articles],
            "title": [_title(article, titles, abstracts) for article in articles],
            "annotations": tags,
            "description": [abstracts.get(article, (None, None))[1] for article in articles],
        },
        schema_overrides={"title": pl.String, "annotations": pl.List(pl.String), "description": pl.String},
    )


def _title(article: int, titles: list[str], abstracts: dict[int, tuple[str | None, str | None]]) -> str | None:
    title = titles[article].strip() if titles else None
    return title or abstracts.get(article, (None, None))[0]


def _tags(source: Path) -> list[list[str]]:
    """Tags of each article, of those on at least MIN_TAGGED articles."""
    names = [line.strip() for line in read_text(source / "tags.dat").splitlines()]
    lists = [list(dict.fromkeys(tags)) for tags in _lists(source / "item-tag.dat", len(names))]
    num_articles = np.bincount(np.concatenate([np.array(tags, dtype=np.int64) for tags in lists]), minlength=len(names))
    return [[names[tag] for tag in tags if num_articles[tag] >= MIN_TAGGED] for tags in lists]


def _lists(path: Path, limit: int) -> list[list[int]]:
    """Numbers of each line of a .dat file, all from 0 to below `limit`; the first of a line counts the others."""
    lists = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            count, *items = map(int, line.split())
        except ValueError:
            raise DatasetError(f'{path.name}, line {number:,}: wanted whole numbers, found "{line[:60]}"') from None
        if count != len(items):
            raise DatasetError(f"{path.name}, line {number:,}: wanted {count} numbers, found {len(items)}")
        strange = [item for item in items if not 0 <= item < limit]
        if strange:
            raise DatasetError(f"{path.name}, line {number:,}: {strange[0]} is not a number from 0 to {limit - 1:,}")
        lists.append(items)
    return lists


def _joined(lists: list[list[int]], prefix: str, column: str) -> pl.DataFrame:
    """One row per entry of `lists`: the article and whose list it is, each once."""
    owners = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    frame = pl.DataFrame({"pin": [item for items in lists for item in items], column: owners})
    ids = pl.concat_str(pl.lit("a"), "pin").alias("pin_id"), pl.concat_str(pl.lit(prefix), column).alias(column)
    return frame.unique(maintain_order=True).select(*ids)


def _links(source: Path, num_articles: int, rng: np.random.Generator) -> pl.DataFrame:
    """Citations as pairs, each undirected link once, its direction drawn."""
    lists = _lists(source / "citations.dat", num_articles)
    if len(lists) != num_articles:
        raise DatasetError(f"citations.dat: wanted {num_articles:,} lines as in item-tag.dat, found {len(lists):,}")
    links = {(min(a, b), max(a, b)) for a, items in enumerate(lists) for b in items if a != b}
    ends = np.array(sorted(links), dtype=np.int64).reshape(-1, 2)
    turned = rng.random(len(ends)) < 0.5
    ends[turned] = ends[turned, ::-1]
    numbers = pl.DataFrame(ends, schema=list(ENDS), orient="row")
    return numbers.select(pl.concat_str(pl.lit("a"), end).alias(end) for end in ENDS)


def _abstracts(path: Path) -> dict[int, tuple[str | None, str | None]]:
    """Article (from 0) -> its title and abstract in raw-data.csv."""
    lines = csv.reader(io.StringIO(read_text(path), newline=""))
    header = [name.strip().lower() for name in next(lines, [])]
    number, title, abstract = (_position(header, names) for names in (CSV_NUMBER, CSV_TITLE, CSV_ABSTRACT))
    return dict(_abstract_rows(lines, header, number, title, abstract, path.name))


def _position(header: list[str], names: tuple[str, ...]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DatasetError(f"raw-data.csv: wanted a column {' or '.join(names)}, found {', '.join(header) or 'no header'}")


def _abstract_rows(
    lines: Iterator[list[str]], header: list[str], number: int, title: int, abstract: int, file: str
) -> Iterator[tuple[int, tuple[str | None, str | None]]]:
    for row, cells in enumerate(lines, 1):
        if len(cells) != len(header):
            raise DatasetError(f"{file}, row {row:,}: wanted {len(header)} cells, found {len(cells)}")
        if not cells[number].strip().isdecimal() or int(cells[number]) < 1:
            raise DatasetError(f'{file}, row {row:,}: wanted a number from 1, found "{cells[number][:60]}"')
        yield int(cells[number]) - 1, (cells[title].strip() or None, cells[abstract].strip() or None)
