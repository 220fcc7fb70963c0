"""The index stage: RUN/embeddings.npy becomes RUN/index, as small and fast as is good enough.

The rule: the index is built with `index.m` links and `index.ef_construction`; `ef` is the smallest of a ladder with
which recall@50 against exact search, on a sample, reaches `index.target_recall`. Where the ladder ends too early, both
sizes are doubled and the index is built again, up to 64 links.

Shape letters: P pins, D embedding width.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import PinsageError
from model.index import AnnIndex, IndexParams, choose_ef
from offline.config import IndexSection
from offline.progress import Report, silent
from offline.run_folder import RunFolder

MAX_M = 64


def build_index(
    run: RunFolder, settings: IndexSection, *, seed: int, num_threads: int, progress: Report = silent
) -> AnnIndex:
    """Build, tune and save the index.

    Raises PinsageError naming the row of a vector that is not of unit length, or the recall that was not reached.
    """
    vectors_PD = np.load(run.embeddings, mmap_mode="r")
    try:
        index = _good_enough(vectors_PD, settings, seed, num_threads, progress)
    except ValueError as error:
        raise PinsageError(f"{run.embeddings}: {error}") from error
    aside = run.index.with_name("index.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    index.save(aside)
    shutil.rmtree(run.index, ignore_errors=True)
    aside.rename(run.index)
    progress("index is saved", 1.0)
    return index


def _good_enough(
    vectors_PD: NDArray[Any], settings: IndexSection, seed: int, num_threads: int, progress: Report
) -> AnnIndex:
    num_items, dim = vectors_PD.shape
    params = IndexParams(dim, num_items, settings.m, settings.ef_construction)
    while True:
        adding = f"adding items, M = {params.m}, ef_construction = {params.ef_construction}"
        count = _Counter(adding, num_items, progress)
        index = AnnIndex.build(vectors_PD, params, seed=seed, num_threads=num_threads, progress=count)
        progress("choosing ef", 0.9)
        tuned = choose_ef(index, vectors_PD, target=settings.target_recall, seed=seed, num_threads=num_threads)
        if tuned.recall >= settings.target_recall:
            return index.with_ef(tuned.ef)
        if params.m >= MAX_M:
            raise PinsageError(
                f"the index finds {tuned.recall:.2%} of the true neighbours at best (M = {params.m}, ef_construction ="
                f" {params.ef_construction}, ef = {tuned.ef}); accept that with index.target_recall"
            )
        params = replace(params, m=2 * params.m, ef_construction=2 * params.ef_construction)


class _Counter:
    """Turns numbers of added items into the share of the stage that is done."""

    def __init__(self, text: str, total: int, report: Report) -> None:
        self._text, self._total, self._report, self._done = text, total, report, 0

    def __call__(self, num_items: int) -> None:
        self._done += num_items
        self._report(self._text, 0.9 * self._done / self._total)
