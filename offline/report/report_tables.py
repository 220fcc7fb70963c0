"""The tables of the report: numbers with their intervals, and what a difference to PinSage allows to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from offline.evaluation.evaluation_methods import PINSAGE
from offline.evaluation.metrics import verdict
from offline.report.report_page import row, table, tag, text

Row = Mapping[str, Any]
Rows = Mapping[str, Row]

PAIR_COLUMNS = {"HR@10": "HR@10", "HR@100": "HR@100", "HR@500": "HR@500", "MRR": "MRR", "MRR_scaled100": "MRR/100"}
FEED_COLUMNS = {"Recall@20": "Recall@20", "NDCG@20": "NDCG@20"}
COLD_TITLES = {"with_boards": "Cold pins, on the boards people put them on", "without_boards": "Cold pins, by content"}
MARKS = {
    "above": ("▲", "higher than this run, beyond chance"),
    "below": ("▼", "lower than this run, beyond chance"),
    "even": ("≈", "no difference to this run that can be believed"),
}
VERDICT_HEADS = ("test", "pinsage", "ahead of", "not to be told from", "behind")
FEW = "–"


def measures_table(caption: str, rows: Rows, columns: Mapping[str, str]) -> str:
    """A row per method; columns: key of the row -> heading. Below each number its confidence interval."""
    best = {key: max((found[key] for found in rows.values() if found["n"]), default=0) for key in columns}
    body = [
        row(name, measure_cells(found, best), kind="ours" if name == PINSAGE else "") for name, found in rows.items()
    ]
    return table(caption, ("method", "n", *columns.values()), body)


def measure_cells(found: Row, best: Mapping[str, float]) -> Iterator[str]:
    """n, and each measure of `best` with its interval and its mark, as td elements."""
    yield text("td", f"{found['n']:,}")
    for key, highest in best.items():
        if not found["n"]:
            yield text("td", FEW)
            continue
        low, high = found["intervals"][key]
        interval = text("small", f"{low:.3f} – {high:.3f}")
        marked = mark(verdict(found.get("differences", {}).get(key)))
        yield tag("td", f"{found[key]:.4f}", marked, interval, kind="best" if found[key] == highest > 0 else "")


def mark(said: str) -> str:
    """A sign for what a difference says, with words for those who cannot see it."""
    if said not in MARKS:
        return '<span class="mark"></span>'
    sign, words = MARKS[said]
    return f'<span class="mark {said}" role="img" aria-label="{words}" title="{words}">{sign}</span>'


def differences_table(caption: str, rows: Rows, columns: Mapping[str, str]) -> str:
    """Each method less PinSage, with the interval of the difference."""
    body = [
        row(name, (gap_cell(found["differences"][key], marked=True) for key in columns))
        for name, found in rows.items()
        if found.get("differences")
    ]
    return table(caption, ("method", *columns.values()), body)


def gap_cell(gap: Row | None, *, marked: bool = False) -> str:
    """A difference with its interval, and what it allows to say where that is wanted."""
    if not gap:
        return text("td", FEW)
    interval = text("small", f"{gap['low']:+.4f} – {gap['high']:+.4f}")
    return tag("td", f"{gap['mean']:+.4f}", mark(verdict(gap)) if marked else "", interval)


def buckets_table(caption: str, buckets: Mapping[str, Rows], key: str) -> str:
    """A measure by degree: a row per method, a column per bucket that has pairs."""
    shown = {bucket: rows for bucket, rows in buckets.items() if rows[PINSAGE]["n"]}
    heads = [f"{bucket} boards, {rows[PINSAGE]['n']:,} pairs" for bucket, rows in shown.items()]
    names = list(next(iter(shown.values()))) if shown else []
    body = [
        row(name, (_bucket_cell(rows[name], key) for rows in shown.values()), kind="ours" if name == PINSAGE else "")
        for name in names
    ]
    return table(caption, ("method", *heads), body)


def _bucket_cell(found: Row, key: str) -> str:
    if not found["n"]:
        return text("td", FEW)
    low, high = found["intervals"][key]
    marked = mark(verdict(found.get("differences", {}).get(key)))
    return tag("td", f"{found[key]:.4f}", marked, text("small", f"{low:.3f} – {high:.3f}"))


def verdicts_table(metrics: Mapping[str, Any], trained: Rows) -> str:
    """Test by test and measure by measure: which methods PinSage is ahead of, behind, or not to be told from.

    trained: PinSage and variants of it on the related pins; none where they were not measured.
    """
    tests: dict[str, tuple[Rows, tuple[str, ...]]] = {
        "Related pins": (metrics["related"], ("HR@10", "HR@100", "MRR_scaled100"))
    }
    if trained:
        tests["Related pins, trained variants"] = (trained, ("HR@10", "HR@100"))
    tests |= {COLD_TITLES[test]: (rows, ("HR@10", "HR@100")) for test, rows in metrics["coldstart"].items()}
    if metrics["homefeed"]:
        tests["Home feed"] = (metrics["homefeed"], ("Recall@20",))
    body = [
        row(title, _verdict_cells(rows, key), note=(PAIR_COLUMNS | FEED_COLUMNS)[key])
        for title, (rows, keys) in tests.items()
        if rows[PINSAGE]["n"]
        for key in keys
    ]
    return tag("div", table("In short", VERDICT_HEADS, body), kind="verdicts") if body else ""


def _verdict_cells(rows: Rows, key: str) -> Iterator[str]:
    low, high = rows[PINSAGE]["intervals"][key]
    yield tag("td", f"{rows[PINSAGE][key]:.4f}", text("small", f"{low:.3f} – {high:.3f}"))
    said = {name: verdict(found.get("differences", {}).get(key)) for name, found in rows.items() if name != PINSAGE}
    for place, (words, kind) in enumerate(((("below",), "good"), (("even", ""), ""), (("above",), "bad"))):
        chips = [text("span", name, kind=f"chip {kind}".strip()) for name, word in said.items() if word in words]
        yield tag("td", *chips, kind="names", **{"data-heading": VERDICT_HEADS[place + 2]})


def time_table(seconds: Mapping[str, float]) -> str:
    """Stages and how long they took."""
    longest = max(seconds.values(), default=0) or 1
    bars = {name: f'<div style="width:{100 * s / longest:.1f}%"></div>' for name, s in seconds.items()}
    body = [row(name, (text("td", spoken_time(s)), tag("td", bars[name], kind="bar"))) for name, s in seconds.items()]
    return table("Time of each stage", ("stage", "time", ""), body)


def spoken_time(seconds: float) -> str:
    """12.3 s, or 4 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.1f} s" if seconds < 59.95 else f"{minutes} min {rest:02d} s"
