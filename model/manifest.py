"""The manifest of a release: what is in it, and the checksum of every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from model.errors import ReleaseError
from model.files import sha256_file

FORMAT = 1
NAME = "manifest.json"
INDEX_FOLDER = "index/"  # the one part that can be made again from the rest
DESCRIPTION = f"{INDEX_FOLDER}index.json"
RELEASE_ID = re.compile(r"r\d{8}-\d{6}-[0-9a-f]{4}")


@dataclass(frozen=True)
class FileInfo:
    """Length and checksum of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a release is.

    num_*, hidden_dim, embed_dim  shapes of its arrays
    metric, m, ef_construction, ef  how its index was built and is queried
    model_hash  SHA-256 of the weights: equal for releases that one training made
    seq         the last online change that the release includes
    parent      the release that it was made from, where there was one
    mode        publish, or the mode of the reindex job: index, embed, train
    files       every file but the manifest, by name with slashes
    quality     figures taken before it was published, such as index_recall
    checksum    of all the others, made when it is written
    """

    id: str
    created_at: str
    dataset: str
    num_pins: int
    num_boards: int
    num_edges: int
    num_features: int
    hidden_dim: int
    embed_dim: int
    num_layers: int
    metric: str
    m: int
    ef_construction: int
    ef: int
    model_hash: str
    seq: int
    parent: str | None
    mode: str
    files: dict[str, FileInfo]
    quality: dict[str, float]
    format: int = FORMAT
    checksum: str = ""

    def to_json(self) -> bytes:
        """The bytes of the file."""
        document = dataclasses.asdict(self)
        return json.dumps({**document, "checksum": checksum_of(document)}, indent=1).encode() + b"\n"


def checksum_of(document: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's fields, whatever its own checksum says."""
    fields = {name: value for name, value in document.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release; ReleaseError naming the file when it is missing, damaged or of another format."""
    path = folder / NAME
    if path.is_symlink() or not path.is_file():
        raise ReleaseError(f"{path}: missing, or not a plain file")
    try:
        value = json.loads(path.read_bytes())
        found = value["format"]
        if found != FORMAT:
            raise ReleaseError(f"{path}: format {found}, but this program reads format {FORMAT}")
        if checksum_of(value) != value["checksum"]:
            raise ReleaseError(f"{path}: damaged, it does not have the checksum that it names")
        files = {name: FileInfo(**info) for name, info in value.pop("files").items()}
        manifest = Manifest(files=files, **value)
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{path}: damaged: {error!r}") from None
    _check_fields(path, manifest)
    if manifest.id != folder.name:
        raise ReleaseError(f"{path}: is of release {manifest.id}, not {folder.name}")
    return manifest


def _check_fields(path: Path, manifest: Manifest) -> None:
    types = {"int": int, "str": str, "str | None": str | None, "dict[str, float]": dict, "dict[str, FileInfo]": dict}
    for field in dataclasses.fields(Manifest):
        value: Any = getattr(manifest, field.name)
        if not isinstance(value, types[str(field.type)]) or isinstance(value, bool):
            raise ReleaseError(f"{path}: damaged: {field.name} is {value!r}")
    for name, info in manifest.files.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or name == NAME or type(info.bytes) is not int:
            raise ReleaseError(f"{path}: damaged: files has {name!r}")


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, FileInfo]:
    """Length and checksum of files in a folder."""
    return {name: FileInfo((folder / name).stat().st_size, sha256_file(folder / name)) for name in names}


def check_files(folder: Path, manifest: Manifest, *, hashes: bool) -> None:
    """ReleaseError naming the first file that is missing, a link, of another length or, with `hashes`, other content.

    The index is left out: see `check_index`.
    """
    for name, info in manifest.files.items():
        if not name.startswith(INDEX_FOLDER):
            _check_file(folder, name, info, hashes=hashes)


def check_index(folder: Path, manifest: Manifest) -> None:
    """As `check_files` for the index, but of its content only the description is compared: it has the checksums of the
    others, which whoever loads the index looks at."""
    described = {name: info for name, info in manifest.files.items() if name.startswith(INDEX_FOLDER)}
    if DESCRIPTION not in described:
        raise ReleaseError(f"{folder / NAME}: names no index")
    for name, info in described.items():
        _check_file(folder, name, info, hashes=name == DESCRIPTION)


def _check_file(folder: Path, name: str, info: FileInfo, *, hashes: bool) -> None:
    path = folder / name
    # A link may lead to what never ends.
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise ReleaseError(f"{path}: missing")
    if path.stat().st_size != info.bytes:
        raise ReleaseError(f"{path}: {path.stat().st_size} bytes, but the manifest says {info.bytes}")
    if hashes and sha256_file(path) != info.sha256:
        raise ReleaseError(f"{path}: damaged, its checksum is not the one in the manifest")
