"""Bytes in Redis: packed vectors and packed records, each with a version and a checksum.

    vector  <B version> <B dtype> <H dim> <I crc32 of the data> data
    record  <B version> <I crc32 of the data> JSON

What comes out of Redis is not trusted: lengths are checked before anything is decoded.
Shape letters: N vectors, D width.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

VECTOR_VERSION = 1
RECORD_VERSION = 1
MAX_DIM = 65_535

_VECTOR_HEAD = struct.Struct("<BBHI")
_RECORD_HEAD = struct.Struct("<BI")
_DTYPES: dict[int, np.dtype[np.floating[Any]]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
_CODES = {"f4": 0, "f2": 1}


class DamagedBytes(ValueError):
    """Bytes are not what our encoder writes."""


def pack_vectors(vectors_ND: NDArray[np.floating[Any]], dtype: str = "f4") -> list[bytes]:
    """One packed vector a row; dtype is "f4" or "f2". ValueError for anything not finite."""
    if vectors_ND.ndim != 2 or not 1 <= vectors_ND.shape[1] <= MAX_DIM:
        raise ValueError(f"vectors must be (N, 1..{MAX_DIM}), not {vectors_ND.shape}")
    code = _CODES[dtype]
    # A value too large for float16 turns into inf, which the check below refuses: no need of NumPy's warning.
    with np.errstate(over="ignore"):
        data_ND = np.ascontiguousarray(vectors_ND, dtype=_DTYPES[code])
    if not np.isfinite(data_ND).all():
        raise ValueError(f"a vector holds values that are not finite in {dtype}")
    width = data_ND.shape[1]
    rows = (row.tobytes() for row in data_ND)
    return [_VECTOR_HEAD.pack(VECTOR_VERSION, code, width, zlib.crc32(data)) + data for data in rows]


def pack_vector(vector_D: NDArray[np.floating[Any]], dtype: str = "f4") -> bytes:
    """One vector as bytes."""
    return pack_vectors(np.atleast_2d(vector_D), dtype)[0]


def unpack_vector(packed: bytes) -> NDArray[np.float32]:
    """The vector, float32 (D,); DamagedBytes when anything about the bytes is wrong."""
    if len(packed) < _VECTOR_HEAD.size:
        raise DamagedBytes(f"a vector of {len(packed)} bytes has no header")
    version, code, dim, crc = _VECTOR_HEAD.unpack_from(packed)
    if version != VECTOR_VERSION or code not in _DTYPES or dim == 0:
        raise DamagedBytes(f"unknown vector format: version {version}, dtype {code}, dim {dim}")
    data = packed[_VECTOR_HEAD.size :]
    if len(data) != dim * _DTYPES[code].itemsize:
        raise DamagedBytes(f"a vector of dim {dim} has {len(data)} bytes of data")
    if zlib.crc32(data) != crc:
        raise DamagedBytes("checksum of a vector does not match")
    vector_D: NDArray[np.float32] = np.frombuffer(data, dtype=_DTYPES[code]).astype(np.float32)
    if not np.isfinite(vector_D).all():
        raise DamagedBytes("a vector holds values that are not finite")
    return vector_D


def pack_json(value: dict[str, Any]) -> bytes:
    """A JSON object as a checked record."""
    data = orjson.dumps(value)
    return _RECORD_HEAD.pack(RECORD_VERSION, zlib.crc32(data)) + data


def unpack_json(packed: bytes) -> dict[str, Any]:
    """The object of a checked record; DamagedBytes when anything about the bytes is wrong."""
    if len(packed) < _RECORD_HEAD.size:
        raise DamagedBytes(f"a record of {len(packed)} bytes has no header")
    version, crc = _RECORD_HEAD.unpack_from(packed)
    if version != RECORD_VERSION:
        raise DamagedBytes(f"unknown record format: version {version}")
    data = packed[_RECORD_HEAD.size :]
    if zlib.crc32(data) != crc:
        raise DamagedBytes("checksum of a record does not match")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DamagedBytes(f"a record is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DamagedBytes("a record is not a JSON object")
    return value
