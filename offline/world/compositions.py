"""Small drawings, one way of composing for each subject. The topic sets style and variant, the dice vary each pin."""

from __future__ import annotations

import math
from collections.abc import Callable

from offline.world.canvas import Canvas, mix


def furniture(c: Canvas) -> None:
    """A piece of furniture against a wall."""
    d, floor = c.dice, c.dice.between(0.74, 0.82)
    c.box(0, floor, 1, 1, mix(c.ground, c.ink(3), 0.25))
    c.disc(d.between(0.15, 0.85), d.between(0.18, 0.32), d.between(0.07, 0.14), c.ink(2))
    width, height = 0.28 + 0.03 * (c.variant % 6) + d.between(0, 0.06), 0.14 + 0.035 * (c.variant % 4)
    left, top = 0.5 - width + d.between(-0.06, 0.06), floor - height - 0.14
    right = left + 2 * width
    for x in (left + 0.04, right - 0.06):
        foot, joint = floor + 0.04, top + height
        c.shape([(x, joint), (x + 0.02, joint), (x + 0.03, foot), (x + 0.01, foot)], c.ink(3))
    c.box(left, top, right, top + height, c.ink(0), 0.03)
    if c.variant % 3 == 0:
        c.box(left, top - 0.2 - d.between(0, 0.05), left + 0.1 + d.between(0, 0.4) * width, top + 0.05, c.ink(0), 0.04)
    for n in range(1 + c.variant % 4):
        x = left + (n + 0.5) * (right - left) / (1 + c.variant % 4)
        c.box(x - 0.05, top + 0.03, x + 0.05, top + height - 0.03, mix(c.ink(0), c.ink(1), 0.5), 0.01)


def vessels(c: Canvas) -> None:
    """One to four pots on a shelf, by their profiles."""
    d, num = c.dice, 1 + c.variant % 4
    c.box(0, 0.8, 1, 1, mix(c.ground, c.ink(2), 0.35))
    for n in range(num):
        x, half = (n + 0.5) / num + d.between(-0.02, 0.02), 0.36 / (num + 0.6)
        height, belly = d.between(0.3, 0.55), 0.35 + 0.05 * (c.variant % 7)
        profile = []
        for step in range(13):
            t = step / 12
            radius = half * (0.42 + 0.58 * math.exp(-(((t - belly) / (0.2 + 0.03 * (c.variant % 3))) ** 2)))
            profile.append((radius, 0.86 - height * t))
        c.shape([(x - r, y) for r, y in profile] + [(x + r, y) for r, y in reversed(profile)], c.ink(n + c.variant))
        band = profile[4 + d.below(4)]
        c.line([(x - band[0], band[1]), (x + band[0], band[1])], c.ink(n + c.variant + 1), 0.02)


def sprigs(c: Canvas) -> None:
    """Stems with leaves, as on a herbarium sheet."""
    d, num = c.dice, 1 + c.variant % 3
    for n in range(num):
        x, lean = (n + 0.5) / num + d.between(-0.04, 0.04), d.between(-0.18, 0.18)
        stem = [(x + lean * (t / 10) ** 2, 0.94 - 0.8 * t / 10) for t in range(11)]
        c.line(stem, c.ink(3))
        for step, (sx, sy) in enumerate(stem[2:10]):
            size = (0.13 + 0.012 * (c.variant % 5)) * (1.5 if num == 1 else 1)
            length = size * (1.3 - step / 9) * d.between(0.85, 1.2)
            spread = 0.7 + 0.12 * (c.variant % 4)
            for side in (-1, 1):
                c.leaf(sx, sy, -math.pi / 2 + side * spread, length, c.ink(n + step % 2))
        if c.variant % 2:
            c.disc(*stem[-1], 0.05 + d.between(0, 0.03), c.ink(2))


def quilt(c: Canvas) -> None:
    """Patchwork of squares cut into triangles."""
    d, num = c.dice, 3 + c.variant % 4
    side, turn = 1 / num, d.below(4)
    for row in range(num):
        for column in range(num):
            x, y = column * side, row * side
            first = c.ink(row + column + turn)
            second = c.ink((row * column + c.variant + turn) % 5 + 1) if c.variant % 2 else c.ground
            corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
            c.shape(corners, second)
            start = (row + column * (1 + c.variant % 3) + turn) % 4
            c.shape([corners[(start + n) % 4] for n in range(3)], first)
            if d.between(0, 1) < 0.25:
                c.disc(x + side / 2, y + side / 2, side * 0.18, c.ink(row + 2))


