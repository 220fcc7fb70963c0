"""The figures of the report that look at one space of pins: how alike random pins are, and the map.

Letters: S pins of the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from offline.report.report_figures import color, drawing, image, svg

Array = npt.NDArray[Any]
Row = Mapping[str, Any]

MAP_COLORS = (
    "#d6224a", "#3b76c4", "#dd9220", "#4c9a4e", "#7c5cbf", "#1f9384", "#c65fa5", "#8a6248", "#6fa3dd", "#9aa500",
)  # fmt: skip
BOARD_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 10_000, 100_000)
OTHER, OTHERS = "#d5d9e0", "others"


def similarity_histogram(name: str, row: Row) -> str:
    """Cosines of random pairs in one space (paper, figure 4)."""
    with drawing(3, 1.9) as (figure, axes):
        counts = np.array(row["histogram"])
        edges = np.linspace(-1, 1, len(counts) + 1)
        axes.stairs(counts / counts.sum(), edges, fill=True, color=color(name), alpha=0.85)
        axes.axvline(row["mean"], color="#1f2430", linewidth=1, linestyle=":")
        axes.set_xlim(-1, 1)
        axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["-1", "", "0", "", "1"])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlabel("cosine")
        return svg(figure)


def map_colors(labels: Sequence[str | None]) -> dict[str, str]:
    """The commonest labels and their colors, and one color for all others; empty where nobody has a label."""
    ranked = sorted({label for label in labels if label}, key=lambda label: (-labels.count(label), label))
    shown = dict(zip(ranked, MAP_COLORS, strict=False))
    if shown and any(label not in shown for label in labels):
        shown[OTHERS] = OTHER
    return shown


def embedding_map(points_S2: Array, labels: Sequence[str | None], degrees_S: Array) -> str:
    """Pins on a plane, coloured by label; by the number of boards where there are no labels."""
    with drawing(9.6, 5.6) as (figure, axes):
        colors = map_colors(labels)
        if colors:
            inks = [colors.get(label or "", OTHER) for label in labels]
            faint = np.array([ink == OTHER for ink in inks])
            _dots(axes, points_S2[faint], [OTHER] * int(faint.sum()), size=10)
            _dots(axes, points_S2[~faint], [ink for ink in inks if ink != OTHER], size=16)
        else:
            drawn = axes.scatter(
                points_S2[:, 0], points_S2[:, 1], c=np.log10(1 + degrees_S), s=14, cmap="viridis", linewidths=0
            )
            bar = figure.colorbar(drawn, ax=axes, label="boards", shrink=0.7, aspect=30)
            ticks = [tick for tick in BOARD_TICKS if tick <= degrees_S.max()]
            bar.set_ticks([np.log10(1 + tick) for tick in ticks], labels=[f"{tick:,}" for tick in ticks])
        axes.set_axis_off()
        return image(figure, "png", dpi=150)


def _dots(axes: Axes, points_S2: Array, inks: Sequence[str], *, size: int) -> None:
    axes.scatter(points_S2[:, 0], points_S2[:, 1], s=size, color=list(inks), linewidths=0, alpha=0.85)
