"""Text files as publishers left them: UTF-8, or Latin-1 where they are older than that."""

from __future__ import annotations

from pathlib import Path

from model.errors import DatasetError


def read_text(path: Path) -> str:
    """The whole file as text. Raises DatasetError where it is missing."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
