"""Checks of hnswlib's own file. The library believes every byte of it: a wrong count makes it write past its memory."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from model.errors import IndexDamaged
from model.files import sha256_file

# offset of level 0, max elements, elements, bytes per element, offset of label, offset of data, top level, entry
# point, max M, max M of level 0, M, level multiplier, ef_construction: as hnswlib 0.8 writes them on 64 bits.
_HEADER = struct.Struct("<6QiI3QdQ")
_LINK = 4  # bytes of a link, and of a count of links
_LABEL = 8


def check_index_file(path: Path, *, sha256: str, dim: int, num_items: int, m: int) -> None:
    """IndexDamaged unless the file has this checksum, and a header and a size that fit these counts."""
    try:
        found = sha256_file(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError as error:
        raise IndexDamaged(f"{path}: {error.strerror}") from error
    if found != sha256:
        raise IndexDamaged(f"{path}: checksum does not match")
    if len(head) < _HEADER.size:
        raise IndexDamaged(f"{path}: too short for a header")
    problem = _find_problem(_HEADER.unpack(head), size, dim, num_items, m)
    if problem:
        raise IndexDamaged(f"{path}: {problem}")


def _find_problem(header: tuple[float, ...], size: int, dim: int, num_items: int, m: int) -> str | None:
    level0, capacity, count, stride, label, data, top, entry, max_m, max_m0, own_m, mult, _ = header
    links = (2 * m + 1) * _LINK
    if count != num_items or capacity < count:
        return f"{count} items of at most {capacity}, not {num_items}"
    if (own_m, max_m, max_m0) != (m, m, 2 * m):
        return f"M is {own_m}, not {m}"
    if (level0, data, label, stride) != (0, links, links + 4 * dim, links + 4 * dim + _LABEL):
        return f"an item takes {stride} bytes, which is not that of dim {dim}"
    if not math.isclose(mult, 1 / math.log(m)) or not 0 <= top < 64 or entry >= count:
        return "entry point, levels or multiplier are out of range"
    upper = size - _HEADER.size - num_items * (stride + _LINK)
    if upper < 0 or upper % ((m + 1) * _LINK):
        return f"{size} bytes do not hold {num_items} items"
    return None
