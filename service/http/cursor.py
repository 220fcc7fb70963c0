"""Cursors: where the next page of a list starts. Opaque to clients; base64url of release, offset and a checksum.

The checksum ties a cursor to its query, so that it cannot continue another one by mistake. A cursor of an older release
goes on at its offset in the current one; each page says which release it is from.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NamedTuple

from service.http.errors import Problem

MAX_OFFSET = 10_000  # a list ends here: nobody pages through a whole catalogue by similarity


class Cursor(NamedTuple):
    """The release that the last page was from, and the position after it."""

    release: str
    offset: int


def encode_cursor(cursor: Cursor, query: tuple[object, ...]) -> str:
    """The cursor as clients see it; `query` is everything that the list depends on."""
    text = f"{cursor.offset}/{_checksum(cursor, query)}/{cursor.release}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(given: str, query: tuple[object, ...]) -> Cursor:
    """The cursor that `encode_cursor` made for the same query; raises Problem for any other text."""
    try:
        text = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True).decode("ascii")
        offset, checksum, release = text.split("/", 2)
        cursor = Cursor(release, int(offset))
    except (ValueError, binascii.Error):
        raise Problem("malformed-cursor", "use `next` of the page before as it is") from None
    if checksum != _checksum(cursor, query) or not 0 < cursor.offset < MAX_OFFSET:
        raise Problem("malformed-cursor", "keep everything but `limit` as it was on the page before")
    return cursor


def _checksum(cursor: Cursor, query: tuple[object, ...]) -> str:
    return hashlib.blake2b(repr((cursor, query)).encode(), digest_size=8).hexdigest()
