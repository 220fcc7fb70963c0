"""The figures of the report, each as one data: address that an <img> shows.

Letters: S pins of the map.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Array = npt.NDArray[Any]
Row = Mapping[str, Any]

INK, FAINT, GRID = "#1f2430", "#6b7280", "#e5e7eb"
COLORS = {
    "pinsage": "#d6224a",
    "popularity": "#9aa3af",
    "text": "#3b76c4",
    "annotations": "#7aa6dc",
    "visual": "#2f9e8f",
    "boards": "#e39b2d",
    "boards+text": "#7c5cbf",
    "boards+visual": "#a06cd5",
    "pixie": "#4c9a4e",
    "item_knn": "#8a6248",
}
MAP_COLORS = (
    "#d6224a", "#3b76c4", "#e39b2d", "#4c9a4e", "#7c5cbf", "#2f9e8f", "#c65fa5", "#8a6248", "#6aa7d8", "#a8b400",
)  # fmt: skip
OTHER = "#d5d9e0"
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
    "svg.hashsalt": "pinsage",
}


def hit_rate_curve(curve: Mapping[str, Sequence[float]]) -> str:
    """HR@K over K, a line per method."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes(6.2, 4)
        for name, rates in curve.items():
            if name != "k":
                width = 3 if name == "pinsage" else 1.8
                axes.plot(curve["k"], rates, color=_color(name), linewidth=width, marker="o", markersize=3, label=name)
        axes.set_xscale("log")
        axes.set_xticks(curve["k"], [f"{k}" for k in curve["k"]])
        axes.minorticks_off()
        axes.set_ylim(0, None)
        axes.set(xlabel="K", ylabel="HR@K: related pin among the K best")
        axes.legend(loc="upper left")
        return _svg(figure)


def by_degree(buckets: Mapping[str, Mapping[str, Row]], measure: str) -> str:
    """Bars of a measure by the number of boards of the related pin, a group per bucket."""
    shown = {bucket: rows for bucket, rows in buckets.items() if rows["pinsage"]["n"]}
    methods = list(next(iter(shown.values()))) if shown else []
    with mpl.rc_context(STYLE):
        figure, axes = _axes(6.2, 4)
        width = 0.8 / max(len(methods), 1)
        for place, name in enumerate(methods):
            at = np.arange(len(shown)) + (place - (len(methods) - 1) / 2) * width
            axes.bar(at, [rows[name].get(measure, 0) for rows in shown.values()], width * 0.92, color=_color(name),
                     label=name)  # fmt: skip
        labels = [f"{bucket} boards\n{rows['pinsage']['n']:,} pairs" for bucket, rows in shown.items()]
        axes.set_xticks(range(len(shown)), labels)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(measure)
        axes.legend(loc="upper left", ncols=2)
        axes.margins(y=0.25)
        return _svg(figure)


def similarity_histograms(table: Mapping[str, Row]) -> str:
    """Cosines of random pairs, a panel per space, with kurtosis (paper, figure 4)."""
    shown = {name: row for name, row in table.items() if row["n"]}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.8, 2.7), layout="constrained")
        for place, (name, row) in enumerate(shown.items()):
            axes = figure.add_subplot(1, len(shown), place + 1)
            counts = np.array(row["histogram"])
            edges = np.linspace(-1, 1, len(counts) + 1)
            axes.stairs(counts / counts.sum(), edges, fill=True, color=_color(name), alpha=0.85)
            flat = "undefined" if row["kurtosis"] is None else f"{row['kurtosis']:.1f}"
            axes.set_title(f"{name}\nkurtosis {flat}, mean {row['mean']:.2f}", fontsize=10, loc="left")
            axes.set_xlim(-1, 1)
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.set_xlabel("cosine")
        return _svg(figure)


def embedding_map(points_S2: Array, labels: Sequence[str | None], degrees_S: Array) -> str:
    """Pins on a plane, coloured by label; by the number of boards where there are no labels."""
    kinds = [label for label in dict.fromkeys(labels) if label]
    with mpl.rc_context(STYLE):
        figure, axes = _axes(12.8, 6.4)
        if kinds:
            _draw_labelled(axes, points_S2, labels)
        else:
            drawn = axes.scatter(
                points_S2[:, 0], points_S2[:, 1], c=np.log10(1 + degrees_S), s=14, cmap="viridis", linewidths=0
            )
            figure.colorbar(drawn, ax=axes, label="log10(1 + boards)", shrink=0.7)
        axes.set_axis_off()
        return _image(figure, "png", dpi=110)


def training_curve(lines: Sequence[Row]) -> str:
    """Loss and validation score of each epoch."""
    epochs = [line["epoch"] for line in lines]
    with mpl.rc_context(STYLE):
        figure, axes = _axes(6.2, 3)
        axes.plot(epochs, [line["HR@10"] for line in lines], color=_color("pinsage"), linewidth=2.5, marker="o",
                  markersize=3)  # fmt: skip
        axes.set(xlabel="epoch", ylabel="HR@10 on validation pairs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        losses = axes.twinx()
        losses.plot(epochs, [line["loss"] for line in lines], color=FAINT, linewidth=1.5, linestyle="--")
        losses.set_ylabel("loss (dashed)")
        losses.grid(visible=False)
        return _svg(figure)


def _draw_labelled(axes: Axes, points_S2: Array, labels: Sequence[str | None]) -> None:
    ranked = sorted({label for label in labels if label}, key=lambda label: -labels.count(label))
    shown = ranked[: len(MAP_COLORS)]
    others = np.array([label not in shown for label in labels])
    if others.any():
        _dots(axes, points_S2[others], OTHER, "other", size=10)
    for label, color in zip(shown, MAP_COLORS, strict=False):
        inside = np.array([each == label for each in labels])
        _dots(axes, points_S2[inside], color, str(label), size=16)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.8)


def _dots(axes: Axes, points_S2: Array, color: str, label: str, *, size: int) -> None:
    axes.scatter(points_S2[:, 0], points_S2[:, 1], s=size, color=color, linewidths=0, alpha=0.85, label=label)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _color(name: str) -> str:
    return COLORS.get(name, FAINT)


def _svg(figure: Figure) -> str:
    return _image(figure, "svg", dpi=72)


def _image(figure: Figure, kind: str, *, dpi: int) -> str:
    stream = io.BytesIO()
    # Without the date, the same numbers give the same bytes.
    figure.savefig(stream, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{mime};base64,{base64.b64encode(stream.getvalue()).decode()}"
