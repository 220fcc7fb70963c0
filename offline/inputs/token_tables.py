"""What is learned about tokens: which are known, and their two tables (paper 4.1 uses Word2Vec of annotations).

Letters: N pins that are fitted on, E entries (a token of a pin), R tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from gensim.models import Word2Vec

from model.feature_groups import PooledTable
from model.features import FeatureEncoder, PinContent, term_factor
from offline.inputs.spectral import fit_pooled_table, rarity_weights

WINDOW = 30  # tokens on either side that a token is taught with; few pins have more
WORD2VEC_TOKENS = 2_000_000  # tokens gone through in all, where one pass is not more: half a minute of one core
MAX_PASSES = 20


def learn_vocabulary(documents: Iterable[list[str]], *, min_count: int, max_size: int) -> dict[str, int]:
    """Token -> row, the token on most pins first; tokens on fewer than `min_count` pins are left out."""
    num_pins: Counter[str] = Counter()
    for tokens in documents:
        num_pins.update(set(tokens))
    known = [(-count, token) for token, count in num_pins.items() if count >= min_count]
    return {token: row for row, (_, token) in enumerate(sorted(known)[:max_size])}


def count_matrix(vocabulary: Mapping[str, int], contents: Iterable[list[PinContent]]) -> sp.csr_array:
    """(N, R) how often each pin has each token; `contents` comes in batches."""
    counter, ptr, rows, counts = FeatureEncoder(vocabulary), [np.zeros(1, np.int64)], [], []
    for batch in contents:
        owners_E, rows_E, counts_E = counter.count_tokens(batch)
        ptr.append(ptr[-1][-1] + np.cumsum(np.bincount(owners_E, minlength=len(batch))))
        rows.append(rows_E.astype(np.int32))
        counts.append(counts_E.astype(np.float32))
    parts = (np.concatenate(counts), np.concatenate(rows), np.concatenate(ptr))
    return sp.csr_array(parts, shape=(len(parts[2]) - 1, len(vocabulary)))


def fit_text_table(counts_NR: sp.csr_array, dim: int, *, seed: int) -> PooledTable | None:
    """The table of the text group: truncated SVD of (1 + log tf) / sqrt(df)."""
    factors_NR = counts_NR.copy()
    factors_NR.data = term_factor(counts_NR.data)
    weights_R = rarity_weights(np.bincount(counts_NR.indices, minlength=counts_NR.shape[1]))
    return fit_pooled_table(factors_NR, weights_R, dim, max_columns=len(weights_R), seed=seed)


def fit_annotation_table(counts_NR: sp.csr_array, dim: int, *, seed: int) -> PooledTable | None:
    """The table of the annotations group: skip-gram Word2Vec whose window is the whole pin, pooled by log(N / df).

    One worker, so that the same data and seed give the same vectors.
    """
    num_pins, num_tokens = counts_NR.shape
    if num_tokens < 2:
        return None
    word2vec = Word2Vec(
        vector_size=dim,
        window=WINDOW,
        shrink_windows=False,
        sg=1,
        negative=5,
        sample=1e-3,
        min_count=1,
        workers=1,
        seed=seed,
    )
    sentences = Sentences(counts_NR)
    word2vec.build_vocab(sentences)
    passes = max(1, min(MAX_PASSES, WORD2VEC_TOKENS // counts_NR.nnz))
    word2vec.train(sentences, total_examples=num_pins, epochs=passes)
    table_RD = np.stack([word2vec.wv[str(row)] for row in range(num_tokens)])
    pins_R = np.bincount(counts_NR.indices, minlength=num_tokens)
    weights_R = np.log((1 + num_pins) / pins_R).astype(np.float32)
    return PooledTable(weights_R, table_RD.astype(np.float16))


class Sentences:
    """The tokens of each pin once, as the names of their rows; may be gone through many times."""

    def __init__(self, counts_NR: sp.csr_array) -> None:
        self._counts_NR = counts_NR

    def __iter__(self) -> Iterator[list[str]]:
        ptr, rows_E = self._counts_NR.indptr, self._counts_NR.indices
        for start, stop in pairwise(ptr.tolist()):
            yield list(map(str, rows_E[start:stop].tolist()))
