"""A drawing surface for the synthetic world's pictures: colors, shapes, and the dice that vary each picture.

All lengths are shares of the picture's side; y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from PIL import ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]


class Dice:
    """A run of uniform numbers, drawn beforehand: a pin's picture depends on these and on its topic only."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._numbers = cycle(numbers)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def below(self, limit: int) -> int:
        return int(limit * next(self._numbers))


@dataclass(frozen=True)
class Canvas:
    """Where a composition draws: ground color, four inks, and `variant` (0 to 11), which the topic sets."""

    draw: ImageDraw.ImageDraw
    side: int
    ground: Color
    inks: tuple[Color, ...]
    variant: int
    dice: Dice

    def ink(self, number: int) -> Color:
        return self.inks[number % len(self.inks)]

    def disc(self, x: float, y: float, radius: float, fill: Color | None, outline: Color | None = None) -> None:
        s, width = self.side, max(2, self.side // 90)
        box = ((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s)
        self.draw.ellipse(box, fill=fill, outline=outline, width=width if outline else 0)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Color, radius: float = 0.0) -> None:
        s = self.side
        self.draw.rounded_rectangle((left * s, top * s, right * s, bottom * s), radius * s, fill=fill)

    def shape(self, points: Sequence[Point], fill: Color) -> None:
        self.draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=fill)

    def line(self, points: Sequence[Point], fill: Color, width: float = 0.008) -> None:
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self.draw.line(scaled, fill=fill, width=max(1, round(width * self.side)), joint="curve")

    def pie(self, x: float, y: float, radius: float, start: float, end: float, fill: Color) -> None:
        s = self.side
        box = ((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s)
        self.draw.pieslice(box, start, end, fill=fill)

    def leaf(self, x: float, y: float, angle: float, length: float, fill: Color) -> None:
        dx, dy, width = math.cos(angle) * length, math.sin(angle) * length, 0.26
        outline = ((0, 0), (0.3, 0.8), (0.6, 1), (0.85, 0.6), (1, 0), (0.85, -0.6), (0.6, -1), (0.3, -0.8))
        points = [(x + dx * s - dy * t * width, y + dy * s + dx * t * width) for s, t in outline]
        self.shape(points, fill)


def mix(a: Color, b: Color, share: float) -> Color:
    """The color `share` of the way from a to b."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]
