"""The evaluation of a run: related pins, cold start, home feed, similarity; PinSage beside the baselines.

Candidates are all pins of the run, the query taken out; ties count at their mean rank. The details of each test are in
ranking.py, coldstart.py, homefeed_eval.py and offline/embedding/collapse.py.

Letters: N labelled pairs, P pins, C cold pins, F features.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offline.data.dataset import Dataset
from offline.evaluation.coldstart import ColdEmbedder, cold_contents, write_cold_embeddings
from offline.evaluation.evaluation_data import EvaluationData, Limits, load_evaluation_data
from offline.evaluation.evaluation_methods import PINSAGE, AllMethods, Methods, build_methods, cold_pinsage
from offline.evaluation.homefeed_eval import feed_values
from offline.evaluation.metric_tables import print_tables as print_tables  # the command line finds both in one place
from offline.evaluation.metrics import hit_rate, pair_values, summarise
from offline.evaluation.ranking import related_ranks
from offline.evaluation.similarity import method_similarity, similarity_table
from offline.progress import Report, silent
from offline.run_folder import RunFolder
from offline.stages import num_threads, read_config

Array = npt.NDArray[Any]
Row = dict[str, Any]
Found = dict[str, tuple[Array, Array]]
"""method -> pairs (N, 2) and the rank of each"""

FORMAT = 1
SEED = 7
MAX_SCORES = 25_000_000_000  # scores of a query and a candidate in one test; where there are more, queries are drawn
MAX_DEAR_STEPS = 8_000_000_000  # queries x edges for a method that walks the whole graph for each query
MIN_QUERIES = 4000  # never fewer than these
MIN_DEAR_QUERIES = 500
MAX_DEAR_USERS = 2000  # of such a method for the home feed
CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
DEGREES = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20+": (20, np.inf)}


def evaluate(
    run: RunFolder, dataset: Dataset, *, sample: int | None = None, report: bool = True, progress: Report = silent
) -> dict[str, Any]:
    """Measure a run, write RUN/metrics.json and, where asked for, RUN/report.html; returns the metrics.

    sample   so many pairs and users at most; None takes all, unless a catalogue is so large that it would take hours

    Raises UserError when the run is not embedded or is of another data set.
    """
    config = read_config(run)
    progress("reading", 0.0)
    data = load_evaluation_data(run, dataset, Limits(sample, MAX_SCORES, MIN_QUERIES), seed=SEED)
    methods = build_methods(data, threads=num_threads(config))
    bench = Bench(data, num_threads(config), progress, num_steps=_num_steps(methods))
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "dataset": data.folder.name,
        "candidates": data.num_pins,
        "sample": sample,
        "seed": SEED,
        "available": data.num_tests,
        "skipped": methods.skipped,
    }
    metrics |= related_tables(bench, methods.related)
    metrics["coldstart"] = coldstart_tables(bench, methods, run)
    metrics["homefeed"] = homefeed_table(bench, methods)
    with bench.step("similarity"):
        metrics["similarity"] = similarity_table(run, data)
        metrics["similarity_methods"] = method_similarity(methods.related, data.num_pins)
    metrics["seconds"] = bench.seconds
    if report:
        from offline.report.report import write_report

        with bench.step("report"):
            write_report(run, data, methods.related, metrics)
    _write(run, metrics)
    return metrics


@dataclass
class Bench:
    """Where the measuring happens: data, threads, progress, and the clock of each step."""

    data: EvaluationData
    threads: int
    report: Report
    num_steps: int

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, size: int = 1) -> Iterator[Callable[[int], None]]:
        """Time a step; what it yields is told how many of `size` things were just done."""
        started, done = time.monotonic(), 0

        def advance(num: int) -> None:
            nonlocal done
            done += num
            self.report(name, min(1.0, (len(self.seconds) + done / max(size, 1)) / self.num_steps))

        advance(0)
        yield advance
        self.seconds[name] = round(time.monotonic() - started, 2)

    def ranks(self, test: str, methods: Methods, pairs_N2: Array) -> Found:
        """Each method's pairs and their ranks; a dear method looks at fewer pairs where the graph is large."""
        found = {}
        for name, method in methods.items():
            pairs = pairs_N2
            if method.is_dear:
                affordable = max(MIN_DEAR_QUERIES, MAX_DEAR_STEPS // max(self.data.graph.num_edges, 1))
                if affordable < len(pairs):
                    pairs = pairs[np.random.default_rng(SEED).permutation(len(pairs))[:affordable]]
            with self.step(f"{test} {name}", len(pairs)) as advance:
                found[name] = (
                    pairs,
                    related_ranks(
                        method, pairs[:, 0], pairs[:, 1], self.data.num_pins, threads=self.threads, progress=advance
                    ),
                )
        return found


def related_tables(bench: Bench, methods: Methods) -> dict[str, Any]:
    """The tables `related`, `hit_rate_curve`, `by_degree` and `by_query_degree`.

    A degree is the number of boards in the graph, of the related pin or of the query.
    """
    found = bench.ranks("related", methods, bench.data.pairs_N2)
    curve: dict[str, Any] = {"k": list(CURVE)}
    curve |= {name: [round(hit_rate(ranks, k), 5) for k in CURVE] for name, (_, ranks) in found.items() if len(ranks)}
    degrees_P = bench.data.graph.pin_degrees()
    return {
        "related": _rows(found),
        "hit_rate_curve": curve,
        "by_degree": _by_degree(found, degrees_P, side=1),
        "by_query_degree": _by_degree(found, degrees_P, side=0),
    }


def coldstart_tables(bench: Bench, methods: AllMethods, run: RunFolder) -> dict[str, dict[str, Row]]:
    """Pins that the run has never seen ask: with the boards they were put on, and with their content alone.

    Writes the embeddings with boards into the run.
    """
    data = bench.data
    if not data.cold.ids:
        return {}
    config = read_config(run)
    embedder = ColdEmbedder(run, data.graph, data.vectors_PD, config.walks.to_walk_config(), config.seed)
    tables = {}
    for test, others in (("with_boards", methods.with_boards), ("without_boards", methods.without_boards)):
        with bench.step(f"coldstart embed {test}"):
            vectors_CD = embedder.embed(cold_contents(data, with_boards=test == "with_boards"))
        if test == "with_boards":
            write_cold_embeddings(run, data.cold.ids, vectors_CD)
        compared = {PINSAGE: cold_pinsage(data, vectors_CD), **others}
        tables[test] = _rows(bench.ranks(f"coldstart {test}", compared, data.cold.pairs_N2))
    return tables


def homefeed_table(bench: Bench, methods: AllMethods) -> dict[str, Row]:
    """Recall@20 and NDCG@20 of what users saved later."""
    users, table, found = bench.data.users, {}, {}
    if not users:
        return {}
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(users))[:MAX_DEAR_USERS])
    for name, feed in methods.feeds.items():
        asked = drawn if feed.is_dear else np.arange(len(users))
        with bench.step(f"homefeed {name}", len(asked)) as advance:
            values = feed_values(
                feed, [users[user] for user in asked], bench.data.num_pins, threads=bench.threads, progress=advance
            )
        found[name] = values
        ours = None if name == PINSAGE else {measure: of[asked] for measure, of in found[PINSAGE].items()}
        table[name] = summarise(values, asked, seed=SEED, ours=ours)
    return table


