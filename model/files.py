"""Files that are whole or absent: written aside, flushed to the disk, renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

ASIDE = ".tmp-"  # what unfinished files and folders are called; anybody may remove them


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file: readers see the old bytes or the new ones, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f"{ASIDE}{path.name}.{os.getpid()}"
    try:
        aside.write_bytes(data)
        fsync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    fsync(path.parent)


def create_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new .npy file, mapped to be filled.

    Its room on the disk is taken at once: where there is none that is an OSError naming the file, while writing to a
    page for which there is no room kills the process.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot say
                path.unlink()
                raise OSError(error.errno, error.strerror, str(path)) from None
    return array


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong in safetensors while it writes a file is an OSError naming the file, as elsewhere."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


def fsync(path: Path) -> None:
    """Flush one file or one folder's names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush everything in a folder, then the folder."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync(Path(place) / name)
        fsync(Path(place))


def files_under(folder: Path) -> list[str]:
    """Names of all files in a folder and its folders, relative, with slashes, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def remove_folder(folder: Path) -> None:
    """Remove a folder; it is renamed first, so that nobody sees a part of it under its own name."""
    aside = folder.parent / f"{ASIDE}removed-{folder.name}"
    if aside.exists():
        shutil.rmtree(aside)
    folder.rename(aside)
    shutil.rmtree(aside)


def remove_leftovers(folder: Path) -> None:
    """Remove what unfinished writers left in a folder."""
    for path in folder.glob(f"{ASIDE}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
