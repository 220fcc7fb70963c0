"""Arrays on disk that are filled front to back in several steps, and go on where a killed process stopped.

Each array grows beside its final name. A note says how far they are, and is written only after the rows are on the
disk: what is noted is never computed again, and a file with its final name is always whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offline.run_folder import fingerprint

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Note:
    """Where an interrupted process notes what it has done.

    path    the note's file; whoever has used the arrays removes it
    inputs  hash of all that the arrays' values depend on; the note of other inputs is ignored
    """

    path: Path
    inputs: str


class PartialArrays:
    """Float32 arrays of equally many rows, found by their final paths; without a note they always start empty.

    step, rows  all steps before `step` are done, and this many rows of it
    whole       nothing is left to do: the arrays have their final names
    """

    def __init__(
        self, kept: Mapping[Path, int], scratch: Mapping[Path, int], num_rows: int, *, note: Note | None = None
    ) -> None:
        """Open the arrays (widths by paths) that the note says are there, or make empty ones.

        Raises OSError when the disk has no room for them.
        """
        self._kept, self._scratch, self._note = list(kept), list(scratch), note
        widths = {**kept, **scratch}
        self._inputs = fingerprint(note.inputs if note else "", num_rows, list(widths.values()))
        self.step, self.rows, self.whole = self._read_note()
        self._arrays: dict[Path, Array] = {}
        if self.whole and all(path.exists() or _aside(path).exists() for path in kept):
            self._rename()
        elif (self.step or self.rows) and all(_aside(path).exists() for path in widths):
            self._arrays = {path: _open(_aside(path)) for path in widths}
        else:
            self.step, self.rows, self.whole = 0, 0, False
            self._arrays = {path: _create(_aside(path), (num_rows, width)) for path, width in widths.items()}

    def __getitem__(self, path: Path) -> Array:
        return self._arrays[path]

    def record(self, step: int, rows: int, changed: Iterable[Path] = ()) -> None:
        """Note what is done, once the changed arrays' rows are on the disk."""
        self.step, self.rows = step, rows
        if self._note is None:
            return
        for path in changed:
            self._arrays[path].flush()  # type: ignore[attr-defined]
        noted = {"inputs": self._inputs, "step": step, "rows": rows, "whole": self.whole}
        aside = self._note.path.with_suffix(".new")
        aside.write_text(json.dumps(noted))
        aside.replace(self._note.path)

    def finish(self) -> None:
        """Give the arrays to keep their names, drop the others."""
        self.whole = True
        self.record(self.step, self.rows)
        self._arrays.clear()
        self._rename()

    def _rename(self) -> None:
        for path in filter(lambda path: _aside(path).exists(), self._kept):
            _aside(path).replace(path)
        for path in self._scratch:
            _aside(path).unlink(missing_ok=True)

    def _read_note(self) -> tuple[int, int, bool]:
        try:
            noted = json.loads(self._note.path.read_text()) if self._note else {}
            same = noted["inputs"] == self._inputs
            return (noted["step"], noted["rows"], noted["whole"]) if same else (0, 0, False)
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0, False


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _create(path: Path, shape: tuple[int, int]) -> Array:
    array: Array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    with path.open("r+b") as file:  # a full disk is an error here, but a SIGBUS when a page of a sparse file is written
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _open(path: Path) -> Array:
    array: Array = np.lib.format.open_memmap(path, mode="r+")
    return array