def _by_degree(found: Found, degrees_P: Array, *, side: int) -> dict[str, dict[str, Row]]:
    """Rows for each bucket of degrees; side 0 looks at the query, 1 at the related pin."""

    def inside(low: float, high: float) -> Callable[[Array], Array]:
        return lambda pairs: (degrees_P[pairs[:, side]] >= low) & (degrees_P[pairs[:, side]] <= high)

    return {bucket: _rows(found, inside(*limits)) for bucket, limits in DEGREES.items()}


def _rows(found: Found, chosen: Callable[[Array], Array] | None = None) -> dict[str, Row]:
    """A row per method with intervals, and differences to PinSage; chosen(pairs) -> which of the pairs count."""
    rows = {}
    for name, (pairs, ranks) in found.items():
        inside = slice(None) if chosen is None else chosen(pairs)
        ours = None if name == PINSAGE else pair_values(ranks_of(pairs[inside], found[PINSAGE]))
        rows[name] = summarise(pair_values(ranks[inside]), pairs[inside, 0], seed=SEED, ours=ours)
    return rows


def ranks_of(pairs_M2: Array, found: tuple[Array, Array]) -> Array:
    """Ranks of some of the found pairs. A pair that is there twice has one rank."""
    pairs_N2, ranks_N = found
    shift = int(pairs_N2.max(initial=0)) + 1
    keys_N, first_N = np.unique(pairs_N2 @ [shift, 1], return_index=True)
    ranks_M: Array = ranks_N[first_N[np.searchsorted(keys_N, pairs_M2 @ [shift, 1])]]
    return ranks_M


def _num_steps(methods: AllMethods) -> int:
    cold = len(methods.with_boards) + len(methods.without_boards) + 4 if methods.with_boards else 0
    return len(methods.related) + cold + len(methods.feeds) + 2


def _write(run: RunFolder, metrics: dict[str, Any]) -> None:
    aside = run.metrics.with_suffix(".tmp")
    aside.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    aside.replace(run.metrics)
