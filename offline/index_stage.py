"""The index stage: RUN/embeddings.npy becomes RUN/index, with the smallest `ef` that is good enough."""

from __future__ import annotations

import shutil

import numpy as np

from model.errors import PinsageError
from model.index import AnnIndex, IndexParams, choose_ef
from offline.config import IndexSection
from offline.progress import Report, silent
from offline.run_folder import RunFolder


def build_index(
    run: RunFolder, settings: IndexSection, *, seed: int, num_threads: int, progress: Report = silent
) -> AnnIndex:
    """Build, tune and save the index. Raises PinsageError naming the row of a vector that is not of unit length."""
    vectors_PD = np.load(run.embeddings, mmap_mode="r")
    num_items, dim = vectors_PD.shape
    params = IndexParams(dim, num_items, settings.m, settings.ef_construction)
    done = 0

    def count(num: int) -> None:
        nonlocal done
        done += num
        progress("adding items", 0.9 * done / num_items)

    try:
        index = AnnIndex.build(vectors_PD, params, seed=seed, num_threads=num_threads, progress=count)
    except ValueError as error:
        raise PinsageError(f"{run.embeddings}: {error}") from error
    progress("choosing ef", 0.9)
    index = index.with_ef(choose_ef(index, vectors_PD, target=settings.target_recall, seed=seed))
    aside = run.index.with_name("index.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    index.save(aside)
    shutil.rmtree(run.index, ignore_errors=True)
    aside.rename(run.index)
    progress("index is saved", 1.0)
    return index
