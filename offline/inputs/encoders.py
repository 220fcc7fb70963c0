"""Fits the feature encoder to a data set and encodes all its pins.

Letters: P pins, N pins that are fitted on, B pins of a batch, F features, V width of a raw visual vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.utils.extmath import randomized_svd

from model.errors import DatasetError
from model.feature_groups import DegreeScale, Floats, Ints, PooledTable, PopularityScale, VisualScale
from model.features import FeatureEncoder, PinContent
from model.files import create_array
from model.graph import BipartiteGraph
from model.halves import finite_rows, to_halves
from model.text import tokenize
from offline.inputs.board_tables import fit_board_table
from offline.inputs.encoder_config import EncoderConfig
from offline.inputs.token_tables import count_matrix, fit_annotation_table, fit_text_table, learn_vocabulary

BATCH = 4096  # pins in memory as Python objects at a time
MIN_DEVIATION = 1e-6

Progress = Callable[[int], None]


def fit_encoder(
    pins: pl.DataFrame,
    graph: BipartiteGraph,
    visual_PV: Floats | None,
    config: EncoderConfig,
    *,
    seed: int,
    asked_P: Ints | None = None,
) -> FeatureEncoder:
    """Learn every group that the data has.

    pins        title, description, annotations in the order of rows
    visual_PV   raw visual vectors, a row of NaN where a pin has none; None where no pin has one
    asked_P     how often each pin is the related one of a training pair; None leaves the popularity group out
    """
    rng = np.random.default_rng(seed)
    num_fit = min(config.fit_sample, pins.height)
    pins_N = np.sort(rng.choice(pins.height, num_fit, replace=False))
    vocabulary, text, annotations = _fit_tokens(pins[pins_N], config, seed)
    boards = None
    if config.board_dim:
        boards = fit_board_table(graph, pins_N, config.board_dim, max_boards=config.fit_sample, seed=seed)
    visual = None
    if visual_PV is not None and config.visual_dim:
        visual = fit_visual(visual_PV[pins_N], config.visual_dim, seed=seed)
    degrees_P = graph.pin_degrees()
    popularity = None if asked_P is None else fit_popularity(degrees_P, asked_P)
    return FeatureEncoder(vocabulary, text, annotations, visual, boards, fit_degree(degrees_P), popularity)


def fit_visual(visual_NV: Floats, max_dim: int, *, seed: int) -> VisualScale | None:
    """Mean, deviation and, where vectors are wider than `max_dim`, principal components of those pins that have one."""
    known_NV = visual_NV[np.isfinite(visual_NV).all(axis=1)]
    if not len(known_NV):
        return None
    deviation_V = known_NV.std(axis=0, dtype=np.float64)
    deviation_V = np.where(deviation_V > MIN_DEVIATION, deviation_V, 1).astype(np.float32)
    scale = VisualScale(known_NV.mean(axis=0, dtype=np.float64).astype(np.float32), deviation_V)
    if scale.dim <= max_dim:
        return scale
    standard_NV = scale.standardise(known_NV)
    _, _, components_DV = randomized_svd(standard_NV, min(max_dim, len(known_NV)), n_iter=4, random_state=seed)
    return VisualScale(scale.mean_V, scale.deviation_V, components_DV.T.astype(np.float32))


def fit_degree(degrees_P: Ints) -> DegreeScale:
    """Mean and deviation of log(1 + degree)."""
    logs_P = np.log1p(degrees_P.astype(np.float64))
    return DegreeScale(float(logs_P.mean()), float(logs_P.std()) or 1.0)


def fit_popularity(degrees_P: Ints, asked_P: Ints) -> PopularityScale:
    """The largest degree and count there are, and the mean share of degree."""
    scale = PopularityScale(float(degrees_P.max()), float(asked_P.max()))
    return replace(scale, mean_share=float(scale.of_degree(degrees_P).mean()))


def encode_all(
    encoder: FeatureEncoder,
    pins: pl.DataFrame,
    graph: BipartiteGraph,
    visual_PV: Floats | None,
    out_path: Path,
    *,
    asked_P: Ints | None = None,
    num_threads: int = 1,
    progress: Progress | None = None,
) -> npt.NDArray[Any]:
    """Write the features (P, F) float16 of all pins to an .npy file, and return it memory-mapped.

    `progress` is called with the number of pins encoded since its last call.
    """
    shape = (pins.height, encoder.num_features)
    x_PF = create_array(out_path, np.float16, shape)
    visual_PV = visual_PV if encoder.visual is not None else None

    def encode(start: int) -> int:
        contents = _contents(pins, visual_PV, start)
        stop = start + len(contents)
        x_BF = encoder.encode(contents)
        ptr = graph.pin_ptr[start : stop + 1]
        encoder.fill_graph(x_BF, np.diff(ptr), graph.pin_boards_E[ptr[0] : ptr[-1]])
        if asked_P is not None:
            encoder.fill_asked(x_BF, asked_P[start:stop])
        x_PF[start:stop] = to_halves(x_BF)
        if not finite_rows(x_PF[start:stop]).all():
            raise AssertionError("an encoded pin is not finite")
        return len(contents)

    with ThreadPoolExecutor(num_threads) as threads:  # sums and conversions leave the interpreter's lock to others
        for num_encoded in threads.map(encode, range(0, pins.height, BATCH)):
            if progress is not None:
                progress(num_encoded)
    x_PF.flush()
    return x_PF


def content_batches(pins: pl.DataFrame) -> Iterator[list[PinContent]]:
    """The pins' texts, batch by batch."""
    return (_contents(pins, None, start) for start in range(0, pins.height, BATCH))


