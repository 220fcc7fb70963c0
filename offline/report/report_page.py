"""The pieces of HTML that the report is put together from. All text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from offline.evaluation.evaluation_methods import PINSAGE
from offline.report.report_examples import Card, Example
from offline.report.report_style import STYLE


@dataclass(frozen=True)
class Section:
    """A part of the page that the table of contents leads to; `key` is its anchor."""

    key: str
    title: str
    html: str


def page(title: str, head: str, first: str, sections: Sequence[Section], foot: str) -> str:
    """The whole file; nothing in it comes from elsewhere. `first` stands between the contents and the sections."""
    about = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    links = [tag("li", tag("a", escape(part.title), href=f"#{part.key}")) for part in sections]
    contents = tag("nav", tag("ul", *links), **{"aria-label": "Contents"})
    main = tag("main", head, contents, first, *[part.html for part in sections], foot)
    inner = tag("head", about, text("title", title), tag("style", STYLE)) + tag("body", main)
    return f'<!doctype html>\n<html lang="en">{inner}</html>\n'


def tag(name: str, *inner: str, kind: str = "", **attributes: str) -> str:
    """An element around HTML; `kind` is its class."""
    marks = "".join(f' {key}="{escape(value)}"' for key, value in {"class": kind, **attributes}.items() if value)
    return f"<{name}{marks}>{''.join(inner)}</{name}>"


def text(name: str, words: str, *, kind: str = "", **attributes: str) -> str:
    """An element around text, which is escaped."""
    return tag(name, escape(words), kind=kind, **attributes)


def section(key: str, title: str, words: str, *parts: str) -> Section:
    """A titled part of the page."""
    heading = text("h2", title, id=f"{key}-title")
    inner = tag("section", heading, text("p", words), *parts, id=key, **{"aria-labelledby": f"{key}-title"})
    return Section(key, title, inner + "\n")


def facts(values: Mapping[str, str]) -> str:
    """Big numbers with small names."""
    boxes = [tag("div", text("dt", name), text("dd", value)) for name, value in values.items()]
    return tag("dl", *boxes, kind="facts")


def table(caption: str, head: Sequence[str], rows: Iterable[str]) -> str:
    """A table with a caption and a heading for each column; `rows` are those of `row`. Scrolls where it is too wide."""
    headings = [text("th", name, scope="col") if name else "<td></td>" for name in head]
    inner = [text("caption", caption), tag("thead", tag("tr", *headings)), tag("tbody", *rows)]
    return tag("div", tag("table", *inner), kind="wide", tabindex="0", role="region", **{"aria-label": caption})


def row(name: str, cells: Iterable[str], *, kind: str = "", note: str = "") -> str:
    """A row of a table: its name with a note below, and cells as HTML (td elements)."""
    below = text("small", note) if note else ""
    return tag("tr", tag("th", escape(name), below, scope="row"), *cells, kind=kind)


def figure(address: str, description: str, *, title: str = "", note: str = "") -> str:
    """An image with a title above and a note below; the description is for those who cannot see it."""
    above = text("h3", title) if title else ""
    below = text("figcaption", note) if note else ""
    return tag("figure", above, f'<img src="{escape(address)}" alt="{escape(description)}">', below)


def grid(parts: Iterable[str], *, kind: str = "pair") -> str:
    """Parts beside each other where there is room: `pair`, `triple`, or `small` for many."""
    return tag("div", *parts, kind=f"grid {kind}")


def legend(colors: Mapping[str, str]) -> str:
    """Names beside dots of their colors (name -> color)."""
    dots = [
        tag("li", f'<span style="background:{escape(color)}"></span>', tag("bdi", escape(name)))
        for name, color in colors.items()
    ]
    return tag("ul", *dots, kind="legend")


def example_row(example: Example) -> str:
    """A query, and beside it the best pins of each method."""
    columns = []
    for name, cards in example.answers.items():
        pictures = "pictures" if any(card.image for card in cards) else ""
        shown = tag("ol", *[tag("li", card_box(card)) for card in cards], kind=pictures)
        if not cards:
            shown = text("p", "finds nothing", kind="note")
        columns.append(tag("div", text("h4", name, kind="ours" if name == PINSAGE else ""), shown))
    asked = tag("div", text("h4", "query"), card_box(example.query, kind="asked"))
    shown = tag("div", *columns, kind="columns", tabindex="0", role="region", **{"aria-label": "answers by method"})
    return tag("article", asked, shown, kind="query")


def card_box(card: Card, *, kind: str = "") -> str:
    """A pin: picture where there is one, title, note."""
    picture = f'<img src="{escape(card.image)}" alt="">' if card.image else ""
    found = text("em", "✓ related") if card.is_answer else ""
    kind = kind or ("answer" if card.is_answer else "")
    return tag("div", picture, text("b", card.title), found, text("i", card.note), kind=f"card {kind}".strip())


def command(words: str, line: str) -> str:
    """What to do, and the command that does it."""
    return tag("p", escape(words), " ", text("code", line), kind="todo")


def folded(title: str, *inner: str) -> str:
    """HTML that opens on a click."""
    return tag("details", text("summary", title), *inner)
