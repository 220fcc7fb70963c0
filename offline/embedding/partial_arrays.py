"""Arrays on disk that are filled front to back in several steps, and go on where a killed process stopped.

Each array grows beside its final name, and a file with its final name is always whole. A note says how far they are:
what is noted is not computed again after a kill, since the operating system has the rows. After a crash of the machine
only those count that were forced to the disk, which happens aside while more is computed; the note says that as well.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.files import create_array
from offline.run_folder import fingerprint

Array = npt.NDArray[Any]

NOTHING = (0, 0, (0, 0), False)


class Column(NamedTuple):
    """Width and type of an array's rows."""

    width: int
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Note:
    """Where an interrupted process notes what it has done.

    path    the note's file; whoever has used the arrays removes it
    inputs  hash of all that the arrays' values depend on; the note of other inputs is ignored
    """

    path: Path
    inputs: str


class PartialArrays:
    """Arrays of equally many rows, found by their final paths; without a note they always start empty.

    step, rows  all steps before `step` are done, and this many rows of it
    whole       nothing is left to do: the arrays have their final names
    """

    def __init__(
        self, kept: Mapping[Path, Column], scratch: Mapping[Path, Column], num_rows: int, *, note: Note | None = None
    ) -> None:
        """Open the arrays that the note says are there, or make empty ones.

        Raises OSError when the disk has no room for them.
        """
        self._kept, self._scratch, self._note = list(kept), list(scratch), note
        columns = {**kept, **scratch}
        self._inputs = fingerprint(note.inputs if note else "", num_rows, list(columns.values()))
        self.step, self.rows, self._on_disk, self.whole = self._read_note()
        self._unforced = set(columns)
        self._helper = ThreadPoolExecutor(1, "force-to-disk")
        self._forcing: Future[tuple[int, int]] | None = None
        self._arrays: dict[Path, Array] = {}
        if self.whole and all(path.exists() or _aside(path).exists() for path in kept):
            self._rename()
        elif (self.step or self.rows) and all(_aside(path).exists() for path in columns):
            self._arrays = {path: _open(_aside(path)) for path in columns}
        else:
            self.step, self.rows, self._on_disk, self.whole = NOTHING
            self._arrays = {path: _create(_aside(path), num_rows, column) for path, column in columns.items()}

    def __getitem__(self, path: Path) -> Array:
        return self._arrays[path]

    def write(self, path: Path, start: int, x_BW: Array) -> None:
        """Fill rows from `start` on: as a file is written, which spares the page faults of assigning to the array.

        Raises OSError when the disk fails.
        """
        array = self._arrays[path]
        assert isinstance(array, np.memmap)
        assert (array.shape[1:], array.dtype) == (x_BW.shape[1:], x_BW.dtype)
        with _aside(path).open("r+b") as file:
            file.seek(array.offset + start * array.strides[0])
            file.write(np.ascontiguousarray(x_BW).data)

    def record(self, step: int, rows: int, changed: Iterable[Path] = ()) -> None:
        """Note what is done, and which arrays it changed. Raises OSError when the disk fails."""
        self.step, self.rows = step, rows
        if self._note is None:
            return
        self._unforced.update(changed)
        if self._forcing is None or self._forcing.done():
            self._on_disk = self._forcing.result() if self._forcing else self._on_disk
            self._forcing = self._helper.submit(self._force, list(self._unforced), step, rows)
            self._unforced.clear()
        self._write_note()

    def finish(self) -> None:
        """Give the arrays to keep their names, drop the others. Raises OSError when the disk fails."""
        if self._note is not None:
            self._helper.shutdown()
            self._on_disk = self._force(list(self._arrays), self.step, self.rows)
            self.whole = True
            self._write_note()
        self._arrays.clear()
        self._rename()

    def _force(self, paths: list[Path], step: int, rows: int) -> tuple[int, int]:
        for path in paths:
            with _aside(path).open("r+b") as file:  # not the array's flush(), during which no other thread runs
                os.fsync(file.fileno())
        return step, rows

    def _write_note(self) -> None:
        assert self._note is not None
        place = {"step": self.step, "rows": self.rows, "on_disk": self._on_disk, "whole": self.whole}
        aside = self._note.path.with_suffix(".new")
        aside.write_text(json.dumps({"inputs": self._inputs, "start": machine_start(), **place}))
        aside.replace(self._note.path)

    def _rename(self) -> None:
        for path in filter(lambda path: _aside(path).exists(), self._kept):
            _aside(path).replace(path)
        for path in self._scratch:
            _aside(path).unlink(missing_ok=True)

    def _read_note(self) -> tuple[int, int, tuple[int, int], bool]:
        try:
            noted = json.loads(self._note.path.read_text()) if self._note else {}
            if noted["inputs"] != self._inputs:
                return NOTHING
            step, rows = (noted["step"], noted["rows"]) if noted["start"] == machine_start() else noted["on_disk"]
            return step, rows, tuple(noted["on_disk"]), noted["whole"]
        except (OSError, ValueError, KeyError, TypeError):
            return NOTHING


def machine_start() -> str:
    """The same as long as the operating system keeps what processes wrote; where that is unknown, always another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex()


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _create(path: Path, num_rows: int, column: Column) -> Array:
    shape = (num_rows, column.width)
    return create_array(path, column.dtype, shape)


def _open(path: Path) -> Array:
    array: Array = np.lib.format.open_memmap(path, mode="r+")
    return array