def _contents(pins: pl.DataFrame, visual_PV: Floats | None, start: int) -> list[PinContent]:
    """Texts and visual vectors of a batch."""
    texts = pins[start : start + BATCH].select("title", "annotations", "description").rows()
    visual = _visual_batch(visual_PV, start, len(texts))
    return [
        PinContent(title, annotations, description, vector_V)
        for (title, annotations, description), vector_V in zip(texts, visual, strict=True)
    ]


def _visual_batch(visual_PV: Floats | None, start: int, num_pins: int) -> Sequence[Floats | None]:
    if visual_PV is None:
        return [None] * num_pins
    visual_BV = np.asarray(visual_PV[start : start + num_pins])
    finite_B = np.all(np.isfinite(visual_BV), axis=1)
    bad_B = ~finite_B & ~np.isnan(visual_BV).all(axis=1)
    if bad_B.any():
        place = f"visual vector of pin {start + int(bad_B.argmax()) + 1:,}"
        raise DatasetError(f"{place}: not all numbers are finite; for file and row: pinsage validate DATASET")
    return [vector_V if finite else None for finite, vector_V in zip(finite_B, visual_BV, strict=True)]


def _fit_tokens(
    pins: pl.DataFrame, config: EncoderConfig, seed: int
) -> tuple[dict[str, int], PooledTable | None, PooledTable | None]:
    """The vocabulary of these pins and both tables over it; all empty where the pins have no common words."""
    if not (config.text_dim or config.annotation_dim):
        return {}, None, None
    documents = (
        tokenize(content.title, content.description, content.annotations)
        for batch in content_batches(pins)
        for content in batch
    )
    vocabulary = learn_vocabulary(documents, min_count=config.min_token_count, max_size=config.max_vocabulary)
    if not vocabulary:
        return {}, None, None
    counts_NR = count_matrix(vocabulary, content_batches(pins))
    text = fit_text_table(counts_NR, config.text_dim, seed=seed) if config.text_dim else None
    words = fit_annotation_table(counts_NR, config.annotation_dim, seed=seed) if config.annotation_dim else None
    return vocabulary, text, words
