"""RUN/report.html: what a run is worth, in one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from offline import report_figures as figures
from offline import report_page as html
from offline.evaluation_data import EvaluationData
from offline.ranking import Method, one_native_thread
from offline.report_examples import choose_examples, map_embeddings
from offline.run_folder import RunFolder
from offline.stages import STAGES

Metrics = Mapping[str, Any]

PAIR_COLUMNS = {"HR@10": "HR@10", "HR@100": "HR@100", "HR@500": "HR@500", "MRR": "MRR", "MRR_scaled100": "MRR/100"}
FEED_COLUMNS = {"Recall@20": "Recall@20", "NDCG@20": "NDCG@20"}
COLD_TITLES = {"with_boards": "On the boards people put them on", "without_boards": "By their content alone"}


def write_report(run: RunFolder, data: EvaluationData, methods: dict[str, Method], metrics: Metrics) -> None:
    """Write the report. `metrics` is what `evaluate` measured, `methods` what the examples are answered with."""
    parts = [
        _head(data, metrics),
        _related(metrics),
        _coldstart(metrics),
        _homefeed(metrics),
        _similarity(metrics),
        _map(data, metrics["seed"]),
        _examples(data, methods, metrics["seed"]),
        _training(run),
        _making(run, metrics),
    ]
    parts.append(html.text("footer", "Written by pinsage evaluate. The numbers are in metrics.json beside this file."))
    text = html.page(f"{metrics['dataset']}: pinsage evaluation", parts)
    aside = run.report.with_suffix(".tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(run.report)


def _head(data: EvaluationData, metrics: Metrics) -> str:
    ours = metrics["related"]["pinsage"]
    values = {
        "pins": f"{data.num_pins:,}",
        "boards": f"{data.graph.num_boards:,}",
        "edges": f"{data.graph.num_edges:,}",
        "test pairs": f"{metrics['available'].get('pairs', 0):,}",
        "cold pins": f"{len(data.cold.ids):,}",
        "test users": f"{metrics['available'].get('users', 0):,}",
    }
    if ours["n"]:
        values |= {"HR@10": f"{ours['HR@10']:.3f}", "MRR/100": f"{ours['MRR_scaled100']:.3f}"}
    title = html.text("h1", f"{metrics['dataset']}: what the run is worth")
    return html.tag("header", title, html.facts(values))


def _related(metrics: Metrics) -> str:
    drawn = f" A sample of {metrics['sample']:,} pairs." if metrics["sample"] else ""
    text = (
        f"Each related pin is ranked among all {metrics['candidates']:,} pins, the query taken out; ties count at "
        "their mean rank. HR@K is the share of pairs whose related pin is among the K best, MRR/100 the paper's scaled "
        "mean reciprocal rank (equation 2). Below each number: its 95 % interval, from a bootstrap over queries."
        f"{drawn}"
    )
    table = html.measures_table(metrics["related"], PAIR_COLUMNS)
    curve = figures.hit_rate_curve(metrics["hit_rate_curve"])
    bars = figures.by_degree(metrics["by_degree"], "HR@100")
    figure_row = html.side_by_side(
        html.figure(curve, "hit rate over K", title="Hit rate at K"),
        html.figure(bars, "HR@100 by degree", title="HR@100 by how many boards the related pin is on"),
    )
    return html.section("Related pins", text, table, figure_row)


def _coldstart(metrics: Metrics) -> str:
    tables = {test: rows for test, rows in metrics["coldstart"].items() if rows["pinsage"]["n"]}
    if not tables:
        return ""
    text = (
        "Queries are pins that the run has never seen, embedded as the service embeds a pin that was posted a second "
        "ago: features, a walk from its boards, the neighbours' stored messages. Candidates are the pins of the run."
    )
    parts = [
        html.text("h3", COLD_TITLES[test]) + html.measures_table(rows, PAIR_COLUMNS) for test, rows in tables.items()
    ]
    return html.section("Cold start", text, *parts)


def _homefeed(metrics: Metrics) -> str:
    if not metrics["homefeed"]:
        return ""
    text = (
        "What users saved later, found from what they saved before: the best score with any of the last 20 saved pins "
        "(item_knn: the sum over all of them). Saved pins are not shown again."
    )
    return html.section("Home feed", text, html.measures_table(metrics["homefeed"], FEED_COLUMNS))


def _similarity(metrics: Metrics) -> str:
    text = (
        "Cosines of 100,000 random pairs of pins, by the embeddings and by each part of the network's input (figure 4 "
        "of the paper). A wide spread with a heavy right tail tells related pins from the rest; a spike near 1 is a "
        "collapse."
    )
    shown = html.figure(figures.similarity_histograms(metrics["similarity"]), "histograms of cosines")
    return html.section("How alike random pins are", text, shown)


def _map(data: EvaluationData, seed: int) -> str:
    with one_native_thread():
        found = map_embeddings(data, seed=seed)
    if found is None:
        return ""
    text = (
        f"t-SNE of {len(found.points_S2):,} pins by their embeddings. Colours: category or, where there is none, the "
        "pin's most frequent annotation; the number of boards where there is neither."
    )
    address = figures.embedding_map(found.points_S2, found.labels, found.degrees_S)
    return html.section("Map of the embeddings", text, html.figure(address, "map of pins"))


def _examples(data: EvaluationData, methods: dict[str, Method], seed: int) -> str:
    examples = choose_examples(data, methods, seed=seed)
    if not examples:
        return ""
    text = (
        "Drawn at random from the test queries; the best pins of each method side by side (figure 5 of the paper). "
        "Green: the test says that it is related."
    )
    return html.section("Examples", text, *[html.example_row(example) for example in examples])


def _training(run: RunFolder) -> str:
    try:
        lines = [json.loads(line) for line in (run.train / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return ""
    lines = [line for line in lines if line["inputs"] == lines[-1]["inputs"]]
    if not lines:
        return ""
    best = lines[-1]["best_epoch"]
    text = f"{len(lines)} epochs; the weights are those of epoch {best}, which was best on the validation pairs."
    return html.section("Training", text, html.figure(figures.training_curve(lines), "training curve"))


def _making(run: RunFolder, metrics: Metrics) -> str:
    stamps = {stage: run.read_stamp(stage) for stage in STAGES}
    seconds = {stage: float(stamp["seconds"]) for stage, stamp in stamps.items() if stamp}
    seconds["evaluate"] = sum(metrics["seconds"].values())
    settings = json.dumps(json.loads(run.config.read_text()), indent=1)
    shown = html.folded("All settings of the run", settings)
    return html.section("How it was made", "Stages, and how long each took.", html.time_bars(seconds), shown)
