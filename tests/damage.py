"""Damages to a release, each made from a number, and a look at what then comes of opening it.

Run as a program, `damage.py HOME OTHER SCRATCH NUMBER …` damages a copy of HOME's release once for each number and
prints a line of JSON: what was damaged, and whether the release was rejected or answers as before. A signal ends the
program, and the line is missing. OTHER is a home with another release of the same shapes.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.changes import PinRecord
from model.errors import ReleaseError
from model.files import sha256_file
from model.manifest import NAME, checksum_of, describe_files
from model.release import Release, current, open_release, read_arrow
from service.live.catalogue import Catalogue

HEADER_FIELDS = 13  # of hnswlib's file
SEALED_SHARE = 0.4  # of the damages that a checksum does not give away


class Damage:
    """One damage of one file of a release's folder; `name` and `kind` say which."""

    def __init__(self, folder: Path, other: Path, number: int) -> None:
        self.folder, self.other = folder, other
        self.random = random.Random(number)
        self.kind, make = self.random.choice(KINDS)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        self.name = self.random.choice(files)
        self.sealed = make in SEALABLE and self.random.random() < SEALED_SHARE
        make(self)
        if self.sealed:
            self.seal()

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def choose(self, *patterns: str) -> None:
        """Damage a file of these names."""
        found = sorted(path for pattern in patterns for path in self.folder.glob(pattern))
        self.name = self.random.choice(found).relative_to(self.folder).as_posix()

    def seal(self) -> None:
        """Make all checksums right again, as somebody would who does it on purpose."""
        index = self.folder / "index" / "index.json"
        if self.name.startswith("index/") and self.path != index:
            about = json.loads(index.read_text())
            about["sha256"][self.path.name] = sha256_file(self.path)
            index.write_text(json.dumps(about))
        document = json.loads((self.folder / NAME).read_text())
        names = document["files"].keys()
        document["files"] = {name: vars(info) for name, info in describe_files(self.folder, names).items()}
        write_sealed(self.folder / NAME, document)


def write_sealed(path: Path, document: dict[str, Any]) -> None:
    """A manifest with the checksum that it should have."""
    document["checksum"] = checksum_of(document)
    path.write_text(json.dumps(document))


def flip(damage: Damage) -> None:
    data = bytearray(damage.path.read_bytes())
    for _ in range(damage.random.choice((1, 1, 1, 8))):
        data[damage.random.randrange(len(data))] ^= 1 << damage.random.randrange(8)
    damage.path.write_bytes(data)


def flip_in_json(damage: Damage) -> None:
    """Where no checksum of another file looks, and where numbers have a meaning."""
    damage.choose("*.json", "index/*.json", "encoder/*.json")
    flip(damage)


def cut(damage: Damage) -> None:
    data = damage.path.read_bytes()
    damage.path.write_bytes(data[: damage.random.randrange(len(data))])


def grow(damage: Damage) -> None:
    with damage.path.open("ab") as file:
        file.write(damage.random.randbytes(damage.random.randrange(1, 5_000)))


def blot(damage: Damage) -> None:
    """A block of the disk is zero, or something else."""
    data = bytearray(damage.path.read_bytes())
    start = damage.random.randrange(len(data))
    size = min(4_096, len(data) - start)
    data[start : start + size] = bytes(size) if damage.random.random() < 0.5 else damage.random.randbytes(size)
    damage.path.write_bytes(data)


def lose(damage: Damage) -> None:
    damage.path.unlink()


def link(damage: Damage) -> None:
    damage.path.unlink()
    damage.path.symlink_to(damage.random.choice(["/dev/zero", "/etc/hostname", str(damage.other / damage.name)]))


def replace_by_folder(damage: Damage) -> None:
    damage.path.unlink()
    damage.path.mkdir()


def change_shape(damage: Damage) -> None:
    """An array of another width, length or type."""
    damage.choose("*.npy", "graph/*.npy", "ids/*.npy", "encoder/*.npy", "index/*.npy")
    array = np.load(damage.path)
    ways: list[Callable[[Any], Any]] = [
        lambda a: a[:-1],
        lambda a: np.concatenate([a, a[-1:]]) if len(a) else np.zeros((1, *a.shape[1:]), a.dtype),
        lambda a: a[..., :-1] if a.ndim > 1 else a[:, None],
        lambda a: np.concatenate([a, a], axis=-1),
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.int8),
        lambda a: a[:0],
        lambda a: np.asfortranarray(a).T,
    ]
    with np.errstate(all="ignore"):
        np.save(damage.path, damage.random.choice(ways)(array))


def change_table(damage: Damage) -> None:
    damage.choose("*.arrow")
    table = read_arrow(damage.path)
    column = damage.random.randrange(table.num_columns)
    ways: list[Callable[[Any], Any]] = [
        lambda t: t.slice(1),
        lambda t: pa.concat_tables([t, t]),
        lambda t: t.drop_columns([t.column_names[column]]),
        lambda t: t.set_column(column, t.column_names[column], pa.array(range(t.num_rows))),
    ]
    changed = damage.random.choice(ways)(table)
    damage.path.unlink()
    with pa.OSFile(str(damage.path), "wb") as file, pa.ipc.new_file(file, changed.schema) as writer:
        writer.write_table(changed)


