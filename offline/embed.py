"""Bulk embedding, layer by layer: every latent is computed once (paper, section 3.4).

Layer k first projects all pins to messages, then pools each pin's neighbours from them; nothing is computed again for
a pin that many others have as a neighbour. What is large lies in memory-mapped files.

Letters: P pins, C pins of a chunk, T neighbours, F features, H width of a latent, M message width, D embedding width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.errors import PinsageError
from model.inference import Inference
from model.walks import Neighborhoods
from offline.pooling import pool_rows
from offline.run_folder import RunFolder

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]


def embed_run(run: RunFolder, *, chunk: int, num_threads: int, progress: Progress) -> None:
    """Write messages, embeddings.npy and pin_ids.txt of a run. Raises PinsageError when a vector is not finite."""
    inference = Inference.load(run.train)
    features_PF = np.load(run.features, mmap_mode="r")
    neighborhoods = Neighborhoods(
        np.load(run.neighbor_ids, mmap_mode="r"), np.load(run.neighbor_weights, mmap_mode="r")
    )
    run.messages(0).parent.mkdir(parents=True, exist_ok=True)
    embed_all(
        inference,
        features_PF,
        neighborhoods,
        messages_path=run.messages,
        vectors_path=run.embeddings,
        chunk=chunk,
        num_threads=num_threads,
        progress=progress,
    )
    write_pin_ids(run)


def embed_all(
    inference: Inference,
    features_PF: Array,
    neighborhoods: Neighborhoods,
    *,
    messages_path: Callable[[int], Path],
    vectors_path: Path,
    chunk: int,
    num_threads: int,
    progress: Progress,
) -> None:
    """Compute all messages and unit vectors into .npy files; each file appears only when it is whole."""
    config, num_pins = inference.config, len(features_PF)
    latents_PH: Array = features_PF
    with ThreadPoolExecutor(num_threads) as threads:
        for layer in range(config.num_layers):
            messages_PM = _create(messages_path(layer), (num_pins, config.hidden_dim))
            for rows in _chunks(num_pins, chunk, progress, f"messages {layer + 1}"):
                messages_PM[rows] = inference.message(layer, np.asarray(latents_PH[rows], np.float32))
            _finish(messages_path(layer), messages_PM)
            next_path = vectors_path.with_name(f"latents_{layer}.npy")
            next_PH = _create(next_path, (num_pins, config.embed_dim))
            for rows in _chunks(num_pins, chunk, progress, f"convolve {layer + 1}"):
                ids_CT, weights_CT = neighborhoods.ids_BT[rows], neighborhoods.weights_BT[rows]
                pooled_CM = pool_rows(messages_PM, ids_CT, weights_CT, config.pooling, threads, num_threads)
                next_PH[rows] = inference.combine(layer, np.asarray(latents_PH[rows], np.float32), pooled_CM)
            latents_PH = next_PH
            _unfinished(next_path).unlink()  # the mapping keeps the bytes until the last reader lets go
    vectors_PD = _create(vectors_path, (num_pins, config.embed_dim))
    for rows in _chunks(num_pins, chunk, progress, "head"):
        vectors_CD = inference.head(np.asarray(latents_PH[rows], np.float32), np.asarray(features_PF[rows], np.float32))
        if not np.isfinite(vectors_CD).all():
            raise PinsageError(f"embedding: pins {rows.start} to {rows.stop - 1} have values that are not finite")
        vectors_PD[rows] = vectors_CD
    _finish(vectors_path, vectors_PD)


def write_pin_ids(run: RunFolder) -> None:
    """Write pin_ids.txt: one id a line, in the order of the embeddings."""
    with pa.memory_map(str(run.pins)) as source:
        ids = pa.ipc.open_file(source).read_all()["pin_id"]
        aside = run.pin_ids.with_suffix(".tmp")
        with aside.open("w") as file:
            for part in ids.chunks:
                file.writelines(f"{pin_id}\n" for pin_id in part.to_pylist())
    aside.replace(run.pin_ids)


def _chunks(num_pins: int, chunk: int, progress: Progress, phase: str) -> Iterator[slice]:
    for start in range(0, num_pins, chunk):
        yield slice(start, min(start + chunk, num_pins))
        progress(phase, min(1.0, (start + chunk) / num_pins))


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _create(path: Path, shape: tuple[int, int]) -> Array:
    array: Array = np.lib.format.open_memmap(_unfinished(path), mode="w+", dtype=np.float32, shape=shape)
    return array


def _finish(path: Path, array: Array) -> None:
    if isinstance(array, np.memmap):
        array.flush()
    os.replace(_unfinished(path), path)