def garden(c: Canvas) -> None:
    """A path between rounded plants."""
    d = c.dice
    c.box(0, 0.45, 1, 1, mix(c.ground, c.ink(2), 0.4))
    middle = d.between(0.35, 0.65)
    c.shape([(middle - 0.04, 0.45), (middle + 0.04, 0.45), (0.8, 1), (0.2, 1)], mix(c.ground, c.ink(3), 0.12))
    for n in range(10 + c.variant):
        side = -1 if n % 2 else 1
        depth = n / (10 + c.variant)
        x = middle + side * (0.12 + depth * 0.3 + d.between(0, 0.12))
        radius = (0.04 + 0.07 * depth) * d.between(0.8, 1.3)
        c.disc(x, 0.45 + 0.45 * depth, radius, c.ink(n % (2 + c.variant % 3)))
        if c.variant % 2:
            c.disc(x + radius * 0.3, 0.45 + 0.45 * depth - radius * 0.4, radius * 0.25, c.ink(3))


def rounds(c: Canvas) -> None:
    """Round bakes seen from above, with a scalloped edge."""
    d, num = c.dice, 1 + (c.variant % 3)
    places = [(0.5, 0.5)] if num == 1 else [(0.3, 0.32), (0.7, 0.68), (0.72, 0.28), (0.28, 0.72)][: num + 1]
    for n, (x, y) in enumerate(places):
        x, y = x + d.between(-0.03, 0.03), y + d.between(-0.03, 0.03)
        radius, bumps = (0.36 if num == 1 else 0.19) * d.between(0.9, 1.05), 8 + c.variant
        for bump in range(bumps):
            angle = math.tau * bump / bumps
            c.disc(x + radius * math.cos(angle), y + radius * math.sin(angle), radius * 0.22, c.ink(n))
        c.disc(x, y, radius, c.ink(n))
        c.disc(x, y, radius * 0.78, mix(c.ink(n), c.ground, 0.45))
        for _ in range(5 + c.variant % 5):
            angle, far = d.between(0, math.tau), radius * d.between(0.1, 0.6)
            c.disc(x + far * math.cos(angle), y + far * math.sin(angle), radius * 0.1, c.ink(n + 1 + d.below(2)))


def hills(c: Canvas) -> None:
    """Ridges behind each other, and a sun."""
    d, num = c.dice, 3 + c.variant % 3
    c.disc(d.between(0.2, 0.8), d.between(0.2, 0.36), 0.08 + 0.012 * (c.variant % 6), c.ink(2))
    for n in range(num):
        base, phase = 0.42 + 0.5 * n / num, d.between(0, math.tau)
        rough = 0.5 + 0.5 * (c.variant % 4)
        ridge = []
        for step in range(25):
            x = step / 24
            wave = math.sin(math.tau * x * rough + phase) + 0.4 * math.sin(math.tau * x * 3 * rough + 2 * phase)
            peak = abs(((x * (2 + c.variant % 3) + phase) % 1) - 0.5) if c.variant % 2 else 0
            ridge.append((x, base - 0.07 * wave - 0.12 * peak))
        c.shape([(0, 1), *ridge, (1, 1)], mix(c.ground, c.ink(n % 2 + (0 if n < num - 1 else 3)), 0.4 + 0.6 * n / num))


def arches(c: Canvas) -> None:
    """A facade with arched openings."""
    d, columns, rows = c.dice, 1 + c.variant % 4, 1 + c.variant % 3
    left, top = d.between(0.06, 0.14), d.between(0.12, 0.26)
    c.box(left, top, 1 - left, 1, c.ink(0))
    c.disc(d.between(0.1, 0.9), top * 0.5, 0.05, c.ink(2))
    wide, high = (1 - 2 * left) / columns, (1 - top) / rows
    for row in range(rows):
        for column in range(columns):
            x, y = left + (column + 0.5) * wide, top + row * high
            half, foot = wide * 0.3, y + high * 0.95
            fill = c.ink(3) if d.between(0, 1) < 0.7 else c.ink(2)
            spring = min(y + high * 0.2 + half, foot)
            c.box(x - half, spring, x + half, foot, fill)
            c.pie(x, spring, half, 180, 360, fill)
            c.line([(x, spring - half), (x, foot)], c.ink(0), 0.006)


