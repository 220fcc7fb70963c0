"""Checks of hnswlib's own file.

The library believes every byte of it: a wrong count makes it write past its memory, a wrong link makes it read there.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numba import njit

from model.errors import IndexDamaged
from model.files import sha256_file

# offset of level 0, max elements, elements, bytes per element, offset of label, offset of data, top level, entry
# point, max M, max M of level 0, M, level multiplier, ef_construction: as hnswlib 0.8 writes them on 64 bits.
_HEADER = struct.Struct("<6QiI3QdQ")
_LINK = 4  # bytes of a link, and of a count of links
_LABEL = 8
_FINE, _BAD_LINKS, _BAD_LABEL, _BAD_LEVELS = range(4)
_PROBLEMS = {
    _BAD_LINKS: "an item has links to what is not there",
    _BAD_LABEL: "an item has the label of no row",
    _BAD_LEVELS: "the upper levels do not fit the header",
}


def check_index_file(path: Path, *, sha256: str, dim: int, num_items: int, m: int, num_rows: int) -> None:
    """IndexDamaged unless the file has this checksum, a header and a size that fit these counts, and sound links.

    num_items  items in the file
    num_rows   above all labels
    """
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
    header = _HEADER.unpack(head)
    problem = _find_problem(header, size, dim, num_items, m) or _find_bad_links(path, header, num_items, m, num_rows)
    if problem:
        raise IndexDamaged(f"{path}: {problem}")


def _find_problem(header: tuple[float, ...], size: int, dim: int, num_items: int, m: int) -> str | None:
    level0, capacity, count, stride, label, data, top, entry, max_m, max_m0, own_m, mult, _ = header
    links = (2 * m + 1) * _LINK
    if not count == capacity == num_items:
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


def _find_bad_links(path: Path, header: tuple[float, ...], num_items: int, m: int, num_rows: int) -> str | None:
    words = np.memmap(path, "<u4", mode="r", offset=_HEADER.size)
    stride, top, entry = (int(header[field]) for field in (3, 6, 7))
    return _PROBLEMS.get(_scan(np.asarray(words), num_items, stride // 4, m, top, entry, num_rows))


@njit(nogil=True, cache=True)
def _scan(words, num_items, stride, m, top, entry, num_rows):
    """Look at every link and label. `words` are the file after its header, four bytes each; so is the stride.

    An item is a row of links (their number, then room for 2m), its vector and its label. Behind all items come, for
    each, the number of bytes of its upper levels, then those: rows of links with room for m.
    """
    for item in range(num_items):
        start = item * stride
        count = words[start]  # its upper half marks deleted items, of which we have none
        if count > 2 * m:
            return _BAD_LINKS
        for i in range(1, count + 1):
            if words[start + i] >= num_items:
                return _BAD_LINKS
        if words[start + stride - 1] != 0 or words[start + stride - 2] >= num_rows:
            return _BAD_LABEL
    levels = np.zeros(num_items, np.int64)
    place = num_items * stride
    for item in range(num_items):
        if place >= len(words) or words[place] % (4 * (m + 1)) != 0:
            return _BAD_LEVELS
        levels[item] = words[place] // (4 * (m + 1))
        if levels[item] > top:
            return _BAD_LEVELS
        place += 1 + levels[item] * (m + 1)
    if place != len(words) or levels[entry] != top:
        return _BAD_LEVELS
    place = num_items * stride
    for item in range(num_items):
        for level in range(1, levels[item] + 1):
            start = place + 1 + (level - 1) * (m + 1)
            count = words[start]
            if count > m:
                return _BAD_LINKS
            for i in range(1, count + 1):
                if words[start + i] >= num_items or levels[words[start + i]] < level:
                    return _BAD_LINKS
        place += 1 + levels[item] * (m + 1)
    return _FINE