def craft_header(damage: Damage) -> None:
    """One field of the index's header says something else, such as more items than there are."""
    damage.choose("index/index.bin")
    data = bytearray(damage.path.read_bytes())
    layout = "<6QiI3QdQ"
    fields = list(struct.unpack_from(layout, data))
    at = damage.random.randrange(HEADER_FIELDS - 1)  # the last, ef_construction, has no meaning for queries
    if at == 11:
        fields[at] = damage.random.choice([0.0, float("nan"), 1e300, -1.0])
    else:
        value = int(fields[at])
        bits = 31 if at in (6, 7) else 63
        fields[at] = damage.random.choice([0, 1, value + 1, value - 1 if value else 7, 2 * value + 3, 2**bits - 1])
        if fields[at] == value:
            fields[at] = value + 2
    struct.pack_into(layout, data, 0, *fields)
    damage.path.write_bytes(data)


def swap_with_other(damage: Damage) -> None:
    """A file of another release of the same shapes."""
    shutil.copyfile(damage.other / damage.name, damage.path)


def swap_within(damage: Damage) -> None:
    """Two files of one release have changed places."""
    files = sorted(path for path in damage.folder.rglob("*") if path.is_file() and path != damage.path)
    second = damage.random.choice(files)
    one, two = damage.path.read_bytes(), second.read_bytes()
    damage.path.write_bytes(two)
    second.write_bytes(one)


def swap_index(damage: Damage) -> None:
    """The whole index of another release, in itself without a fault."""
    damage.name = "index/index.bin"
    shutil.rmtree(damage.folder / "index")
    shutil.copytree(damage.other / "index", damage.folder / "index")


def change_manifest(damage: Damage) -> None:
    """A number of the manifest is another one, and nothing else shows it."""
    damage.name = NAME
    document = json.loads(damage.path.read_text())
    names = [name for name, value in document.items() if isinstance(value, int | str) and name != "checksum"]
    name = damage.random.choice(names)
    value = document[name]
    document[name] = value + damage.random.choice([-1, 1, 10**9]) if isinstance(value, int) else value[:-1]
    damage.path.write_text(json.dumps(document))


KINDS: list[tuple[str, Callable[[Damage], None]]] = [
    (make.__name__.replace("_", " "), make)
    for make in (
        *(flip, flip, flip, flip_in_json, cut, cut, blot, blot, grow, lose, link, replace_by_folder),
        *(change_shape, change_shape, change_table, craft_header, craft_header),
        *(swap_with_other, swap_within, swap_index, change_manifest),
    )
]
SEALABLE = (change_shape, change_table, craft_header, swap_index)


def answers(release: Release) -> dict[str, Any]:
    """Whatever is made of a release: names, texts, vectors, neighbours, a new pin."""
    catalogue = Catalogue(release, max_live_pins=100)
    datetime.fromisoformat(release.manifest.created_at)
    vectors_PD = np.asarray(release.embeddings_PD)
    found = catalogue.search(vectors_PD[::7], 10)
    walked = [catalogue.neighbors(row) for row in range(0, release.manifest.num_pins, 11)]
    shown = [catalogue.describe(row) for row in range(release.manifest.num_pins)]
    catalogue.apply(PinRecord("new", "word1 word2", ("word3",), visual=(0.5,) * 12, boards=("b1", "b2")))
    new_1D = catalogue.vectors(catalogue.rows(["new"]))
    return {
        "seq": release.manifest.seq,
        "created_at": release.manifest.created_at,
        "shown": shown,
        "boards": [release.boards["title"][row].as_py() for row in range(release.manifest.num_boards)],
        "found": np.sort(found.rows_QK, axis=1).tolist(),
        "scores": found.scores_QK.round(4).tolist(),
        "walked": [ids_T.tolist() for ids_T, _ in walked],
        "new": new_1D.round(3).tolist(),
    }


def try_out(home: Path, other: Path, scratch: Path, number: int, right: dict[str, Any]) -> dict[str, Any]:
    """Damage a copy and open it: what came out; `right` are the answers of the release as it was."""
    root, release_id = home / "releases", current(home / "releases")
    assert release_id is not None
    copy = scratch / "releases"
    shutil.copytree(root, copy)
    other_id = current(other / "releases")
    assert other_id is not None
    damage = Damage(copy / release_id, other / "releases" / other_id, number)
    about = {"number": number, "kind": damage.kind, "file": damage.name, "sealed": damage.sealed}
    try:
        try:
            release = open_release(copy, release_id).load()
        except ReleaseError as error:
            return {**about, "outcome": "rejected", "error": str(error)}
        except Exception as error:
            return {**about, "outcome": "not recognised", "error": repr(error)}
        try:
            same = answers(release) == right
        except Exception as error:
            return {**about, "outcome": "failed", "error": repr(error)}
        return {**about, "outcome": "same" if same else "different"}
    finally:
        shutil.rmtree(scratch)


def main(home: str, other: str, scratch: str, *numbers: str) -> None:
    root = Path(home) / "releases"
    right = answers(open_release(root, current(root) or "").load())
    for number in numbers:
        print(json.dumps(try_out(Path(home), Path(other), Path(scratch), int(number), right)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
