"""Half precision: the same bits as NumPy gives, which converts by the book."""

from __future__ import annotations

import numpy as np

from model.halves import finite_rows, to_floats, to_halves


def test_every_half_becomes_the_float_that_it_is() -> None:
    halves_NW = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    np.testing.assert_array_equal(to_floats(halves_NW), halves_NW.astype(np.float32))


def test_floats_are_rounded_to_the_nearest_half() -> None:
    rng = np.random.default_rng(0)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2  # ties go to the even one
    spread = np.exp2(rng.uniform(-30, 15.9, 10_000)).astype(np.float32)
    x_N = np.concatenate([halves, middles, spread])
    x_NW = np.stack([x_N, -x_N])
    np.testing.assert_array_equal(to_halves(x_NW), x_NW.astype(np.float16))


def test_too_large_becomes_infinite_and_nothing_gets_lost() -> None:
    x_NW = np.array([[65504, 65536, -1e9, np.inf, np.nan]], np.float32)
    np.testing.assert_array_equal(to_halves(x_NW), [[65504, np.inf, -np.inf, np.inf, np.nan]])


def test_rows_and_columns_picked_from_an_array_are_converted() -> None:
    x_NW = np.random.default_rng(1).standard_normal((20, 8)).astype(np.float32)
    np.testing.assert_array_equal(to_halves(x_NW[::3, 1:6]), x_NW[::3, 1:6].astype(np.float16))
    np.testing.assert_array_equal(to_floats(to_halves(x_NW)[5:5]), np.empty((0, 8), np.float32))


def test_rows_that_are_not_finite_are_found() -> None:
    halves_NW = np.array([[1, -65504], [np.inf, 0], [0, -np.inf], [np.nan, 1], [0, 6e-8]], np.float16)
    assert finite_rows(halves_NW).tolist() == [True, False, False, False, True]
