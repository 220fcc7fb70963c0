"""Tables 1, 3 and 4 of the paper, measured on a run's data: `pinsage evaluate RUN --table 1`.

Each trained row is a run of its own in RUN/tables, made from settings alone (variants.py). All rows are ranked
on the same test pairs, so that their differences can be told from chance. What the files hold: table_files.py.

Letters: N labelled pairs, P pins, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import PinsageError, UserError
from model.features import FeatureEncoder
from model.halves import floats_of
from model.inference import unit_rows
from offline.config import RunConfig
from offline.data.dataset import Dataset
from offline.evaluation.evaluate import MAX_SCORES, MIN_QUERIES, SEED, Bench, ranks_of
from offline.evaluation.evaluation_data import EvaluationData, Limits, load_evaluation_data
from offline.evaluation.evaluation_methods import PINSAGE, Methods, build_methods, pixie_walks
from offline.evaluation.metrics import differences, pair_values, summarise
from offline.evaluation.ranking import TIE, Method, cosine_scorer
from offline.evaluation.table_files import FORMAT, NUMBERS, write_table
from offline.evaluation.variant_runs import train_variant, training_facts
from offline.evaluation.variants import Rows, table_1, table_3, table_4
from offline.run_folder import RunFolder
from offline.stages import ShowProgress, no_progress, num_threads, read_config

Array = npt.NDArray[Any]
Found = Mapping[str, tuple[Array, Array]]

DEFAULT = "default"
DEFAULT_MINUTES = 10.0
MAX_WEIGHTS = 100_000  # pins whose neighbours are described
ABSENT = {
    "visual": "no pin has a visual vector",
    "annotation": "the run's features have no group of annotations",
    "text": "no pin has words",
}
CONTRASTS = (
    ("pinsage", "mean-pooling-hard"),
    ("pinsage", "combined"),
    ("mean-pooling-hard", "mean-pooling"),
    ("mean-pooling", "mean-pooling-xent"),
    ("mean-pooling", "max-pooling"),
    ("combined", "visual"),
    ("combined", "annotation"),
)


@dataclass(frozen=True)
class Trained:
    """A trained row: its run, and what it was trained with."""

    folder: RunFolder
    config: RunConfig


def measure_table(
    run: RunFolder,
    dataset: Dataset,
    number: int,
    *,
    minutes: float = DEFAULT_MINUTES,
    sample: int | None = None,
    progress: ShowProgress = no_progress,
) -> dict[str, Any]:
    """Train what the table needs, each for so many minutes at most, rank all, write the table into RUN and return it.

    sample   so many test pairs at most, as in `evaluate`

    A row whose training fails is left out with the reason. Raises UserError for an unknown table, minutes that are not
    more than zero, and a run that is not embedded or has no test pairs.
    """
    if number not in NUMBERS:
        raise UserError(f"there is no table {number}; there are: {', '.join(map(str, NUMBERS))}")
    if not minutes > 0:
        raise UserError(f"--minutes {minutes:g}: training needs more than zero minutes")
    config = read_config(run)
    data = load_evaluation_data(run, dataset, Limits(sample, MAX_SCORES, MIN_QUERIES), seed=SEED)
    if not len(data.pairs_N2):
        raise UserError(f"{run.path}: the data set has no test pairs to measure on")
    wanted = _rows_to_train(run, config, number, minutes)
    trained = _train(run, data, wanted, progress) | {DEFAULT: Trained(run, config)}
    with progress("evaluate") as report:
        methods = {name: _by_cosine(row.folder) for name, row in trained.items()}
        if number == 1:
            methods = _with_baselines(run, data, methods, wanted.skipped, threads=num_threads(config))
        found = Bench(data, num_threads(config), report, len(methods)).ranks("rank", methods, data.pairs_N2)
    table = {
        "format": FORMAT,
        "table": number,
        "dataset": data.folder.name,
        "candidates": data.num_pins,
        "sample": sample,
        "minutes": minutes,
        "rows": {name: _row(name, found, trained.get(name)) for name in found},
        "contrasts": _contrasts(found) if number == 1 else {},
        "neighbors": _describe_weights(np.load(run.neighbor_weights, mmap_mode="r")),
        "skipped": wanted.skipped,
    }
    write_table(run, table)
    return table


def _describe_weights(weights_PT: Array) -> dict[str, float]:
    """Of pins with neighbours: how many each has, and how many equal ones would weigh as unevenly; means."""
    step = max(1, len(weights_PT) // MAX_WEIGHTS)
    weights_NT = np.asarray(weights_PT[::step], np.float64)
    weights_NT = weights_NT[weights_NT.sum(1) > 0]
    if not len(weights_NT):
        return {"num": 0.0, "equal": 0.0}
    equal_N = weights_NT.sum(1) ** 2 / (weights_NT**2).sum(1)
    return {"num": round(float((weights_NT > 0).sum(1).mean()), 2), "equal": round(float(equal_N.mean()), 2)}


def _rows_to_train(run: RunFolder, config: RunConfig, number: int, minutes: float) -> Rows:
    if number == 1:
        return table_1(config, FeatureEncoder.load(run.encoder).slices, minutes)
    return {3: table_3, 4: table_4}[number](config, minutes)


def _train(run: RunFolder, data: EvaluationData, wanted: Rows, progress: ShowProgress) -> dict[str, Trained]:
    """Train row by row; one that fails through no fault of the user's is noted among the skipped."""
    trained = {}
    for variant in wanted.variants:
        try:
            folder = train_variant(run, data.folder, variant.name, variant.config, progress=progress)
        except UserError:
            raise
        except PinsageError as error:
            wanted.skipped[variant.name] = str(error)
        else:
            trained[variant.name] = Trained(folder, variant.config)
    return trained


