"""Publishing: a finished run becomes the current release, or nothing changes.

Gates first, then the folder, then the vectors in Redis, then the pointer; what is old goes last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from redis import Redis, RedisError

from model import keyspace
from model.changes import ensure_epoch
from model.errors import IndexDamaged, PinsageError, UserError
from model.exact import check_unit
from model.files import remove_folder
from model.index import AnnIndex, recall
from model.inference import read_network_config
from model.manifest import Manifest
from model.redis_clients import sync_client
from model.redis_server import open_redis
from model.release import current, list_releases, open_release, read_arrow, remove_old, set_current
from model.release_writer import SPLITS, ReleaseParts, write_release
from offline.embedding.collapse import check_collapse
from offline.progress import Report, silent
from offline.release.vectors_to_redis import drop_vectors, releases_with_vectors, write_vectors
from offline.run_folder import RunFolder
from offline.stages import read_dataset_path

MIN_RECALL = 0.9
RECALL_SAMPLE = 500
CHUNK = 16_384

Gate = Callable[[AnnIndex, NDArray[Any]], dict[str, float]]


def publish_run(
    run: RunFolder,
    home: Path,
    *,
    redis: Redis | None = None,
    seq: int = 0,
    parent: str | None = None,
    mode: str = "publish",
    dataset: str | None = None,
    gate: Gate = lambda index, vectors_PD: {},
    before_flip: Callable[[], None] = lambda: None,
    progress: Report = silent,
) -> Manifest:
    """Make a run the current release of a home.

    redis        a client to use; the home's own Redis is opened when there is none
    seq          the last online change that the run includes
    dataset      what the release is said to be made from; the run's data set when not given
    gate         one more look at the index and its vectors; gives figures for the manifest, or raises
    before_flip  called just before the pointer moves; may raise to stop it

    Raises PinsageError when a gate is not passed or anything cannot be written; the current release stays then, and
    nothing of the new one is left.
    """
    with ExitStack() as stack:
        if redis is None:
            redis = stack.enter_context(sync_client(stack.enter_context(open_redis(home))))
        parts = release_parts(run)
        progress("checking the run", 0.0)
        quality = check_quality(parts, gate)
        root = home / "releases"
        manifest = write_release(
            root,
            parts,
            dataset=dataset or str(read_dataset_path(run)),
            quality=quality,
            seq=seq,
            parent=parent or current(root),
            mode=mode,
            report=lambda text, share: progress(text, 0.1 + 0.4 * share),
        )
        _go_live(root, redis, manifest, parts, before_flip, progress)
    progress("published", 1.0)
    return manifest


def _go_live(
    root: Path,
    redis: Redis,
    manifest: Manifest,
    parts: ReleaseParts,
    before_flip: Callable[[], None],
    progress: Report,
) -> None:
    """Vectors into Redis, then the pointer; where anything fails, nothing of the release is left."""
    before = current(root)
    try:
        open_release(root, manifest.id).load()  # what the service will do: a release that it refuses never goes live
        _write_vectors(redis, manifest, parts, lambda text, share: progress(text, 0.5 + 0.4 * share))
        # A Redis that was emptied or restored must not give changes numbers that a release counts as its own.
        ensure_epoch(redis, after=max(known.seq for known in list_releases(root)))
        before_flip()
        set_current(root, manifest.id)
    except BaseException as error:
        _undo(root, redis, manifest.id)
        if isinstance(error, RedisError):
            raise PinsageError(f"the release could not be written to Redis: {error}") from error
        raise
    progress("removing old releases", 0.95)
    _remove_old(root, redis, before)


def release_parts(run: RunFolder) -> ReleaseParts:
    """The parts of a finished run. Raises UserError when it is not finished."""
    if not (run.index / "index.json").exists() or not run.embeddings.exists():
        raise UserError(f"{run.path}: not a finished run; make one with: pinsage run DATASET --run {run.path}")
    num_layers = read_network_config(run.network).num_layers
    return ReleaseParts(
        config=run.config,
        weights=run.weights,
        network=run.network,
        pins=run.pins,
        boards=run.boards,
        graph=run.graph,
        encoder=run.encoder,
        features=run.features,
        embeddings=run.embeddings,
        messages=[run.messages(layer) for layer in range(num_layers)],
        index=run.index,
        visual=run.visual if run.visual.exists() else None,
        pairs={split: run.pairs(split) for split in SPLITS if run.pairs(split).exists()},
        held_out_edges=run.held_out_edges if run.held_out_edges.exists() else None,
        related=run.related if run.related.exists() else None,
    )


def check_quality(parts: ReleaseParts, gate: Gate) -> dict[str, float]:
    """Figures of a run that may be published. Raises PinsageError naming the gate that it does not pass.

    Gates: one row everywhere for every pin; vectors finite and of unit length; random pins that are not all alike; an
    index that is whole and finds nine of ten true neighbours.
    """
    num_pins = read_arrow(parts.pins).num_rows
    for path in (parts.embeddings, parts.features, *parts.messages, *([parts.visual] if parts.visual else [])):
        rows = np.load(path, mmap_mode="r").shape[0]
        if rows != num_pins:
            raise PinsageError(f"{path}: {rows:,} rows for {num_pins:,} pins")
    vectors_PD = np.load(parts.embeddings, mmap_mode="r")
    try:
        for start in range(0, num_pins, CHUNK):
            check_unit(vectors_PD[start : start + CHUNK], start)
    except ValueError as error:
        raise PinsageError(f"{parts.embeddings}: {error}") from error
    check_collapse(vectors_PD, num_prior=read_network_config(parts.network).num_prior)
    try:
        index = AnnIndex.load(parts.index, vectors_PD)
    except IndexDamaged as error:
        raise PinsageError(f"the index does not fit the embeddings; run the index stage again: {error}") from error
    found = recall(index, vectors_PD, sample=RECALL_SAMPLE, k=50, seed=0)
    if found < MIN_RECALL:
        raise PinsageError(f"the index finds {found:.1%} of the true neighbours; {MIN_RECALL:.0%} are wanted")
    return {"index_recall": round(found, 4), **gate(index, vectors_PD)}


def _write_vectors(redis: Redis, manifest: Manifest, parts: ReleaseParts, report: Report) -> None:
    ids: pa.ChunkedArray = read_arrow(parts.pins)["pin_id"]
    write_vectors(redis, manifest.id, ids.to_pylist(), np.load(parts.embeddings, mmap_mode="r"), report)


def _undo(root: Path, redis: Redis, release_id: str) -> None:
    """Remove a release that did not become the current one. What Redis keeps goes with the next publication."""
    if (root / release_id).exists():
        remove_folder(root / release_id)
    try:
        drop_vectors(redis, release_id)
    except RedisError:
        return


def _remove_old(root: Path, redis: Redis, before: str | None) -> None:
    """Keep the live release and the one that was live before, their vectors, and the changes since the older of them.

    Not the newest ones: a publisher that was killed may have left one that was never live, and no way back to ours.
    """
    remove_old(root, [before])
    kept = list_releases(root)
    for release_id in releases_with_vectors(redis) - {manifest.id for manifest in kept}:
        drop_vectors(redis, release_id)
    oldest = min(manifest.seq for manifest in kept)
    if oldest:
        redis.xtrim(keyspace.CHANGES, minid=f"{oldest}-0", approximate=True)
