"""Tables 1, 3 and 4 of the paper on this data, beside what the paper reports, or how to measure them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from offline.evaluation.evaluation_methods import PINSAGE
from offline.evaluation.metrics import verdict
from offline.report import report_figures as figures
from offline.report import report_page as html
from offline.report.report_tables import FEW, PAIR_COLUMNS, gap_cell, measure_cells, spoken_time

Row = Mapping[str, Any]
Table = Mapping[str, Any]

DEFAULT = "default"
OTHER_NAMES = {DEFAULT: PINSAGE, PINSAGE: "pinsage of the paper"}
TABLE_1 = {  # hit-rate at 500 and MRR/100, on 3 billion pins
    "visual": (0.17, 0.23),
    "annotation": (0.14, 0.19),
    "combined": (0.27, 0.37),
    "max-pooling": (0.39, 0.37),
    "mean-pooling": (0.41, 0.51),
    "mean-pooling-xent": (0.29, 0.35),
    "mean-pooling-hard": (0.46, 0.56),
    "pinsage": (0.67, 0.59),
}
CLAIMS = (
    ("The graph helps content", "pinsage", "combined"),
    ("Importance pooling beats mean pooling", "pinsage", "mean-pooling-hard"),
    ("Hard negatives help", "mean-pooling-hard", "mean-pooling"),
    ("Max-margin beats cross-entropy", "mean-pooling", "mean-pooling-xent"),
    ("Mean pooling beats max pooling", "mean-pooling", "max-pooling"),
    ("Both kinds of content beat one: visual", "combined", "visual"),
    ("Both kinds of content beat one: annotations", "combined", "annotation"),
)
CLAIM_KEY = "HR@100"
HOLDS = {
    "above": ("yes", "good"),
    "below": ("no, the other way round", "bad"),
    "even": ("not to be told from chance", ""),
    "": ("too few queries to tell", ""),
}
TABLE_3 = {"512": (590, 390, 63.9), "1024": (870, 220, 53.2), "2048": (1350, 130, 48.8), "4096": (2240, 100, 68.4)}
TABLE_4 = {"10": (0.60, 0.51, 20), "20": (0.63, 0.54, 33), "50": (0.67, 0.59, 78)}
TITLES = {
    1: "Table 1: variants of the method",
    3: "Table 3: batch size",
    4: "Table 4: how many neighbours",
}
WORDS = {
    1: "What each part of the method is worth. The rows that learn are trained on this data, by configuration alone; "
    "pinsage is the paper's, default is this run. All are tested on the same pairs; below each number its 95 % "
    "interval, beside it whether it differs from this run beyond chance. On the right what the paper reports for its "
    "3 billion pins.",
    3: "Time of an iteration, and how many of them until validation was best. In the paper larger batches need fewer "
    "and dearer ones, and 2,048 are done first.",
    4: "How good the embeddings are, and how long their training takes, by T, the number of neighbours of a pin.",
}


def paper_section(number: int, table: Table | None, run: Path, related: Row) -> html.Section:
    """The section of a table; related: the run's own row today, to tell whether the table is of this state of it."""
    key = f"table-{number}"
    if table is None:
        return html.section(key, TITLES[number], WORDS[number], _how(number, run, "Not measured for this run yet:"))
    parts = {1: _table_1, 3: _table_3, 4: _table_4}[number](table)
    return html.section(key, TITLES[number], WORDS[number], *_about(number, table, run, related), *parts)


def _how(number: int, run: Path, words: str) -> str:
    place = shlex.quote(str(run))
    return html.command(words, f"pinsage evaluate {place} --table {number} && pinsage evaluate {place}")


def _about(number: int, table: Table, run: Path, related: Row) -> Iterator[str]:
    """What the reader has to know before the numbers."""
    drawn = f" A sample of {table['sample']:,} pairs." if table["sample"] else ""
    yield html.text(
        "p", f"Each row was trained for at most {table['minutes']:g} minutes; this run had its own limit.{drawn}"
    )
    if _is_stale(table, related):
        yield _how(number, run, "This table is of another state of the run. To measure it again:")
    if cut := [name for name, row in table["rows"].items() if row.get("converged") is False]:
        yield html.text(
            "p", f"Still improving when the time was over, so their rows are likely too low: {', '.join(cut)}."
        )
    if table["skipped"]:
        items = [html.text("li", f"{name}: {why}") for name, why in table["skipped"].items()]
        yield html.folded(f"Rows that are missing, and why: {len(items)}", html.tag("ul", *items))


def trained_rows(table: Table | None, related: Row) -> dict[str, Row]:
    """This run as "pinsage" and the other rows that were trained, to be compared; none where the table is stale."""
    if table is None or _is_stale(table, related):
        return {}
    rows = {OTHER_NAMES.get(name, name): row for name, row in table["rows"].items() if "epochs" in row}
    return {PINSAGE: rows.pop(PINSAGE), **rows} if PINSAGE in rows else {}


def _is_stale(table: Table, related: Row) -> bool:
    """Whether the same pairs now give the run another number than when the table was measured."""
    own = table["rows"].get(DEFAULT, {})
    return own.get("n") == related["n"] and any(own[key] != related[key] for key in PAIR_COLUMNS if key in own)


def _table_1(table: Table) -> list[str]:
    rows = table["rows"]
    heads = ("method", "n", *PAIR_COLUMNS.values(), "training", "paper: HR", "paper: MRR")
    body = []
    for name, row in rows.items():
        paper = [f"{value:.2f}" for value in TABLE_1.get(name, ())] or [FEW, FEW]
        cells = [*_cells(row, rows), html.text("td", _time(row)), *[html.text("td", value) for value in paper]]
        body.append(html.row(name, cells, kind="ours" if name == DEFAULT else ""))
    return [html.table("All variants", heads, body), _claims(table)]