def blocks(c: Canvas) -> None:
    """Big plain forms on a grid, and bars like lines of type."""
    d, num = c.dice, 2 + c.variant % 3
    side = 0.84 / num
    for row in range(num):
        for column in range(num):
            x, y = 0.08 + column * side, 0.06 + row * side * 0.85
            kind, ink = (row * 3 + column + c.variant + d.below(2)) % 5, c.ink(row + 2 * column + d.below(2))
            if kind == 0:
                c.box(x, y, x + side, y + side * 0.85, ink)
            elif kind < 3:
                corner, start = (x, 270) if kind == 1 else (x + side, 180)
                c.pie(corner, y + side * 0.85, side * 0.85, start, start + 90, ink)
            elif kind == 3:
                c.disc(x + side / 2, y + side * 0.43, side * 0.4, ink)
    for n in range(1 + c.variant % 3):
        c.box(0.08, 0.84 + 0.045 * n, 0.08 + d.between(0.25, 0.8), 0.865 + 0.045 * n, c.ink(3))


def jewels(c: Canvas) -> None:
    """A chain of beads, and a stone."""
    d, num = c.dice, 9 + 2 * (c.variant % 6)
    reach, hang = 0.3 + 0.02 * (c.variant % 4), d.between(0.22, 0.4)
    for n in range(num):
        t = n / (num - 1)
        x, y = 0.5 - reach + 2 * reach * t, 0.2 + hang * math.sin(math.pi * t)
        c.disc(x, y, 0.016 + 0.006 * (c.variant % 3) * (1 + n % 2), c.ink(n % (1 + c.variant % 3)))
    x, y, size = 0.5, 0.24 + hang + 0.1, d.between(0.09, 0.13)
    corners = 4 + c.variant % 5
    angles = [math.tau * (n + 0.5) / corners for n in range(corners)]
    stone = [(x + size * math.cos(a), y + size * 1.2 * math.sin(a)) for a in angles]
    c.shape(stone, c.ink(2))
    for n in range(0, corners, 2):
        c.shape([(x, y - 0.02), stone[n], stone[(n + 1) % corners]], mix(c.ink(2), c.ground, 0.45))


def lamps(c: Canvas) -> None:
    """Lamps that hang, each in its glow."""
    d, num = c.dice, 1 + c.variant % 4
    for n in range(num):
        x, y = (n + 0.5) / num + d.between(-0.03, 0.03), d.between(0.32, 0.62)
        radius = 0.26 / (num + 0.4) + 0.05
        for ring in range(4, 0, -1):
            c.disc(x, y + radius * 0.5, radius * (1 + 0.28 * ring), mix(c.ground, c.ink(2), 0.34 - 0.07 * ring))
        c.line([(x, 0), (x, y)], c.ink(3), 0.007)
        if c.variant % 3 == 0:
            c.disc(x, y + radius * 0.4, radius * 0.8, c.ink(n))
        elif c.variant % 3 == 1:
            c.pie(x, y + radius * 0.7, radius, 180, 360, c.ink(n))
        else:
            low, narrow = y + radius, 0.3 * radius
            c.shape([(x - narrow, y), (x + narrow, y), (x + radius, low), (x - radius, low)], c.ink(n))
        c.disc(x, y + radius * 0.95, radius * 0.2, mix(c.ink(2), (255, 255, 255), 0.6))


def garments(c: Canvas) -> None:
    """A garment laid flat, with its pattern."""
    d = c.dice
    flare, hem = 0.02 * (c.variant % 6), 0.7 + 0.05 * (c.variant % 4)
    sleeve, cut = 0.12 + 0.05 * (c.variant % 3), d.between(0.04, 0.09)
    left = [(0.5 - cut, 0.16), (0.32, 0.2), (0.32 - sleeve, 0.46), (0.26, 0.52), (0.35, 0.38)]
    left.append((0.34 - flare, hem + 0.1))
    outline = left + [(1 - x, y) for x, y in reversed(left)]
    c.shape(outline, c.ink(0))
    for n in range(2 + c.variant % 5):
        y = 0.42 + n * (hem - 0.36) / (2 + c.variant % 5)
        c.box(0.36 - flare * 0.5, y, 0.64 + flare * 0.5, y + 0.015 + 0.01 * (c.variant % 3), c.ink(1 + n % 2))
    c.shape([(0.5 - cut, 0.16), (0.5 + cut, 0.16), (0.5, 0.2 + cut)], c.ground)
    for n in range(3):
        c.disc(0.5, 0.3 + 0.05 * n, 0.011, c.ink(3))
    c.disc(d.between(0.1, 0.9), 0.92, 0.03, c.ink(2))


