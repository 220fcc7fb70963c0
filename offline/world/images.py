"""Pictures of the synthetic world, and the visual vectors computed from them.

A vector is a fixed random projection of what a small vision front end would see: how much of which color there is,
which way edges run in each part (histograms of oriented gradients, Dalal & Triggs 2005), and a coarse thumbnail.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from offline.world.canvas import Canvas, Color, Dice
from offline.world.compositions import COMPOSITIONS
from offline.world.vocabulary import STYLES, SUBJECTS

# Legend: N pictures, S side of a thumbnail, C colors, D visual dimensions, F raw descriptors.

Array = npt.NDArray[Any]

SIDE = 256
OVERSAMPLING = 2  # drawn larger and averaged down: smooth edges
THUMB = 32
NUM_DICE = 96
NUM_VARIANTS = 12
PROJECTION_SEED = 1729
COLOR_LEVELS, CELLS, ANGLES, GRID = 4, 4, 8, 8
NUM_RAW = COLOR_LEVELS**3 + CELLS * CELLS * ANGLES + GRID * GRID * 3


def draw_picture(
    subject: int, style: int, variant: int, numbers: Sequence[float]
) -> tuple[Image.Image, npt.NDArray[np.uint8]]:
    """The picture of one pin (256 x 256) and its thumbnail (S, S, 3).

    `subject` and `style` are positions in SUBJECTS and STYLES; `numbers` are NUM_DICE uniform numbers, the pin's own.
    """
    dice = Dice(numbers)
    ground, *inks = (_jittered(color, dice) for color in _palette(style))
    side = SIDE * OVERSAMPLING
    large = Image.new("RGB", (side, side), ground)
    canvas = Canvas(ImageDraw.Draw(large), side, ground, tuple(inks), variant, dice)
    COMPOSITIONS[SUBJECTS[subject].composition](canvas)
    return large.reduce(OVERSAMPLING), np.asarray(large.reduce(side // THUMB))


@cache
def _palette(style: int) -> tuple[Color, ...]:
    return tuple((int(h[:2], 16), int(h[2:4], 16), int(h[4:], 16)) for h in STYLES[style].palette)


def _jittered(color: Color, dice: Dice) -> Color:
    """The color a little lighter or darker, warmer or cooler."""
    light, warm = dice.between(-14, 14), dice.between(-8, 8)
    red, green, blue = color
    return _byte(red + light + warm), _byte(green + light), _byte(blue + light - warm)


def _byte(value: float) -> int:
    return min(max(round(value), 0), 255)


def visual_vectors(thumbs_NSSC: npt.NDArray[np.uint8], dim: int) -> Array:
    """Visual vectors (N, D) of thumbnails."""
    pixels = thumbs_NSSC.astype(np.float32) / 255
    raw_NF = np.concatenate([_colors(thumbs_NSSC), _edges(pixels.mean(axis=3)), _thumbnail(pixels)], axis=1)
    vectors: Array = raw_NF @ _projection(NUM_RAW, dim)
    return vectors


def _colors(thumbs_NSSC: npt.NDArray[np.uint8]) -> Array:
    """Square roots of the shares of COLOR_LEVELS^3 colors."""
    num = len(thumbs_NSSC)
    level = thumbs_NSSC.reshape(num, -1, 3).astype(np.int64) * COLOR_LEVELS // 256
    code = (level[..., 0] * COLOR_LEVELS + level[..., 1]) * COLOR_LEVELS + level[..., 2]
    return _histograms(code, np.ones(code.shape, dtype=np.float32), COLOR_LEVELS**3)


def _edges(gray_NSS: npt.NDArray[Any]) -> Array:
    """Square roots of the shares of edge strength by cell and direction."""
    dy, dx = np.gradient(gray_NSS, axis=(1, 2))
    strength = np.hypot(dx, dy)
    angle = (np.arctan2(dy, dx) % np.pi * (ANGLES / np.pi)).astype(np.int64) % ANGLES
    cell = np.arange(THUMB) * CELLS // THUMB
    code = (cell[:, None] * CELLS + cell[None, :])[None] * ANGLES + angle
    num = len(gray_NSS)
    return _histograms(code.reshape(num, -1), strength.reshape(num, -1), CELLS * CELLS * ANGLES)


def _histograms(code: npt.NDArray[np.int64], weight: Array, num_bins: int) -> Array:
    num = len(code)
    keys = (code + np.arange(num)[:, None] * num_bins).ravel()
    counts = np.bincount(keys, weights=weight.ravel(), minlength=num * num_bins).reshape(num, num_bins)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
    roots: Array = np.sqrt(shares).astype(np.float32)
    return roots


def _thumbnail(pixels_NSSC: Array) -> Array:
    num, block = len(pixels_NSSC), THUMB // GRID
    small = pixels_NSSC.reshape(num, GRID, block, GRID, block, 3).mean(axis=(2, 4)).reshape(num, -1)
    centred: Array = (small - small.mean(axis=1, keepdims=True)) / GRID
    return centred


@cache
def _projection(num_raw: int, dim: int) -> Array:
    rng = np.random.default_rng([PROJECTION_SEED, num_raw, dim])
    matrix: Array = (rng.standard_normal((num_raw, dim)) / np.sqrt(dim)).astype(np.float32)
    return matrix


def simulated_vectors(
    subjects_N: npt.NDArray[np.int64],
    styles_N: npt.NDArray[np.int64],
    variants_N: npt.NDArray[np.int64],
    rng: np.random.Generator,
    dim: int,
) -> Array:
    """Visual vectors (N, D) of pictures that were never drawn: from palette, subject and variant, with noise."""
    colors = np.array([_palette(style) for style in range(len(STYLES))], dtype=np.float32) / 255
    parts: tuple[Array, ...] = (
        colors.reshape(len(STYLES), -1)[styles_N],
        np.eye(len(SUBJECTS), dtype=np.float32)[subjects_N],
        np.float32(0.5) * np.eye(NUM_VARIANTS, dtype=np.float32)[variants_N],
    )
    raw = np.concatenate(parts, axis=1)
    noise = rng.standard_normal((len(raw), dim), dtype=np.float32) * np.float32(0.6 / np.sqrt(dim))
    vectors: Array = raw @ _projection(raw.shape[1], dim) + noise
    return vectors
