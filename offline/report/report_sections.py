"""The sections of the report that show what `evaluate` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offline.evaluation.evaluation_methods import PINSAGE
from offline.evaluation.metrics import MIN_QUERIES
from offline.report import report_figures as figures
from offline.report import report_page as html
from offline.report.report_spaces import similarity_histogram
from offline.report.report_tables import (
    COLD_TITLES,
    FEED_COLUMNS,
    MARKS,
    PAIR_COLUMNS,
    buckets_table,
    differences_table,
    measures_table,
)

Metrics = Mapping[str, Any]
Row = Mapping[str, Any]
Rows = Mapping[str, Row]

FOREST = ("HR@10", "HR@100", "MRR_scaled100")
DEGREE_MEASURE = "HR@100"


def related(metrics: Metrics) -> html.Section:
    """Table, curve, scaled MRR, and the differences to PinSage."""
    rows = metrics["related"]
    key, title = "related", "Related pins"
    if not rows[PINSAGE]["n"]:
        return html.section(key, title, "The data set has no test pairs, so nothing can be said here.")
    text = (
        f"Each related pin is ranked among all {metrics['candidates']:,} pins, the query taken out; ties count at "
        "their mean rank. HR@K is the share of pairs whose related pin is among the K best, MRR/100 the paper's scaled "
        f"mean reciprocal rank (equation 2).{_sample(metrics['sample'])}"
    )
    curve = html.figure(
        figures.hit_rate_curve(metrics["hit_rate_curve"]),
        _curve_words(metrics["hit_rate_curve"]),
        title="Hit rate over K",
    )
    scaled = html.figure(
        figures.measure_dots(rows, "MRR_scaled100", "MRR/100, with its 95 % interval"),
        _values("MRR/100", rows, "MRR_scaled100"),
        title="Scaled mean reciprocal rank",
    )
    table = measures_table("Each method on the test pairs", rows, PAIR_COLUMNS)
    missing = [html.text("p", f"No row {name}: {why}.", kind="note") for name, why in metrics["skipped"].items()]
    return html.section(key, title, text, _legend(), table, *missing, html.grid([curve, scaled]), _differences(rows))


def by_degree(metrics: Metrics) -> html.Section | None:
    """How good each method is for pins on few and on many boards."""
    tables = {
        "the query": metrics["by_query_degree"],
        "the related pin": metrics["by_degree"],
    }
    if not metrics["related"][PINSAGE]["n"]:
        return None
    text = (
        "The degree of a pin is the number of boards that it is on. A query on few boards shows what a method knows "
        "without them; a related pin on few boards is one that popularity cannot find. Lines are 95 % intervals; "
        f"hollow: fewer than {MIN_QUERIES} pairs, an anecdote."
    )
    parts, folds = [], []
    for side, buckets in tables.items():
        title = f"{DEGREE_MEASURE} by the degree of {side}"
        words = "; ".join(
            _values(f"{bucket} boards", rows, DEGREE_MEASURE) for bucket, rows in buckets.items() if rows[PINSAGE]["n"]
        )
        parts.append(html.figure(figures.by_degree(buckets, DEGREE_MEASURE), f"{title}. {words}", title=title))
        folds.append(buckets_table(title, buckets, DEGREE_MEASURE))
    return html.section("degree", "By degree of the pin", text, html.grid(parts), html.folded("As tables", *folds))


def coldstart(metrics: Metrics) -> html.Section | None:
    """Pins that the run has never seen, with and without boards."""
    tables = {test: rows for test, rows in metrics["coldstart"].items() if rows[PINSAGE]["n"]}
    if not tables:
        return None
    text = (
        "Queries are pins that the run has never seen, embedded as the service embeds a pin that was posted a second "
        "ago: features, a walk from its boards, the neighbours' stored messages; without boards its nearest pins by "
        f"content stand for neighbours. Candidates are the pins of the run.{_warm(metrics, tables)}"
    )
    shown = [measures_table(COLD_TITLES[test], rows, PAIR_COLUMNS) for test, rows in tables.items()]
    return html.section("coldstart", "Cold start", text, *shown)


def homefeed(metrics: Metrics) -> html.Section | None:
    """What users saved later."""
    if not metrics["homefeed"]:
        return None
    text = (
        "What users saved later, found from what they saved before: the best score with any of the last 20 saved pins "
        "(item_knn: the sum over all of them). Saved pins are not shown again."
    )
    table = measures_table("Each method on the test users", metrics["homefeed"], FEED_COLUMNS)
    return html.section("homefeed", "Home feed", text, table)


def similarity(metrics: Metrics) -> html.Section:
    """Figure 4 of the paper: by method, and by what the network is given."""
    text = (
        "Cosines of some 100,000 random pairs of pins (figure 4 of the paper); the dotted line is their mean. The "
        "paper wants them widely spread: then distances tell pins apart, and an index finds its way. A spike near 1 is "
        "a collapse. Kurtosis is Pearson's, 3 for a normal distribution; the paper's figures (annotations 2.49, visual "
        "1.20, PinSage 0.43) go below 1, so they must be excess kurtosis, which is 3 less."
    )
    inputs = {name: row for name, row in metrics["similarity"].items() if name != PINSAGE}
    parts = [_histograms("By each method that scores with a cosine", metrics["similarity_methods"])]
    parts.append(_histograms("By each part of the network's input", inputs))
    return html.section("similarity", "How alike random pins are", text, *parts)


def _histograms(title: str, table: Rows) -> str:
    shown = []
    for name, row in table.items():
        if not row["n"]:
            continue
        flat = "kurtosis undefined" if row["kurtosis"] is None else f"kurtosis {row['kurtosis']:.1f}"
        excess = "" if row["kurtosis"] is None else f" (excess {row['kurtosis'] - 3:.1f})"
        near = f"above 0.9: {row['share_above_0.9']:.1%}"
        note = f"{flat}{excess}, mean {row['mean'] + 0.0:.2f}, deviation {row['std']:.2f}, {near}"
        words = f"Histogram of the cosines of random pins, {name}: {note}."
        shown.append(html.figure(similarity_histogram(name, row), words, title=name, note=note))
    return html.text("h3", title, kind="group") + html.grid(shown, kind="small") if shown else ""


def _differences(rows: Rows) -> str:
    if not any(row.get("differences") for row in rows.values()):
        return html.text("p", "Too few queries to say which differences are beyond chance.")
    words = (
        "Paired bootstrap over queries, so that a hard query counts the same for both. Left of the line a method is "
        "worse than pinsage, right of it better; hollow: the 95 % interval holds zero, the difference may be chance."
    )
    parts = []
    for key in FOREST:
        label = PAIR_COLUMNS[key]
        gaps = ", ".join(
            f"{name} {row['differences'][key]['mean']:+.4f}" for name, row in rows.items() if row.get("differences")
        )
        parts.append(
            html.figure(figures.differences(rows, key, label), f"{label} less pinsage's: {gaps}.", title=label)
        )
    table = differences_table("Each method less pinsage", rows, PAIR_COLUMNS)
    title = html.text("h3", "Difference to pinsage", kind="group")
    return title + html.text("p", words) + html.grid(parts, kind="triple") + html.folded("As a table", table)


def _legend() -> str:
    items = [f'<li><span class="mark {said}">{sign}</span> {words}</li>' for said, (sign, words) in MARKS.items()]
    return html.tag("ul", *items, "<li><b>bold</b> best of its column</li>",
                    "<li><small>small</small> 95 % interval, bootstrap over queries</li>", kind="legend")  # fmt: skip


def _sample(sample: int | None) -> str:
    return f" A sample of {sample:,} pairs." if sample else ""


def _warm(metrics: Metrics, tables: Mapping[str, Rows]) -> str:
    """Cold beside warm, where there is a warm figure."""
    warm = metrics["related"][PINSAGE]
    if not warm["n"] or not warm["HR@100"]:
        return ""
    shares = [
        f"{rows[PINSAGE]['HR@100'] / warm['HR@100']:.0%} {test.replace('_', ' ')}" for test, rows in tables.items()
    ]
    return (
        f" HR@100 of pinsage, as a share of that on pins it knows (other pairs, so a rough guide): {', '.join(shares)}."
    )


def _curve_words(curve: Mapping[str, Any]) -> str:
    at = [curve["k"].index(k) for k in (10, 100, 1000)]
    lines = [f"{name} {', '.join(f'{curve[name][place]:.3f}' for place in at)}" for name in curve if name != "k"]
    return f"Hit rate at K = 10, 100, 1000: {'; '.join(lines)}."


def _values(title: str, rows: Rows, key: str) -> str:
    return f"{title}: " + ", ".join(f"{name} {row[key]:.4f}" for name, row in rows.items() if row["n"]) + "."