def moons(c: Canvas) -> None:
    """Moon, rays and stars in line."""
    d, rays = c.dice, 6 + 2 * (c.variant % 6)
    x, y, radius = 0.5 + d.between(-0.05, 0.05), 0.48 + d.between(-0.05, 0.05), 0.15 + 0.012 * (c.variant % 4)
    for n in range(rays):
        angle = math.tau * n / rays + d.between(-0.02, 0.02)
        near, far = radius * 1.3, radius * (1.6 + 0.5 * (n % 2) + 0.1 * (c.variant % 3))
        c.line([(x + r * math.cos(angle), y + r * math.sin(angle)) for r in (near, far)], c.ink(3))
    c.disc(x, y, radius, c.ink(0))
    shade = radius * (0.3 + 0.12 * (c.variant % 5))
    c.disc(x + shade, y - shade * 0.3, radius * 0.86, c.ground)
    for _ in range(6 + c.variant % 4):
        c.disc(d.between(0.06, 0.94), d.between(0.06, 0.94), d.between(0.006, 0.014), c.ink(1))
    c.disc(x, y, radius * 2.6, None, c.ink(3))


def tiles(c: Canvas) -> None:
    """A tiled wall: quarter circles that join into curves."""
    d, num = c.dice, 3 + c.variant % 3
    side, turn = 1 / num, d.below(2)
    for row in range(num):
        for column in range(num):
            x, y = column * side, row * side
            fill = mix(c.ground, c.ink((row + column) % 2), 0.3)
            c.box(x + 0.006, y + 0.006, x + side - 0.006, y + side - 0.006, fill)
            flip = (row * (1 + c.variant % 3) + column + turn + (d.between(0, 1) < 0.2)) % 2
            for cx, cy, start in ((0, flip, 270 * flip), (1, 1 - flip, 180 - 90 * flip)):
                c.pie(x + cx * side, y + cy * side, side * 0.62, start, start + 90, c.ink(flip))
                c.pie(x + cx * side, y + cy * side, side * 0.36, start, start + 90, c.ink(2 + c.variant % 2))


def wreath(c: Canvas) -> None:
    """A ring of leaves and flowers."""
    d, num = c.dice, 14 + 2 * (c.variant % 6)
    radius = 0.27 + 0.015 * (c.variant % 4)
    for n in range(num):
        angle = math.tau * n / num + d.between(-0.06, 0.06)
        x, y = 0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)
        c.leaf(x, y, angle + 0.7 + 0.3 * (n % 2), d.between(0.09, 0.15), c.ink(n % 2))
    for n in range(3 + c.variant % 5):
        angle = math.tau * n / (3 + c.variant % 5) + d.between(-0.2, 0.2)
        x, y, size = 0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle), d.between(0.045, 0.065)
        for petal in range(5):
            turn = angle + math.tau * petal / 5
            c.disc(x + size * 0.6 * math.cos(turn), y + size * 0.6 * math.sin(turn), size * 0.5, c.ink(2))
        c.disc(x, y, size * 0.4, c.ink(3))


def folds(c: Canvas) -> None:
    """A fan of folded paper."""
    d, num = c.dice, 6 + c.variant
    x, y, radius = 0.5 + d.between(-0.1, 0.1), 0.62 + d.between(-0.06, 0.1), 0.42
    spread = math.pi * (0.8 + 0.3 * (c.variant % 4))
    start = -math.pi / 2 - spread / 2
    for n in range(num):
        a, b = start + spread * n / num, start + spread * (n + 1) / num
        middle, long = (a + b) / 2, radius * (1 if n % 2 else 0.86 + 0.03 * (c.variant % 4))
        tip = (x + long * math.cos(middle), y + long * math.sin(middle))
        ink = c.ink(n % (2 + c.variant % 2))
        c.shape([(x, y), (x + radius * 0.8 * math.cos(a), y + radius * 0.8 * math.sin(a)), tip], ink)
        far = (x + radius * 0.8 * math.cos(b), y + radius * 0.8 * math.sin(b))
        c.shape([(x, y), tip, far], mix(ink, (0, 0, 0), 0.16))
    c.disc(x, y, 0.03 + 0.005 * (c.variant % 4), c.ink(3))


COMPOSITIONS: dict[str, Callable[[Canvas], None]] = {
    function.__name__: function
    for function in (
        furniture, vessels, sprigs, quilt, garden, rounds, hills, arches,
        blocks, jewels, lamps, garments, moons, tiles, wreath, folds,
    )
}  # fmt: skip
"""Name -> how to draw it."""
