"""The pieces of HTML that the report is put together from. All text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from offline.report_examples import Card, Example
from offline.report_style import STYLE

Row = Mapping[str, Any]

OURS = "pinsage"


def page(title: str, body: Iterable[str]) -> str:
    """The whole file; nothing in it comes from elsewhere."""
    about = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    inner = tag("head", about, text("title", title), tag("style", STYLE)) + tag("body", tag("main", *body))
    return f'<!doctype html>\n<html lang="en">{inner}</html>\n'


def tag(name: str, *inner: str, kind: str = "") -> str:
    """An element around HTML; `kind` is its class."""
    marked = f' class="{kind}"' if kind else ""
    return f"<{name}{marked}>{''.join(inner)}</{name}>"


def text(name: str, words: str, *, kind: str = "") -> str:
    """An element around text, which is escaped."""
    return tag(name, escape(words), kind=kind)


def section(title: str, words: str, *parts: str) -> str:
    """A titled part of the page."""
    return tag("section", text("h2", title), text("p", words), *parts) + "\n"


def facts(values: Mapping[str, str]) -> str:
    """Big numbers with small names."""
    boxes = [tag("div", text("b", value), text("span", name)) for name, value in values.items()]
    return tag("div", *boxes, kind="facts")


def figure(address: str, description: str, *, title: str = "") -> str:
    """An image; the description is for those who cannot see it."""
    shown = f'<img src="{address}" alt="{escape(description)}">'
    return (text("h3", title) if title else "") + tag("div", shown, kind="wide")


def side_by_side(*parts: str) -> str:
    """Parts beside each other where there is room."""
    return tag("div", *[tag("div", part) for part in parts], kind="pair")


def measures_table(rows: Mapping[str, Row], columns: Mapping[str, str]) -> str:
    """A row per method; columns: key of the row -> heading. Below each number its confidence interval."""
    best = {key: max((row[key] for row in rows.values() if row["n"]), default=0) for key in columns}
    head = tag("tr", *[text("th", name) for name in ("", "n", *columns.values())])
    body = [_measures(name, row, best) for name, row in rows.items()]
    return tag("div", tag("table", head, *body), kind="wide")


def _measures(name: str, row: Row, best: Mapping[str, float]) -> str:
    cells = [text("td", name), text("td", f"{row['n']:,}")]
    for key, highest in best.items():
        if not row["n"]:
            cells.append(text("td", "–"))
            continue
        low, high = row["intervals"][key]
        interval = text("small", f"{low:.4f} – {high:.4f}")
        cells.append(tag("td", f"{row[key]:.4f}", interval, kind="best" if row[key] == highest > 0 else ""))
    return tag("tr", *cells, kind="ours" if name == OURS else "")


def example_row(example: Example) -> str:
    """A query, and beside it the best pins of each method."""
    columns = []
    for name, cards in example.answers.items():
        pictures = any(card.image for card in cards)
        shown = tag("div", *[card_box(card) for card in cards], kind="pictures" if pictures else "")
        columns.append(tag("div", text("h4", name, kind="ours" if name == OURS else ""), shown))
    asked = tag("div", text("h4", "query"), card_box(example.query, kind="asked"))
    return tag("div", asked, tag("div", *columns, kind="columns"), kind="query")


def card_box(card: Card, *, kind: str = "") -> str:
    """A pin: picture where there is one, title, note."""
    kind = f"card {kind or ('answer' if card.is_answer else '')}".strip()
    picture = f'<img src="{card.image}" alt="">' if card.image else ""
    return tag("span", picture, text("b", card.title), text("i", card.note), kind=kind)


def time_bars(seconds: Mapping[str, float]) -> str:
    """Stages and how long they took."""
    longest = max(seconds.values(), default=0) or 1
    bars = {
        name: f'<td class="bar"><div style="width:{100 * s / longest:.1f}%"></div></td>' for name, s in seconds.items()
    }
    rows = [tag("tr", text("td", name), text("td", spoken_time(seconds[name])), bar) for name, bar in bars.items()]
    return tag("table", *rows)


def spoken_time(seconds: float) -> str:
    """12.3 s, or 4 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.1f} s" if seconds < 59.95 else f"{minutes} min {rest:02d} s"


def folded(title: str, words: str) -> str:
    """Text that opens on a click."""
    return tag("details", text("summary", title), text("pre", words))