def _by_cosine(run: RunFolder) -> Method:
    return Method(cosine_scorer(np.load(run.embeddings, mmap_mode="r")), TIE)


def _with_baselines(
    run: RunFolder, data: EvaluationData, trained: Methods, skipped: dict[str, str], *, threads: int
) -> Methods:
    """All rows of table 1 in their order: content alone, what was trained, the run, what learns nothing."""
    found = build_methods(data, threads=threads)
    skipped |= found.skipped
    others = {name: method for name, method in found.related.items() if name not in {PINSAGE, "pixie"}}
    content = {"visual": others.pop("visual", None), "annotation": _annotation(run)}
    skipped |= {name: ABSENT[name] for name, method in content.items() if method is None}
    if "text" not in others:
        skipped["text"] = ABSENT["text"]
    walks = {"pixie": pixie_walks(data).method(), "pixie-exact": found.related["pixie"]}
    als = {name: others.pop(name) for name in ("als",) if name in others}
    return {name: method for name, method in content.items() if method is not None} | trained | others | walks | als


def _annotation(run: RunFolder) -> Method | None:
    """Nearest by the annotation embedding, the input's group of Word2Vec."""
    columns = FeatureEncoder.load(run.encoder).slices.get("annotations")
    if columns is None:
        return None
    return Method(cosine_scorer(unit_rows(floats_of(np.load(run.features, mmap_mode="r")[:, columns]))), TIE)


def _row(name: str, found: Found, trained: Trained | None) -> dict[str, Any]:
    pairs, ranks = found[name]
    row = summarise(pair_values(ranks), pairs[:, 0], seed=SEED)
    row |= {"differences": {} if name == DEFAULT else _difference(name, DEFAULT, found), "seconds": 0.0}
    if trained is not None:
        row |= training_facts(trained.folder)
        row |= {
            "batch_size": trained.config.train.batch_size,
            "num_neighbors": trained.config.walks.num_neighbors,
        }
    return row


def _contrasts(found: Found) -> dict[str, dict[str, Any]]:
    """Differences of the comparisons that the paper makes, as far as both rows are there."""
    contrasts: dict[str, dict[str, Any]] = {}
    for one, other in CONTRASTS:
        if one in found and other in found:
            contrasts.setdefault(one, {})[other] = _difference(one, other, found)
    return contrasts


def _difference(one: str, other: str, found: Found) -> dict[str, Any]:
    """One less the other on the pairs that both looked at: those of `one`, a part of `other`'s or all of them."""
    pairs, ranks = found[one]
    return differences(pair_values(ranks), pair_values(ranks_of(pairs, found[other])), pairs[:, 0], seed=SEED)