def _claims(table: Table) -> str:
    """Which of the paper's comparisons hold here, by the paired differences of the two rows, and why not."""
    rows, contrasts = table["rows"], table.get("contrasts", {})
    body, reasons = [], []
    for words, better, worse in CLAIMS:
        found = contrasts.get(better, {}).get(worse)
        if found is None:
            continue
        pairs = [f"{rows[name][CLAIM_KEY]:.4f}" for name in (better, worse)]
        cells = [f"{TABLE_1[better][0]:.2f} against {TABLE_1[worse][0]:.2f}", " against ".join(pairs)]
        judged = verdict(found.get(CLAIM_KEY))
        said, kind = HOLDS[judged]
        if judged != "above" and (why := "; ".join(_reasons(table, better, worse))):
            reasons.append(html.text("li", f"{words}: {why}."))
        chip = html.tag("td", html.text("span", said, kind=f"chip {kind}".strip()), kind="names")
        shown = [*[html.text("td", cell) for cell in cells], gap_cell(found.get(CLAIM_KEY)), chip]
        body.append(html.row(words, shown, note=f"{better}, {worse}"))
    if not body:
        return ""
    heads = ("claim", "paper (HR at 500)", f"here ({CLAIM_KEY})", "difference", "does it hold here?")
    why_not = [html.text("p", "Where one does not hold, this may be why:"), html.tag("ul", *reasons)] if reasons else []
    return html.tag("div", html.table("The paper's claims, on this data", heads, body), *why_not, kind="claims")


def _reasons(table: Table, better: str, worse: str) -> Iterator[str]:
    """What in the data or in the training can make a claim fail here."""
    rows, neighbors = table["rows"], table.get("neighbors", {})
    if better == "mean-pooling-hard" and rows[better].get("best_epoch", 2) < 2:
        yield "validation liked the first epoch best, which has no hard negatives yet"
    if worse == "mean-pooling-hard" and neighbors.get("num"):
        yield f"of {neighbors['num']:.0f} neighbours the weights are spread as over {neighbors['equal']:.0f} equal ones"
    for name in (better, worse):
        if rows[name].get("converged") is False:
            yield f"{name} was cut off after {rows[name]['epochs']} epochs"


def _table_3(table: Table) -> list[str]:
    rows = table["rows"]
    keys = ("HR@100", "MRR_scaled100")
    heads = ("batch size", "n", "HR@100", "MRR/100", "ms an iteration", "iterations", "minutes",
             "paper: ms", "paper: iterations", "paper: hours")  # fmt: skip
    body = []
    for name, row in rows.items():
        found = [(row.get("ms_per_iteration"), ",.0f"), (row.get("iterations"), ",.0f"), (row.get("minutes"), ".1f")]
        cells = [FEW if value is None else format(value, style) for value, style in found]
        paper = TABLE_3.get(name)
        cells += [f"{paper[0]:,}", f"{paper[1]},000", f"{paper[2]}"] if paper else [FEW] * 3
        shown = [*_cells(row, rows, keys), *[html.text("td", cell) for cell in cells]]
        body.append(_row(name, shown, f"{row['batch_size']:,}" if "batch_size" in row else ""))
    return [html.table("By batch size", heads, body), _sweep(rows, "batch size", "minutes", "Minutes until best")]


def _table_4(table: Table) -> list[str]:
    rows = table["rows"]
    keys = ("HR@10", "HR@100", "HR@500", "MRR_scaled100")
    heads = ("T", "n", *[PAIR_COLUMNS[key] for key in keys], "training", "paper: HR", "paper: MRR", "paper: hours")
    body = []
    for name, row in rows.items():
        paper = TABLE_4.get(name)
        cells = [f"{paper[0]:.2f}", f"{paper[1]:.2f}", f"{paper[2]}"] if paper else [FEW] * 3
        shown = [*_cells(row, rows, keys), *[html.text("td", cell) for cell in (_time(row), *cells)]]
        body.append(_row(name, shown, f"{row['num_neighbors']}" if "num_neighbors" in row else ""))
    return [html.table("By the number of neighbours", heads, body), _sweep(rows, "T", "seconds", "Seconds of training")]


def _row(name: str, cells: list[str], value: str) -> str:
    """A row of a sweep; this run's says what value it has."""
    return html.row(name, cells, kind="ours", note=value) if name == DEFAULT else html.row(name, cells)


def _cells(row: Row, rows: Mapping[str, Row], keys: tuple[str, ...] = tuple(PAIR_COLUMNS)) -> Iterator[str]:
    best = {key: max((other[key] for other in rows.values() if other["n"]), default=0) for key in keys}
    return measure_cells(row, best)


def _sweep(rows: Mapping[str, Row], label: str, cost: str, cost_title: str) -> str:
    points = {name: row for name, row in rows.items() if name != DEFAULT and row["n"]}
    if len(points) < 2:
        return ""
    parts = []
    for key, measure in (("HR@100", "HR@100"), ("MRR_scaled100", "MRR/100"), (cost, cost_title)):
        if any(key not in row for row in points.values()):
            continue
        values = ", ".join(f"{name}: {row[key]:.4g}" for name, row in points.items())
        title = f"{measure} by {label}"
        parts.append(html.figure(figures.sweep(points, key, label), f"{title}. {values}.", title=title))
    return html.grid(parts, kind="triple")


def _time(row: Row) -> str:
    return spoken_time(row["seconds"]) if row.get("seconds") else FEW
