"""Keys and scopes. Whether a caller may is decided on the route that was matched, never on the text of a path.

A key is `name:scope:key`; read < write < admin. Only digests are kept, each presented key is compared with every one of
them in constant time, and neither is ever logged. Without keys the service is open, so it then binds to loopback only
and turns away browsers that come from elsewhere: a page on the web could otherwise post to it behind the user's back.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from model.errors import UserError
from service.http.errors import Problem


class Scope(IntEnum):
    """What a caller may do; a higher scope includes the lower ones."""

    READ = 1
    WRITE = 2
    ADMIN = 3


class Key(NamedTuple):
    """A known key: who, what for, and the SHA-256 of the secret."""

    name: str
    scope: Scope
    digest: bytes


def parse_keys(given: str | None) -> list[Key]:
    """Keys from `name:scope:key`, several by commas, or from a file of such lines (# starts a comment).

    Raises UserError naming the entry by number and name, never its secret.
    """
    if given is None or not given.strip():
        return []
    entries = given.split(",") if ":" in given else _lines(Path(given.strip()).expanduser())
    keys = [_parse_key(number, entry.strip()) for number, entry in enumerate(entries, 1) if entry.strip()]
    if not keys:
        raise UserError("PINSAGE_KEYS holds no key; a key is written name:scope:key")
    return keys


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"PINSAGE_KEYS is neither name:scope:key nor a readable file of them ({type(error).__name__})"
        ) from None
    return [entry for line in lines if not line.lstrip().startswith("#") for entry in line.split(",")]


def _parse_key(number: int, entry: str) -> Key:
    name, *rest = entry.split(":", 2)
    if len(rest) != 2 or not name or not rest[1]:
        raise UserError(f"PINSAGE_KEYS, entry {number}: a key is written name:scope:key")
    if rest[0].upper() not in Scope.__members__:
        raise UserError(f"PINSAGE_KEYS, entry {number} ({name}): the scope is one of read, write, admin")
    return Key(name, Scope[rest[0].upper()], _digest(rest[1]))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Gate:
    """Decides whether the caller of a request has a scope."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    @property
    def is_open(self) -> bool:
        """No keys are set: everybody who reaches the service may do everything."""
        return not self._keys

    def check(self, headers: Mapping[str, str], needed: Scope) -> Key | None:
        """The key that opens, None where none is needed.

        Raises Problem: cross-site, unauthorized (no or an unknown key) or forbidden (too low a scope).
        """
        if self.is_open:
            _refuse_other_sites(headers)
            return None
        found = [self._identify(secret) for secret in _presented(headers)]
        known = [key for key in found if key is not None]
        if len(known) < max(1, len(found)):
            raise Problem(
                "unauthorized",
                "send Authorization: Bearer KEY or X-API-Key: KEY",
                headers={"www-authenticate": 'Bearer realm="pinsage"'},
            )
        key = max(known, key=lambda key: key.scope)
        if key.scope < needed:
            raise Problem("forbidden", f"{needed.name.lower()} is needed; the key has {key.scope.name.lower()}")
        return key

    def _identify(self, secret: str) -> Key | None:
        digest = _digest(secret)
        matches = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        return max(matches, key=lambda key: key.scope, default=None)


def _presented(headers: Mapping[str, str]) -> list[str]:
    """Every secret that was sent; one that is wrong is not made good by another that is right."""
    secrets = []
    if "authorization" in headers:
        scheme, _, secret = headers["authorization"].partition(" ")
        secrets.append(secret.strip() if scheme.lower() == "bearer" else "")
    if "x-api-key" in headers:
        secrets.append(headers["x-api-key"])
    return secrets


def _refuse_other_sites(headers: Mapping[str, str]) -> None:
    """Where everything is open: no calls by pages of other sites, and none through a name that somebody else's DNS gave
    this machine (rebinding)."""
    host, origin = headers.get("host", ""), headers.get("origin")
    foreign_page = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if foreign_page or (origin is not None and origin.partition("://")[2] != host) or not _is_local_name(host):
        raise Problem("cross-site", "set PINSAGE_KEYS to call from other sites or under a public name")


@lru_cache(1_000)
def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return "." not in name or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_binding(host: str, keys: list[Key]) -> None:
    """Raises UserError where the service would be open to other machines."""
    if keys or host == "localhost":
        return
    if not _is_address(host) or not ipaddress.ip_address(host).is_loopback:
        raise UserError(
            f"others can reach {host}, and no keys are set: set PINSAGE_KEYS=name:scope:key, or bind to 127.0.0.1"
        )
