"""Releases: folders that never change, and one pointer to the live one.

    releases/CURRENT           name of the live release, the only pointer
    releases/<id>/             a release (what is in it: model/release_writer.py and model/manifest.py)
    releases/.cache/<id>/      an index that had to be built again because the release's own is damaged

Shape letters: P pins, F features, M message width, D embedding width, V visual width, N pairs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.config import NetworkConfig, WalkConfig
from model.errors import IndexDamaged, ReleaseError
from model.features import FeatureEncoder
from model.files import ASIDE, remove_folder, write_atomic
from model.graph import BipartiteGraph
from model.ids import IdTable
from model.index import AnnIndex, IndexParams
from model.inference import Inference
from model.manifest import NAME, RELEASE_ID, Manifest, check_files, check_index, read_manifest
from model.related_lists import RelatedLists, open_related_lists

POINTER = "CURRENT"
CACHE = ".cache"
TOUCHED = 65_536  # of so many bytes one is read: the system maps the pages around it, too

logger = logging.getLogger(__name__)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_texts(kind: Any) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type)


_TEXTS = ("pin_id", "title", "description", "image_url", "category", "language")
COLUMNS = {  # what tables must have
    "pins.arrow": {
        **dict.fromkeys(_TEXTS, _is_text),
        "annotations": _is_texts,
        "created_at": pa.types.is_integer,
    },
    "boards.arrow": {"board_id": _is_text, "title": _is_text},
}


class Release:
    """A release that was opened and checked. Everything large is memory-mapped, at its first use.

    Safe to share between threads once `load` was called. The files may be removed while it is in use.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    def load(self) -> Release:
        """Open everything now, so that a later use neither waits nor fails; ReleaseError naming the file that does."""
        for name in ("pins", "boards", "pin_ids", "board_ids", "graph", "encoder", "network", "walks"):
            getattr(self, name)
        _ = self.features_PF, self.visual_PV, self.messages, self.embeddings_PD, self.index, self.related_lists
        return self

    def touch(self) -> None:
        """Bring what a new pin's vector is made from into memory, where all of it fits into half of the machine's: or
        else the first pins wait for the disk a hundred times, once for each neighbour."""
        arrays: list[NDArray[Any]] = [*self.messages, self.features_PF, self.embeddings_PD, *self.graph.arrays]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if 2 * sum(array.nbytes for array in arrays) < memory:
            for array in arrays:
                array.reshape(-1).view(np.uint8)[::TOUCHED].max(initial=0)

    @cached_property
    def pins(self) -> Any:
        """Arrow table: pin_id, title, annotations, description, image_url, category, language, created_at."""
        return self._table("pins.arrow", self.manifest.num_pins)

    @cached_property
    def boards(self) -> Any:
        """Arrow table: board_id, title."""
        return self._table("boards.arrow", self.manifest.num_boards)

    @cached_property
    def pin_ids(self) -> IdTable:
        return IdTable.load(self.folder / "ids", "pins", self.pins["pin_id"])

    @cached_property
    def board_ids(self) -> IdTable:
        return IdTable.load(self.folder / "ids", "boards", self.boards["board_id"])

    @cached_property
    def graph(self) -> BipartiteGraph:
        graph = BipartiteGraph.load(self.folder / "graph")
        counts = (self.manifest.num_pins, self.manifest.num_boards, self.manifest.num_edges)
        if (graph.num_pins, graph.num_boards, graph.num_edges) != counts:
            raise ReleaseError(f"{self.folder / 'graph'}: not a graph of {counts} pins, boards and edges")
        return graph

    @cached_property
    def encoder(self) -> FeatureEncoder:
        encoder = FeatureEncoder.load(self.folder / "encoder")
        if encoder.num_features != self.manifest.num_features:
            raise ReleaseError(f"{self.folder / 'encoder'}: {encoder.num_features} features, not those of the release")
        return encoder

    @cached_property
    def network(self) -> Inference:
        network = Inference.load(self.folder)
        self._check_network(network.config)
        return network

    def _check_network(self, config: NetworkConfig) -> None:
        for name in ("num_features", "hidden_dim", "embed_dim", "num_layers"):
            if getattr(config, name) != getattr(self.manifest, name):
                raise ReleaseError(f"{self.folder / 'network.json'}: {name} is not the one in the manifest")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the run that the release was made from."""
        path = self.folder / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ReleaseError(f"{path}: {error}") from error
        return config

    @cached_property
    def walks(self) -> WalkConfig:
        """How the neighbourhoods were drawn that the network was trained on."""
        try:
            return WalkConfig(**self.config["walks"])
        except (KeyError, TypeError) as error:
            raise ReleaseError(f"{self.folder / 'config.json'}: walks: {error!r}") from error

    @cached_property
    def features_PF(self) -> NDArray[np.float16]:
        return self._array("features.npy", np.float16, self.manifest.num_features)

    @cached_property
    def messages(self) -> list[NDArray[np.float16]]:
        """(P, M) of each layer."""
        names = [f"messages_{layer}.npy" for layer in range(self.manifest.num_layers)]
        return [self._array(name, np.float16, self.manifest.hidden_dim) for name in names]

    @cached_property
    def embeddings_PD(self) -> NDArray[np.float32]:
        return self._array("embeddings.npy", np.float32, self.manifest.embed_dim)

    @cached_property
    def related_lists(self) -> RelatedLists | None:
        """The nearest pins of every pin, where they were listed when the release was made."""
        if "related/rows.npy" not in self.manifest.files:
            return None
        return open_related_lists(self.folder / "related", self.manifest.num_pins)

    @cached_property
    def visual_PV(self) -> NDArray[np.float32] | None:
        """Raw visual vectors, where the data set had them."""
        return self._array("visual.npy", np.float32, None) if "visual.npy" in self.manifest.files else None

    def pairs(self, split: str) -> NDArray[np.int32] | None:
        """(N, 2) rows of query and related pin of a split, where the run had it."""
        return self._pairs_of_rows(f"pairs_{split}.npy")

    @cached_property
    def held_out_edges(self) -> NDArray[np.int32]:
        """(N, 2) rows of pin and board, by pin: edges that are true, but not in the graph, as pairs come from them.

        Nothing is served from them; the next data set has them again.
        """
        edges_N2 = self._pairs_of_rows("held_out_edges.npy")
        return np.empty((0, 2), np.int32) if edges_N2 is None else edges_N2

    def _pairs_of_rows(self, name: str) -> NDArray[np.int32] | None:
        if name not in self.manifest.files:
            return None
        pairs_N2: NDArray[np.int32] = _open_array(self.folder / name)
        if pairs_N2.ndim != 2 or pairs_N2.shape[1] != 2:
            raise ReleaseError(f"{self.folder / name}: shape {pairs_N2.shape}, not (N, 2)")
        return pairs_N2

    @cached_property
    def index(self) -> AnnIndex:
        """The index; built again from the embeddings, beside the releases, when it is damaged."""
        try:
            check_index(self.folder, self.manifest)
            return AnnIndex.load(self.folder / "index", self.embeddings_PD)
        except (IndexDamaged, ReleaseError) as error:
            logger.warning("%s; looking for one that was built again", error)
        aside = self.folder.parent / CACHE / self.id
        try:
            return AnnIndex.load(aside, self.embeddings_PD)
        except IndexDamaged:
            return self._rebuild_index(aside)

    def _rebuild_index(self, aside: Path) -> AnnIndex:
        m = self.manifest
        logger.warning("building the index of release %s again", self.id)
        params = IndexParams(m.embed_dim, m.num_pins, m.m, m.ef_construction, m.ef)
        index = AnnIndex.build(self.embeddings_PD, params, num_threads=os.cpu_count() or 1)
        unfinished = aside.with_name(f"{ASIDE}{self.id}-{os.getpid()}")
        try:
            index.save(unfinished)
            shutil.rmtree(aside, ignore_errors=True)
            unfinished.rename(aside)
        except OSError as error:  # the next start will have to build it again
            logger.warning("cannot keep the index: %s", error)
            shutil.rmtree(unfinished, ignore_errors=True)
        return index

    def _table(self, name: str, num_rows: int) -> Any:
        table = read_arrow(self.folder / name)
        if table.num_rows != num_rows:
            raise ReleaseError(f"{self.folder / name}: {table.num_rows} rows, but the manifest says {num_rows}")
        for column, check in COLUMNS[name].items():
            if column not in table.column_names or not check(table.schema.field(column).type):
                raise ReleaseError(f"{self.folder / name}: no column {column}, or of another type")
        return table

    def _array(self, name: str, dtype: type[np.generic], width: int | None) -> NDArray[Any]:
        array = _open_array(self.folder / name)
        shape = (self.manifest.num_pins, array.shape[-1] if width is None else width)
        if array.dtype != dtype or array.shape != shape:
            raise ReleaseError(f"{self.folder / name}: {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
        return array


def read_arrow(path: Path) -> Any:
    """An Arrow file as a memory-mapped table; ReleaseError naming the file when it cannot be read."""
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException) as error:
        raise ReleaseError(f"{path}: {error}") from error


def _open_array(path: Path) -> NDArray[Any]:
    try:
        # Without the memmap class, whose every slice costs a microsecond more; the bytes stay where they are.
        array: NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    return array


def open_release(root: Path, release_id: str, *, verify: bool = True) -> Release:
    """Open a release; with `verify` every byte is compared with its checksum.

    ReleaseError naming the file that is missing, damaged or of another format. A damaged index is no error: it is
    built again when it is first used.
    """
    if not RELEASE_ID.fullmatch(release_id):
        raise ReleaseError(f"{root}: {release_id!r} is no name of a release")
    folder = root / release_id
    if not folder.is_dir():
        raise ReleaseError(f"{folder}: there is no such release")
    manifest = read_manifest(folder)
    check_files(folder, manifest, hashes=verify)
    return Release(folder, manifest)


def current(root: Path) -> str | None:
    """The live release, or None before the first one was published; ReleaseError when the pointer is damaged."""
    path = root / POINTER
    try:
        release_id = path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    if not RELEASE_ID.fullmatch(release_id):
        raise ReleaseError(f"{path}: holds no name of a release")
    return release_id


def set_current(root: Path, release_id: str) -> None:
    """Make a complete release the live one; ReleaseError when it is not complete."""
    open_release(root, release_id, verify=False)
    write_atomic(root / POINTER, f"{release_id}\n".encode())


def list_releases(root: Path) -> list[Manifest]:
    """All complete releases, oldest first. A damaged manifest is logged and left out."""
    manifests = []
    for path in sorted(root.glob(f"r*/{NAME}")):
        try:
            manifests.append(read_manifest(path.parent))
        except ReleaseError as error:
            logger.warning("%s", error)
    return manifests


def remove_old(root: Path, keep: Collection[str | None]) -> list[str]:
    """Remove all releases but the live one and those to keep; the names of those removed.

    Whoever has one open may go on using it.
    """
    kept = {current(root), *keep}
    removed = [manifest.id for manifest in list_releases(root) if manifest.id not in kept]
    for release_id in removed:
        remove_folder(root / release_id)
        shutil.rmtree(root / CACHE / release_id, ignore_errors=True)
    return removed
