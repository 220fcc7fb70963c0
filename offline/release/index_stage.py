"""The index stage: RUN/embeddings.npy becomes RUN/index, as small and fast as is good enough, and RUN/related.

The rule: the index is built with `index.m` links and `index.ef_construction`; `ef` is the smallest of a ladder with
which recall@50 against exact search, on a sample, reaches `index.target_recall`. Where the ladder ends too early, both
sizes are doubled and the index is built again, up to 64 links.

Shape letters: P pins, D embedding width.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import WalkConfig
from model.errors import PinsageError
from model.graph import BipartiteGraph
from model.index import AnnIndex, IndexParams, choose_ef
from model.related_lists import write_related_lists
from offline.config import IndexSection
from offline.progress import Report, silent
from offline.run_folder import RunFolder

MAX_M = 64
TUNED_FROM, LISTED_FROM = 0.7, 0.75  # shares of the stage


def index_run(
    run: RunFolder,
    settings: IndexSection,
    walks: WalkConfig,
    *,
    seed: int,
    num_threads: int,
    progress: Report = silent,
) -> None:
    """Build the index and, where they are wanted, the lists of related pins. Raises PinsageError as `build_index`."""
    index = build_index(run, settings, seed=seed, num_threads=num_threads, progress=progress)
    if settings.related_lists:
        write_related_lists(
            _aside(run.related),
            index,
            np.load(run.embeddings, mmap_mode="r"),
            BipartiteGraph.load(run.graph),
            walks,
            seed=seed,
            num_threads=num_threads,
            progress=_Counter("listing related pins", index.params.num_items, progress, LISTED_FROM, 1.0),
        )
        _aside(run.related).rename(run.related)
    progress("index is saved", 1.0)


def build_index(
    run: RunFolder, settings: IndexSection, *, seed: int, num_threads: int, progress: Report = silent
) -> AnnIndex:
    """Build, tune and save the index; lists of an earlier one go.

    Raises PinsageError naming the row of a vector that is not of unit length, or the recall that was not reached.
    """
    vectors_PD = np.load(run.embeddings, mmap_mode="r")
    try:
        index = _good_enough(vectors_PD, settings, seed, num_threads, progress)
    except ValueError as error:
        raise PinsageError(f"{run.embeddings}: {error}") from error
    shutil.rmtree(_aside(run.index), ignore_errors=True)
    index.save(_aside(run.index))
    for folder in (run.index, run.related, _aside(run.related)):
        shutil.rmtree(folder, ignore_errors=True)
    _aside(run.index).rename(run.index)
    return index


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.tmp")


def _good_enough(
    vectors_PD: NDArray[Any], settings: IndexSection, seed: int, num_threads: int, progress: Report
) -> AnnIndex:
    num_items, dim = vectors_PD.shape
    params = IndexParams(dim, num_items, settings.m, settings.ef_construction)
    while True:
        adding = f"adding items, M = {params.m}, ef_construction = {params.ef_construction}"
        count = _Counter(adding, num_items, progress, 0.0, TUNED_FROM)
        index = AnnIndex.build(vectors_PD, params, seed=seed, num_threads=num_threads, progress=count)
        progress("choosing ef", TUNED_FROM)
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
    """Turns numbers of finished items into the share of the stage that is done."""

    def __init__(self, text: str, total: int, report: Report, start: float, stop: float) -> None:
        self._text, self._total, self._report, self._start, self._stop = text, total, report, start, stop
        self._done = 0

    def __call__(self, num_items: int) -> None:
        self._done += num_items
        self._report(self._text, self._start + (self._stop - self._start) * self._done / self._total)
