"""Writing a release: aside, flushed to the disk, renamed, manifest last. Nobody ever sees a part of one.

Shape letters: P pins, C pins of a chunk.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.errors import ReleaseError
from model.files import ASIDE, files_under, fsync, fsync_tree, remove_leftovers, sha256_file, write_atomic
from model.graph import BipartiteGraph
from model.halves import finite_rows, to_halves
from model.ids import IdTable
from model.index import read_params
from model.inference import read_network_config
from model.manifest import NAME, Manifest, describe_files
from model.release import read_arrow

CHUNK = 16_384
LOCK_SECONDS = 60.0
SPLITS = ("train", "valid", "test")

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class ReleaseParts:
    """Where the parts of a release are before they become one; all are copied, none is changed.

    config, network, weights     files of those names
    pins, boards                 Arrow files in row order, first column the id
    graph, encoder, index        folders
    features, visual, embeddings  .npy; visual only where the data set has it
    messages                     .npy of each layer
    pairs                        .npy by split
    held_out_edges               .npy of the edges that the graph lacks because pairs were made from them, if any
    related                      folder of the lists of related pins, if they were made
    """

    config: Path
    weights: Path
    network: Path
    pins: Path
    boards: Path
    graph: Path
    encoder: Path
    features: Path
    embeddings: Path
    messages: list[Path]
    index: Path
    visual: Path | None = None
    pairs: Mapping[str, Path] = field(default_factory=dict)
    held_out_edges: Path | None = None
    related: Path | None = None

    def files(self) -> dict[str, Path]:
        """What is copied as it is, by its name in the release."""
        named = {
            "config.json": self.config,
            "weights.safetensors": self.weights,
            "network.json": self.network,
            "pins.arrow": self.pins,
            "boards.arrow": self.boards,
            "embeddings.npy": self.embeddings,
            **{f"pairs_{split}.npy": path for split, path in self.pairs.items()},
        }
        if self.visual is not None:
            named["visual.npy"] = self.visual
        if self.held_out_edges is not None:
            named["held_out_edges.npy"] = self.held_out_edges
        folders = {"graph": self.graph, "encoder": self.encoder, "index": self.index}
        if self.related is not None:
            folders["related"] = self.related
        for name, folder in folders.items():
            named |= {f"{name}/{inner}": folder / inner for inner in files_under(folder)}
        return named

    def halved(self) -> dict[str, Path]:
        """What is stored as float16, by its name in the release; a copy where it is so already."""
        messages = {f"messages_{layer}.npy": path for layer, path in enumerate(self.messages)}
        return {"features.npy": self.features, **messages}


def write_release(
    root: Path,
    parts: ReleaseParts,
    *,
    dataset: str,
    quality: Mapping[str, float],
    seq: int = 0,
    parent: str | None = None,
    mode: str = "publish",
    report: Report = lambda text, share: None,
) -> Manifest:
    """Copy the parts into root/<new id> and describe them. The release is complete afterwards, but not the current one.

    ReleaseError or OSError when anything is missing, does not fit on the disk or cannot be stored; nothing of the
    release is left then.
    """
    with _only_writer(root):
        remove_leftovers(root)
        _remove_incomplete(root)
        release_id = _new_id(root)
        aside = root / f"{ASIDE}{release_id}"
        try:
            _copy_parts(aside, parts, report)
            report("checksums", 0.7)
            manifest = _describe(aside, release_id, dataset, quality, seq, parent, mode)
            report("flushing to the disk", 0.9)
            fsync_tree(aside)
            aside.rename(root / release_id)
            fsync(root)
            write_atomic(root / release_id / NAME, manifest.to_json())
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(root / release_id, ignore_errors=True)
            raise
    return manifest


@contextmanager
def _only_writer(root: Path) -> Iterator[None]:
    """One process at a time writes releases; ReleaseError when another does not finish."""
    root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    with (root / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ReleaseError(f"{root}: another process is writing a release") from None
                time.sleep(0.1)
        yield


def _new_id(root: Path) -> str:
    """A name after all others: one release a second, so that the order of names is the order of releases."""
    while True:
        name = time.strftime("r%Y%m%d-%H%M%S-", time.gmtime())
        if not any(root.glob(f"{name}*")):
            return name + secrets.token_hex(2)
        time.sleep(0.05)


def _remove_incomplete(root: Path) -> None:
    """A folder without a manifest is what a writer left that was killed between its last two steps."""
    for folder in root.glob("r*"):
        if folder.is_dir() and not (folder / NAME).exists():
            shutil.rmtree(folder)


def _copy_parts(aside: Path, parts: ReleaseParts, report: Report) -> None:
    copies, halves = parts.files(), parts.halved()
    missing = [str(path) for path in (*copies.values(), *halves.values()) if not path.is_file()]
    if missing:
        raise ReleaseError(f"{missing[0]}: missing; a release cannot be written without it")
    needed = sum(path.stat().st_size for path in (*copies.values(), *halves.values()))
    aside.mkdir(parents=True)
    if shutil.disk_usage(aside).free < needed:
        raise ReleaseError(f"{aside.parent}: {needed:,} bytes are needed, {shutil.disk_usage(aside).free:,} are free")
    done = 0
    for name, source in (*copies.items(), *halves.items()):
        report(f"copying {name}", 0.6 * done / max(needed, 1))
        target = aside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in halves:
            _copy_as_float16(source, target)
        else:
            shutil.copyfile(source, target)
        done += source.stat().st_size
    report("id tables", 0.6)
    for kind in ("pins", "boards"):
        IdTable.build(read_arrow(aside / f"{kind}.arrow").column(0)).save(aside / "ids", kind)


def _copy_as_float16(source: Path, target: Path) -> None:
    """Written as a plain file: a full disk is an error here, but kills a process that writes through a mapping."""
    array = np.load(source, mmap_mode="r", allow_pickle=False)
    form = {"descr": "<f2", "fortran_order": False, "shape": array.shape}
    with target.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, form)
        for start in range(0, len(array), CHUNK):
            chunk = np.asarray(array[start : start + CHUNK])
            chunk = chunk if chunk.dtype == np.float16 else to_halves(chunk)  # too large becomes infinite
            if not finite_rows(chunk).all():
                raise ReleaseError(f"{source}: rows from {start} on hold numbers that float16 cannot")
            file.write(chunk.tobytes())


def _describe(
    aside: Path,
    release_id: str,
    dataset: str,
    quality: Mapping[str, float],
    seq: int,
    parent: str | None,
    mode: str,
) -> Manifest:
    graph = BipartiteGraph.load(aside / "graph")
    network = read_network_config(aside / "network.json")
    params = read_params(aside / "index")
    return Manifest(
        id=release_id,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        dataset=dataset,
        num_pins=graph.num_pins,
        num_boards=graph.num_boards,
        num_edges=graph.num_edges,
        num_features=network.num_features,
        hidden_dim=network.hidden_dim,
        embed_dim=network.embed_dim,
        num_layers=network.num_layers,
        metric="inner product of unit vectors",
        m=params.m,
        ef_construction=params.ef_construction,
        ef=params.ef,
        model_hash=sha256_file(aside / "weights.safetensors"),
        seq=seq,
        parent=parent,
        mode=mode,
        files=describe_files(aside, files_under(aside)),
        quality=dict(quality),
    )
