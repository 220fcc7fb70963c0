"""Ids of pins or boards <-> rows, without a dict: ten million ids cost 120 MB in a file, and no time to open.

A table is the sorted 64-bit hashes of all ids and the row of each. A hash alone proves nothing, so every hit is
compared with the id itself, in the Arrow column that holds it anyway; ids of equal hash lie side by side and are
tried one after the other.

Letters: N ids in the table, Q ids looked up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.errors import ReleaseError, UserError

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class IdTable:
    """Looks up rows by id and ids by row.

    ids       the Arrow column of all ids, in row order
    hashes_N  uint64  hashes of the ids, ascending
    rows_N    int32   the row of each hash
    """

    ids: pa.ChunkedArray
    hashes_N: Hashes
    rows_N: npt.NDArray[np.int32]

    @classmethod
    def build(cls, ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> IdTable:
        """A table of ids in row order. Raises UserError when an id occurs twice or is missing."""
        column = _column(ids)
        if column.null_count:
            raise UserError(f"{column.null_count} of {len(column)} ids are missing")
        hashes_N = np.concatenate([_hash_many(chunk.to_pylist()) for chunk in column.chunks] or [_hash_many([])])
        rows_N = np.argsort(hashes_N, kind="stable").astype(np.int32)
        table = cls(column, hashes_N[rows_N], rows_N)
        table._check_unique()
        return table

    def save(self, folder: Path, name: str) -> None:
        """Write `<name>_hashes.npy` and `<name>_rows.npy`; the ids themselves are the caller's to keep."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}_hashes.npy", self.hashes_N)
        np.save(folder / f"{name}_rows.npy", self.rows_N)

    @classmethod
    def load(cls, folder: Path, name: str, ids: pa.Array | pa.ChunkedArray) -> IdTable:
        """Memory-map a saved table of just these ids.

        Raises ReleaseError, naming the file, when one is missing or does not fit the ids.
        """
        column = _column(ids)
        hashes_N = _open(folder / f"{name}_hashes.npy", np.dtype(np.uint64), len(column))
        rows_N = _open(folder / f"{name}_rows.npy", np.dtype(np.int32), len(column))
        if (hashes_N[1:] < hashes_N[:-1]).any():
            raise ReleaseError(f"{folder / f'{name}_hashes.npy'}: the hashes are not in ascending order")
        if len(rows_N) and not 0 <= rows_N.min() <= rows_N.max() < len(column):
            raise ReleaseError(f"{folder / f'{name}_rows.npy'}: rows outside 0..{len(column) - 1}")
        return cls(column, hashes_N, rows_N)

    def lookup(self, id: str) -> int:
        """The row of an id, or -1."""
        wanted = np.frombuffer(_digest(id), "<u8")[0]
        place = int(self.hashes_N.searchsorted(wanted))
        while place < len(self) and self.hashes_N[place] == wanted:
            row = int(self.rows_N[place])
            if self.ids[row].as_py() == id:
                return row
            place += 1
        return -1

    def lookup_many(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """The rows of many ids, (Q,) int64, -1 where there is none."""
        found_Q = np.full(len(ids), -1, np.int64)
        hashes_Q = _hash_many(ids)
        places_Q = np.minimum(self.hashes_N.searchsorted(hashes_Q), max(len(self) - 1, 0))
        if len(self) == 0:
            return found_Q
        maybe = np.flatnonzero(self.hashes_N[places_Q] == hashes_Q)
        rows = self.rows_N[places_Q[maybe]]
        for query, row, found in zip(maybe.tolist(), rows, self.ids_of(rows), strict=True):
            # A first hit of another id means equal hashes: look through all of them.
            found_Q[query] = row if found == ids[query] else self.lookup(ids[query])
        return found_Q

    def id_of(self, row: int) -> str:
        """The id of a row. Raises IndexError when there is no such row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} outside the {len(self)} rows of the table")
        id: str = self.ids[int(row)].as_py()
        return id

    def ids_of(self, rows: npt.ArrayLike) -> list[str]:
        """The ids of many rows. Raises IndexError when there is no such row."""
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows {wanted.min()}..{wanted.max()} outside the {len(self)} rows of the table")
        ids: list[str] = self.ids.take(pa.array(wanted)).to_pylist()
        return ids

    def __len__(self) -> int:
        return len(self.hashes_N)

    def __contains__(self, id: str) -> bool:
        return self.lookup(id) >= 0

    def _check_unique(self) -> None:
        """Ids of equal hash must be different ids."""
        seen: dict[str, int] = {}
        equal = np.flatnonzero(self.hashes_N[1:] == self.hashes_N[:-1])
        for row in self.rows_N[np.union1d(equal, equal + 1)].tolist():
            id = self.id_of(row)
            if id in seen:
                raise UserError(f"id {id!r} occurs twice, in rows {seen[id]} and {row}")
            seen[id] = row


def _column(ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> pa.ChunkedArray:
    if not isinstance(ids, pa.ChunkedArray):
        ids = pa.chunked_array([ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())])
    # Arrow cannot gather views yet; this copies the column into memory, other types stay where they are.
    return ids.cast(pa.large_string()) if ids.type == pa.string_view() else ids


def _hash_many(ids: Iterable[str]) -> Hashes:
    """The first eight bytes of BLAKE2b of each id. Also of strings that are no valid text: they are in no table."""
    return np.frombuffer(b"".join(map(_digest, ids)), dtype="<u8").astype(np.uint64)


def _digest(id: str) -> bytes:
    return hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8).digest()


def _open(path: Path, dtype: np.dtype[Any], length: int) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path}: cannot be read: {error}") from error
    if array.dtype != dtype or array.shape != (length,):
        raise ReleaseError(f"{path}: wanted {length} of {dtype}, found {array.dtype} of shape {array.shape}")
    return np.asarray(array)
