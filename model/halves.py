"""Half precision (IEEE float16): what messages are stored in, on the disk, in releases and between machines.

The processor converts sixteen numbers at a time; NumPy converts one by one and takes a hundred times as long.
float16 rather than bfloat16: both are converted equally fast, and its rounding error is an eighth. What it cannot hold
(more than 65504) becomes infinite, and whoever stores it has to look for that.

Letters: N rows, W width.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]

_NOT_FINITE = 0x7C00  # the exponent of infinities and of what is no number


def to_halves(x_NW: Floats) -> Halves:
    """(N, W) float16, rounded to nearest; infinite where a number is too large."""
    x_NW = np.ascontiguousarray(x_NW, np.float32)
    halves_NW = np.empty(x_NW.shape, np.float16)
    _to_halves(x_NW.ravel(), halves_NW.view(np.uint16).ravel())
    return halves_NW


def to_floats(halves_NW: Halves) -> Floats:
    """(N, W) float32, exactly."""
    halves_NW = np.ascontiguousarray(halves_NW, np.float16)
    x_NW = np.empty(halves_NW.shape, np.float32)
    _to_floats(halves_NW.view(np.uint16).ravel(), x_NW.ravel())
    return x_NW


def floats_of(x: npt.NDArray[Any]) -> Floats:
    """The same numbers as float32, whichever of the two types they are stored in."""
    return to_floats(x) if x.dtype == np.float16 else np.asarray(x, np.float32)


def finite_rows(halves_NW: Halves) -> npt.NDArray[np.bool_]:
    """(N,) whether all of a row's numbers are finite."""
    exponents_NW = bits_of(halves_NW) & np.uint16(_NOT_FINITE)
    finite_N: npt.NDArray[np.bool_] = (exponents_NW != _NOT_FINITE).all(1)
    return finite_N


def bits_of(halves: Halves) -> npt.NDArray[np.uint16]:
    """The same memory as integers: compiled loops take no float16."""
    bits: npt.NDArray[np.uint16] = np.asarray(halves).view(np.uint16)
    return bits


@intrinsic
def _float_of(typing_context: Any, bits: Any) -> Any:
    """In compiled code: the float32 of a float16's bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _half_of(typing_context: Any, number: Any) -> Any:
    """In compiled code: the bits of a float32's nearest float16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


# Names whose types are left open: an intrinsic is called with one argument fewer than it is written with.
float_of: Any = _float_of
half_of: Any = _half_of


_FLOATS, _BITS = (types.Array(number, 1, "C", readonly=True) for number in (types.float32, types.uint16))


@numba.njit(types.void(_FLOATS, types.uint16[::1]), nogil=True, cache=True)  # compiled now, not at a first request
def _to_halves(x_N, bits_N):
    for n in range(len(x_N)):
        bits_N[n] = half_of(x_N[n])


@numba.njit(types.void(_BITS, types.float32[::1]), nogil=True, cache=True)
def _to_floats(bits_N, x_N):
    for n in range(len(bits_N)):
        x_N[n] = float_of(bits_N[n])
