"""Draws docs/scale.svg, time and memory of every stage, from the runs that bench/scale.py --out has measured.

python bench/other/plot_scale.py docs/scale.json docs/scale.svg
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLORS = {
    "prepare": "#0072b2",
    "train": "#d55e00",
    "embed": "#009e73",
    "index": "#cc79a7",
    "publish": "#7a5195",
    "generate": "#8c8c8c",
}
STYLE = {
    "font.size": 9,
    "svg.hashsalt": "scale",  # the same picture for the same runs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


def main(runs: list[dict], out: Path) -> None:
    with plt.rc_context(STYLE):
        figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
        draw(time, runs, "seconds", 1)
        time.set_title("seconds on the clock")
        draw(memory, runs, "anonymous_mib", 1 / 1024)
        memory.set_title("most memory of its own, GiB")
        figure.savefig(out, metadata={"Date": None})


def draw(axes: Axes, runs: list[dict], measure: str, scale: float) -> None:
    """A line for every stage, with its name where it ends; equal steps are equal factors on both axes."""
    pins = [run["pins"] for run in runs]
    ends = {}
    for stage, color in COLORS.items():
        measured = [(run["pins"], run["stages"].get(stage, {}).get(measure)) for run in runs]
        points = [(num_pins, value * scale) for num_pins, value in measured if value is not None]
        axes.loglog(*zip(*points, strict=True), color=color, marker="o", markersize=3.5, linewidth=1.6)
        ends[stage] = points[-1]
    axes.set_xlim(pins[0] * 0.8, pins[-1] * 3.2)
    low, high = axes.get_ylim()
    gap, below = (high / low) ** 0.05, dict.fromkeys(pins, 0.0)
    for stage, (where, value) in sorted(ends.items(), key=lambda end: end[1][1]):  # from below
        below[where] = max(value, below[where] * gap)  # moved apart where lines end together
        axes.annotate(stage, (where * 1.12, below[where]), color=COLORS[stage], va="center")
    axes.set_xticks(pins, [f"{num:,}" for num in pins])
    axes.minorticks_off()
    axes.set_xlabel("pins")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.7)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text())["runs"], Path(sys.argv[2]))
