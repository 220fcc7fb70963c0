"""The metrics of a run as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from offline.evaluation.metrics import verdict

Row = Mapping[str, Any]

PAIR_COLUMNS = ("HR@10", "HR@100", "HR@500", "MRR", "MRR_scaled100")
FEED_COLUMNS = ("Recall@20", "NDCG@20")
SIMILARITY_COLUMNS = ("mean", "std", "kurtosis", "share_above_0.9")
TRAINING_COLUMNS = ("epochs", "best_epoch", "converged", "seconds", "ms_per_iteration", "iterations", "minutes")
TITLES = {"MRR_scaled100": "MRR/100", "share_above_0.9": "share > 0.9"}
MARKS = {"above": "▲", "below": "▼", "even": "≈", "": " "}
LEGEND = (
    "▲ above, ▼ below pinsage beyond chance; ≈ no difference that can be believed "
    "(95 % paired bootstrap over queries); no mark: too few queries"
)


def print_tables(metrics: Mapping[str, Any], console: Console) -> None:
    """Print what `evaluate` returned."""
    candidates = f"{metrics['candidates']:,} candidates"
    drawn = f", sample of {metrics['sample']:,}" if metrics["sample"] else ""
    print_rows(f"{metrics['dataset']}: related pins ({candidates}{drawn})", metrics["related"], PAIR_COLUMNS, console)
    for test, rows in metrics["coldstart"].items():
        print_rows(f"cold pins, {test.replace('_', ' ')}", rows, PAIR_COLUMNS, console)
    if metrics["homefeed"]:
        print_rows("home feed", metrics["homefeed"], FEED_COLUMNS, console)
    if any(row.get("differences") for row in metrics["related"].values()):
        console.print(LEGEND, style="dim")
    print_skipped(metrics["skipped"], console)
    buckets = {
        f"{bucket} boards": rows["pinsage"] for bucket, rows in metrics["by_degree"].items() if rows["pinsage"]["n"]
    }
    if buckets:
        print_rows("pinsage, by degree of the related pin", buckets, PAIR_COLUMNS, console)
    print_rows("cosine of random pins", metrics["similarity"], SIMILARITY_COLUMNS, console)


def print_skipped(skipped: Mapping[str, str], console: Console) -> None:
    """Say which methods have no row, and why."""
    for name, reason in skipped.items():
        console.print(f"no row {name}: {reason}", style="dim", markup=False, highlight=False)


def print_rows(title: str, rows: Mapping[str, Row], columns: Sequence[str], console: Console) -> None:
    """Print a table: a row per method, the best of each column marked, and whether it differs from PinSage."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("n", *columns):
        table.add_column(TITLES.get(column, column), justify="right")
    best = {column: max((row.get(column) or 0 for row in rows.values()), default=0) for column in columns}
    compared = any("differences" in row for row in rows.values())
    marks_best = columns is not SIMILARITY_COLUMNS and len(rows) > 1
    for name, row in rows.items():
        cells = [
            _cell(row.get(column), marks_best and row.get(column) == best[column]) + _mark(row, column, compared)
            for column in columns
        ]
        table.add_row(name, f"{row['n']:,}", *cells)
    console.print(table)


def print_paper_table(table: Mapping[str, Any], console: Console) -> None:
    """Print a table of the paper (see table_files.py): values, differences to the run, how training went."""
    rows = table["rows"]
    drawn = f", sample of {table['sample']:,}" if table["sample"] else ""
    title = f"{table['dataset']}: table {table['table']} ({table['candidates']:,} candidates{drawn})"
    _print_stacked(f"{title}, with 95 % intervals", rows, PAIR_COLUMNS, _value_lines, console)
    compared = {name: row for name, row in rows.items() if row["differences"]}
    if compared:
        _print_stacked("difference to the run (default), paired", compared, PAIR_COLUMNS, _difference_lines, console)
    trained = {name: row for name, row in rows.items() if "epochs" in row}
    limit = f"training, {table['minutes']:g} minutes at most"
    _print_stacked(limit, trained, TRAINING_COLUMNS, lambda row, column: [_number(row.get(column))], console)
    print_skipped(table["skipped"], console)


def _print_stacked(
    title: str,
    rows: Mapping[str, Row],
    columns: Sequence[str],
    lines: Callable[[Row, str], list[str]],
    console: Console,
) -> None:
    """A table whose cells have several lines."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(TITLES.get(column, column.replace("_", " ")), justify="right")
    for name, row in rows.items():
        table.add_row(name, *("\n".join(lines(row, column)) for column in columns))
    console.print(table)


def _value_lines(row: Row, column: str) -> list[str]:
    low, high = row["intervals"][column]
    return [f"{row[column]:.4f}", f"[dim]{low:.3f} … {high:.3f}[/]"]


def _difference_lines(row: Row, column: str) -> list[str]:
    gap = row["differences"][column]
    return [f"{gap['mean']:+.4f} {MARKS[verdict(gap)]}", f"[dim]{gap['low']:+.3f} … {gap['high']:+.3f}[/]"]


def _number(value: float | bool | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _cell(value: float | None, is_best: bool) -> str:
    if value is None:
        return "–"
    return f"[bold green]{value:.4f}[/]" if is_best else f"{value:.4f}"


def _mark(row: Row, column: str, compared: bool) -> str:
    return f" {MARKS[verdict(row.get('differences', {}).get(column))]}" if compared else ""
