"""The figures of the report that compare methods, each as one data: address that an <img> shows.

Letters: M methods.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from offline.evaluation.evaluation_methods import PINSAGE
from offline.evaluation.metrics import MIN_QUERIES, verdict

Row = Mapping[str, Any]
Rows = Mapping[str, Row]

INK, FAINT, GRID = "#1f2430", "#5b6472", "#e5e7eb"
COLORS = {
    PINSAGE: "#d6224a",
    "popularity": "#8d96a3",
    "text": "#3b76c4",
    "annotations": "#6fa3dd",
    "visual": "#1f9384",
    "boards": "#dd9220",
    "boards+text": "#7c5cbf",
    "boards+visual": "#c65fa5",
    "pixie": "#4c9a4e",
    "als": "#0f7fb8",
    "item_knn": "#8a6248",
}
MARKERS = "osD^vPX*"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "svg.hashsalt": PINSAGE,
}


def hit_rate_curve(curve: Mapping[str, Sequence[float]]) -> str:
    """HR@K over K, a line per method, the best at the end named first."""
    places = curve["k"]
    names = sorted((name for name in curve if name != "k"), key=lambda name: -curve[name][-1])
    with drawing(5.4, 3.6) as (figure, axes):
        for name in names:
            width = 3 if name == PINSAGE else 1.6
            axes.plot(places, curve[name], color=color(name), linewidth=width, marker=marker(name), markersize=5,
                      label=name, zorder=3 if name == PINSAGE else 2)  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{k}" for k in places])
        axes.minorticks_off()
        axes.set_ylim(0, None)
        axes.set(xlabel="K", ylabel="share of pairs found among the K best")
        axes.legend(loc="best", fontsize=9)
        return svg(figure)


def measure_dots(rows: Rows, key: str, label: str) -> str:
    """A measure of each method with its interval, a line per method."""
    names = [name for name, row in rows.items() if row["n"]][::-1]
    with drawing(5.4, 3.6) as (figure, axes):
        for place, name in enumerate(names):
            low, high = rows[name]["intervals"][key]
            axes.plot([low, high], [place, place], color=color(name), linewidth=3, alpha=0.4, solid_capstyle="round")
            axes.plot(rows[name][key], place, "o", color=color(name), markersize=8)
        _name_lines(axes, names)
        axes.set_xlim(0, None)
        axes.set_xlabel(label)
        return svg(figure)


def differences(rows: Rows, key: str, label: str) -> str:
    """Each method less PinSage with the interval of the difference; hollow where the interval holds zero."""
    names = [name for name, row in rows.items() if row.get("differences")][::-1]
    with drawing(4.1, 0.9 + 0.33 * len(names)) as (figure, axes):
        axes.axvline(0, color=COLORS[PINSAGE], linewidth=2)
        for place, name in enumerate(names):
            gap = rows[name]["differences"][key]
            sure = verdict(gap) != "even"
            ink = INK if sure else FAINT
            axes.plot([gap["low"], gap["high"]], [place, place], color=ink, linewidth=2, solid_capstyle="round")
            axes.plot(gap["mean"], place, "o", color=ink, markerfacecolor=ink if sure else "white", markersize=7)
        _name_lines(axes, names)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"{label}, less pinsage's")
        return svg(figure)


def by_degree(buckets: Mapping[str, Rows], key: str) -> str:
    """A measure by degree: for each bucket a dot per method with its interval, hollow where there are few pairs."""
    shown = {bucket: rows for bucket, rows in buckets.items() if rows[PINSAGE]["n"]}
    names = list(next(iter(shown.values()))) if shown else []
    with drawing(5.4, 3.6) as (figure, axes):
        for number, name in enumerate(names):
            offset = (number - (len(names) - 1) / 2) * 0.8 / max(len(names), 1)
            points = [(place + offset, rows[name]) for place, rows in enumerate(shown.values()) if rows[name]["n"]]
            shape, size = marker(name), 8 if name == PINSAGE else 6
            axes.plot([], [], shape, color=color(name), markersize=size, label=name)
            for at, row in points:
                few = row["n"] < MIN_QUERIES
                if not few:
                    axes.plot([at, at], row["intervals"][key], color=color(name), linewidth=2.5, alpha=0.4)
                axes.plot(at, row[key], shape, color=color(name), markersize=size,
                          markerfacecolor="white" if few else color(name))  # fmt: skip
        labels = [f"{bucket} boards\n{rows[PINSAGE]['n']:,} pairs" for bucket, rows in shown.items()]
        axes.set_xticks(range(len(shown)), labels)
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, None)
        axes.set_ylabel(key)
        figure.legend(loc="outside upper left", ncols=4, fontsize=8.5)
        return svg(figure)


def training_curve(lines: Sequence[Row]) -> str:
    """Loss and validation score of each epoch."""
    epochs = [line["epoch"] for line in lines]
    with drawing(5.4, 2.7) as (figure, axes):
        scores = [line["score"] for line in lines]
        axes.plot(epochs, scores, color=color(PINSAGE), linewidth=2.5, marker="o", markersize=3)
        best = int(np.argmax(scores))
        axes.plot(epochs[best], scores[best], "o", color=color(PINSAGE), markersize=9)
        axes.set(xlabel="epoch", ylabel="validation score")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        losses = axes.twinx()
        losses.plot(
            epochs, [line.get("loss", float("nan")) for line in lines], color=FAINT, linewidth=1.5, linestyle="--"
        )
        losses.set_ylabel("loss (dashed)")
        losses.grid(visible=False)
        return svg(figure)


def sweep(points: Mapping[str, Row], key: str, label: str) -> str:
    """A measure, with its interval where it has one, for each value of a setting in their order."""
    with drawing(4.1, 2.7) as (figure, axes):
        for place, row in enumerate(points.values()):
            interval = row["intervals"].get(key, [row[key], row[key]])
            axes.plot([place, place], interval, color=color(PINSAGE), linewidth=3, alpha=0.4)
        axes.plot([row[key] for row in points.values()], color=color(PINSAGE), marker="o")
        axes.set_xticks(range(len(points)), list(points))
        axes.set_xlabel(label)
        return svg(figure)


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many inches and its axes, in the report's style."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def color(name: str) -> str:
    """The color of a method."""
    return COLORS.get(name, FAINT)


def marker(name: str) -> str:
    """The sign of a method, for those who cannot tell its color."""
    return MARKERS[list(COLORS).index(name) % len(MARKERS)] if name in COLORS else "."


def svg(figure: Figure) -> str:
    """The figure as a data: address; lines and letters stay sharp at any size."""
    return image(figure, "svg", dpi=72)


def image(figure: Figure, kind: str, *, dpi: int) -> str:
    """The figure as a data: address, as svg or png. Without the date, so the same numbers give the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{mime};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _name_lines(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")
    for tick in axes.get_yticklabels():
        tick.set_color(INK)
        if tick.get_text() == PINSAGE:
            tick.set_fontweight("bold")
