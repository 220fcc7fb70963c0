"""Bulk embedding on one machine: every latent is computed once (paper, section 3.4).

Step by step (embed_step.py) over all pins, chunk by chunk; threads share a chunk's blocks, each small enough
for a processor's cache. What is large lies in memory-mapped files, messages in half precision as a release has them,
and finished chunks survive a kill.

Letters: P pins, B pins of a block, F features, M message width, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model.halves import floats_of
from model.inference import Inference
from model.walks import Neighborhoods
from offline.embedding.embed_step import check_finite, inputs_hash, output_column, read_inputs, take_step
from offline.embedding.partial_arrays import Column, Note, PartialArrays
from offline.embedding.pooling import pool_rows
from offline.run_folder import RunFolder

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]

BLOCK = 1024


def embed_run(run: RunFolder, *, chunk: int, num_threads: int, progress: Progress) -> None:
    """Write messages, embeddings.npy and pin_ids.txt of a run; goes on where a killed process stopped.

    Raises PinsageError when a value is not finite, OSError when the disk is full.
    """
    inference, features_PF, neighborhoods = read_inputs(run)
    run.messages(0).parent.mkdir(parents=True, exist_ok=True)
    note = Note(run.messages(0).with_name("progress.json"), inputs_hash(run))
    embed_all(
        inference,
        features_PF,
        neighborhoods,
        messages_path=run.messages,
        vectors_path=run.embeddings,
        chunk=chunk,
        num_threads=num_threads,
        progress=progress,
        note=note,
    )
    write_pin_ids(run)
    note.path.unlink(missing_ok=True)


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
    note: Note | None = None,
) -> None:
    """Compute all messages and unit vectors into .npy files; they appear together, when all of them are whole.

    Raises PinsageError when a value is not finite, OSError when the disk is full.
    """
    bulk = _Bulk(inference, features_PF, neighborhoods, messages_path, vectors_path, note)
    num_pins, num_steps, arrays = len(features_PF), inference.config.num_layers + 1, bulk.arrays
    if arrays.whole:
        return
    with ThreadPoolExecutor(num_threads) as threads, threadpool_limits(1, user_api="blas"):
        for step in range(arrays.step, num_steps):
            for chunk_rows in _parts(arrays.rows, num_pins, chunk):
                blocks = _parts(chunk_rows.start, chunk_rows.stop, _block_size(chunk_rows, num_threads))
                for job in [threads.submit(bulk.compute, step, rows) for rows in blocks]:
                    job.result()
                arrays.record(step, chunk_rows.stop, bulk.written(step))
                progress(f"layer {step} of {num_steps - 1}", (step + chunk_rows.stop / num_pins) / num_steps)
            arrays.record(step + 1, 0)
    arrays.finish()


class _Bulk:
    """What a bulk embedding reads and writes; any thread may compute any block of a step."""

    def __init__(
        self,
        inference: Inference,
        features_PF: Array,
        neighborhoods: Neighborhoods,
        messages_path: Callable[[int], Path],
        vectors_path: Path,
        note: Note | None,
    ) -> None:
        config = inference.config
        self._inference, self._features_PF, self._neighborhoods = inference, features_PF, neighborhoods
        self._outputs = [*map(messages_path, range(config.num_layers)), vectors_path]
        self._latents = {step: vectors_path.with_name(f"latents_{step}.npy") for step in range(1, config.num_layers)}
        kept = {path: output_column(inference, step) for step, path in enumerate(self._outputs)}
        scratch = dict.fromkeys(self._latents.values(), Column(config.embed_dim, np.dtype(np.float32)))
        self.arrays = PartialArrays(kept, scratch, len(features_PF), note=note)

    def written(self, step: int) -> list[Path]:
        """The arrays that a step fills."""
        return [self._outputs[step], *([self._latents[step]] if step in self._latents else [])]

    def compute(self, step: int, rows: slice) -> None:
        """Fill these rows of what the step writes."""
        x_BF = floats_of(self._features_PF[rows])
        latent_BH, pooled_BM = x_BF, None
        if step > 0:
            ids_BT, weights_BT = self._neighborhoods.ids_BT[rows], self._neighborhoods.weights_BT[rows]
            messages_PM = self.arrays[self._outputs[step - 1]]
            pooled_BM = pool_rows(messages_PM, ids_BT, weights_BT, self._inference.config.pooling)
        if step > 1:
            latent_BH = self.arrays[self._latents[step - 1]][rows]
        stepped = take_step(self._inference, step, x_BF, latent_BH, pooled_BM)
        check_finite(stepped.output_B, np.arange(rows.start, rows.stop))
        self.arrays.write(self._outputs[step], rows.start, stepped.output_B)
        if step in self._latents:
            self.arrays.write(self._latents[step], rows.start, stepped.latent_BH)


def write_pin_ids(run: RunFolder) -> None:
    """Write pin_ids.txt: one id a line, in the order of the embeddings."""
    with pa.memory_map(str(run.pins)) as source:
        ids = pa.ipc.open_file(source).read_all()["pin_id"]
        aside = run.pin_ids.with_suffix(".tmp")
        with aside.open("w") as file:
            for part in ids.chunks:
                file.writelines(f"{pin_id}\n" for pin_id in part.to_pylist())
    aside.replace(run.pin_ids)


def _parts(start: int, stop: int, size: int) -> Iterator[slice]:
    for low in range(start, stop, size):
        yield slice(low, min(low + size, stop))


def _block_size(rows: slice, num_threads: int) -> int:
    share: int = -(-(rows.stop - rows.start) // num_threads)
    return max(1, min(BLOCK, share))
