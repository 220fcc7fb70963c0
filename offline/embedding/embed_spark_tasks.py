"""What Spark's executors do with Arrow batches: project, explode neighbour lists, pool and convolve.

Executors need NumPy, numba, pyarrow and safetensors; neither torch nor pandas. They map features, neighbour lists and
weights from the run folder, which must be on storage that all of them see under the same path.

Letters: B pins of a batch, E records of a batch (pins with one neighbour's message each), T neighbours, F features,
M message width, W width of any payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.halves import floats_of
from model.inference import Inference
from model.walks import Neighborhoods
from offline.embedding.embed_step import Stepped, check_finite, output_column, read_inputs, take_step
from offline.embedding.partial_arrays import Column
from offline.embedding.pooling import pool_rows
from offline.embedding.spark_session import from_binary, to_binary
from offline.run_folder import RunFolder

Array = npt.NDArray[Any]

SELF = -1
"""Rank of the record that brings a pin's own latents, before those of its neighbours."""
LATENT = np.dtype(np.float32)
STEPPED = "row long, latent binary, output binary"
NEIGHBORS = "row long, rank int, neighbor long, weight float"


@dataclass(frozen=True)
class StepTask:
    """One step; its methods are what mapInArrow calls.

    run     path of the run folder
    inputs  hash of what the step reads, so that a worker process that lives on does not take old for new
    step    see offline/embedding/embed_step.py
    """

    run: str
    inputs: str
    step: int

    def project(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Step 0: rows (`id`) to their first messages, or to vectors where there are no convolutions."""
        inference, features_PF, _ = _read_inputs(self.run, self.inputs)
        for batch in batches:
            rows_B = batch["id"].to_numpy()
            x_BF = floats_of(features_PF[rows_B])
            yield self._batch(rows_B, take_step(inference, 0, x_BF, x_BF, None))

    def neighbors(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows (`id`) to one record for each of their neighbours, by rank."""
        _, _, (ids_PT, weights_PT) = _read_inputs(self.run, self.inputs)
        for batch in batches:
            rows_B = batch["id"].to_numpy()
            ids_BT, weights_BT = ids_PT[rows_B], weights_PT[rows_B]
            places_E, ranks_E = np.nonzero((ids_BT >= 0) & (weights_BT > 0))
            columns = [
                rows_B[places_E],
                ranks_E.astype(np.int32),
                ids_BT[places_E, ranks_E].astype(np.int64),
                weights_BT[places_E, ranks_E],
            ]
            yield pa.RecordBatch.from_arrays([pa.array(c) for c in columns], ["row", "rank", "neighbor", "weight"])

    def convolve(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Records (row, rank, weight, payload), ordered by row and rank, to the next latents and messages or vectors.

        A pin's first record, of rank SELF, brings its latents, the others its neighbours' messages.
        """
        inference, features_PF, (ids_PT, _) = _read_inputs(self.run, self.inputs)
        for records in whole_groups(batches):
            group = Group(records, ids_PT.shape[1])
            x_BF = floats_of(features_PF[group.rows_B])
            messages_EM = group.messages(output_column(inference, self.step - 1))
            pooled_BM = pool_rows(messages_EM, group.ids_BT, group.weights_BT, inference.config.pooling)
            latent_BH = x_BF if self.step == 1 else group.latents(inference.config.embed_dim)
            yield self._batch(group.rows_B, take_step(inference, self.step, x_BF, latent_BH, pooled_BM))

    def _batch(self, rows_B: Array, stepped: Stepped) -> pa.RecordBatch:
        check_finite(stepped.output_B, rows_B)
        # Step 0's latents are the features, which all can map; nobody reads the last step's.
        latents = to_binary(stepped.latent_BH) if self.step > 0 else pa.nulls(len(rows_B), pa.binary())
        columns = [pa.array(rows_B), latents, to_binary(stepped.output_B)]
        return pa.RecordBatch.from_arrays(columns, ["row", "latent", "output"])


class Group:
    """Some pins' records as arrays: neighbour ids are places among the messages at hand."""

    def __init__(self, records: pa.RecordBatch, num_neighbors: int) -> None:
        self._records = records
        rank_E = records["rank"].to_numpy()
        is_self_E = rank_E == SELF
        self._neighbor_E = ~is_self_E
        self.rows_B = records["row"].to_numpy()[is_self_E]
        places_E = (np.cumsum(is_self_E) - 1)[self._neighbor_E]
        self.ids_BT = np.full((len(self.rows_B), num_neighbors), -1, np.int32)
        self.weights_BT = np.zeros(self.ids_BT.shape, np.float32)
        self.ids_BT[places_E, rank_E[self._neighbor_E]] = np.arange(len(places_E))
        self.weights_BT[places_E, rank_E[self._neighbor_E]] = records["weight"].to_numpy()[self._neighbor_E]

    def messages(self, column: Column) -> Array:
        """(E, M) payloads of the neighbours' records; a row of zeros where nobody has a neighbour."""
        messages_EM = from_binary(self._records["payload"].filter(pa.array(self._neighbor_E)), column)
        return messages_EM if len(messages_EM) else np.zeros((1, column.width), column.dtype)

    def latents(self, width: int) -> Array:
        """(B, D) payloads of the pins' own records."""
        return from_binary(self._records["payload"].filter(pa.array(~self._neighbor_E)), Column(width, LATENT))


def whole_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same records, ordered by `row`, cut so that no row's records are in two batches."""
    rest: list[pa.RecordBatch] = []
    for batch in batches:
        rows_E = batch["row"].to_numpy()
        if len(rows_E) == 0:
            continue
        last = int(np.searchsorted(rows_E, rows_E[-1]))
        if last > 0 or (rest and rest[-1]["row"][-1].as_py() != rows_E[0]):
            yield from _joined([*rest, batch.slice(0, last)])
            rest = []
        rest.append(batch.slice(last))
    yield from _joined(rest)


def _joined(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    parts = [batch for batch in batches if batch.num_rows]
    if parts:
        yield pa.concat_batches(parts)


@lru_cache(maxsize=1)
def _read_inputs(run: str, inputs: str) -> tuple[Inference, Array, Neighborhoods]:
    return read_inputs(RunFolder(Path(run)))
