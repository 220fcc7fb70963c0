"""RUN/report.html: what a run is worth, in one file that needs nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from offline.evaluation.evaluation_data import EvaluationData
from offline.evaluation.metrics import MIN_QUERIES
from offline.evaluation.ranking import Method, one_native_thread
from offline.evaluation.table_files import NUMBERS, read_tables
from offline.report import report_page as html
from offline.report.report_examples import EmbeddingMap, choose_examples, map_embeddings
from offline.report.report_figures import training_curve
from offline.report.report_paper import paper_section, trained_rows
from offline.report.report_sections import by_degree, coldstart, homefeed, related, similarity
from offline.report.report_spaces import OTHERS, embedding_map, map_colors
from offline.report.report_tables import time_table, verdicts_table
from offline.run_folder import RunFolder
from offline.stages import STAGES

Metrics = Mapping[str, Any]


def write_report(run: RunFolder, data: EvaluationData, methods: dict[str, Method], metrics: Metrics) -> None:
    """Write the report. `metrics` is what `evaluate` measured, `methods` what the examples are answered with."""
    tables, own = read_tables(run), metrics["related"]["pinsage"]
    paper = {n: paper_section(n, tables.get(n), run.path, own) for n in NUMBERS}
    sections = (
        related(metrics),
        by_degree(metrics),
        coldstart(metrics),
        homefeed(metrics),
        paper[1],
        similarity(metrics),
        _map(data, metrics["seed"]),
        _examples(data, methods, metrics["seed"]),
        paper[3],
        paper[4],
        _training(run),
        _making(run, metrics),
    )
    made = time.strftime("%Y-%m-%d", time.gmtime())
    foot = html.text(
        "footer", f"Written by pinsage evaluate on {made}. The numbers are in metrics.json beside this file."
    )
    title = f"{metrics['dataset']}: pinsage evaluation"
    text = html.page(
        title,
        _head(data, metrics),
        _in_short(metrics, trained_rows(tables.get(1), own)),
        [part for part in sections if part],
        foot,
    )
    aside = run.report.with_suffix(".tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(run.report)


def _head(data: EvaluationData, metrics: Metrics) -> str:
    values = {
        "pins": f"{data.num_pins:,}",
        "boards": f"{data.graph.num_boards:,}",
        "edges": f"{data.graph.num_edges:,}",
        "test pairs": f"{metrics['available'].get('pairs', 0):,}",
        "cold pins": f"{len(data.cold.ids):,}",
        "test users": f"{metrics['available'].get('users', 0):,}",
    }
    title = html.text("h1", f"{metrics['dataset']}: what the run is worth")
    return html.tag("header", title, html.facts(values))


def _in_short(metrics: Metrics, trained: Mapping[str, Any]) -> str:
    verdicts = verdicts_table(metrics, trained)
    if not verdicts:
        return ""
    words = (
        "Ahead and behind: the 95 % interval of the difference on the same queries does not hold zero. With so many "
        "comparisons, about one in twenty of those between equals is called a difference by chance."
    )
    if metrics["related"]["pinsage"]["n"] < MIN_QUERIES:
        words = f"There are fewer than {MIN_QUERIES} test pairs: nothing here can be believed, intervals included."
    return html.tag("section", verdicts, html.text("p", words, kind="note"))


def _map(data: EvaluationData, seed: int) -> html.Section | None:
    with one_native_thread():
        found = map_embeddings(data, seed=seed)
    if found is None:
        return None
    text = (
        f"t-SNE of {len(found.points_S2):,} pins by their embeddings (figure 6 of the paper). Colours: category or, "
        "where there is none, the rarest of the pin's annotations among the ten commonest; the number of boards where "
        f"there is neither.{_agreement(found)}"
    )
    address = embedding_map(found.points_S2, found.labels, found.degrees_S)
    colors = map_colors(found.labels)
    counts = {name: found.labels.count(name) for name in colors if name != OTHERS}
    about = ", ".join(f"{name} ({count})" for name, count in counts.items()) or "coloured by the number of boards"
    shown = html.figure(address, f"Map of {len(found.points_S2):,} pins: {about}.")
    return html.section("map", "Map of the embeddings", text, shown, html.legend(colors) if colors else "")


def _agreement(found: EmbeddingMap) -> str:
    if found.agreement is None:
        return ""
    same, chance = found.agreement
    return f" The nearest of these pins has the same label for {same:.0%} of them; by chance it would be {chance:.0%}."


def _examples(data: EvaluationData, methods: dict[str, Method], seed: int) -> html.Section | None:
    examples = choose_examples(data, methods, seed=seed)
    if not examples:
        return None
    text = (
        "Drawn at random from the test queries, not chosen; the best pins of each method side by side (figure 5 of the "
        "paper). Green, with a tick: the test says that it is related. The test knows only what people did, so a pin "
        "without a tick may be just as good."
    )
    return html.section("examples", "Examples", text, *[html.example_row(example) for example in examples])


def _training(run: RunFolder) -> html.Section | None:
    try:
        lines = [json.loads(line) for line in (run.train / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    lines = [line for line in lines if "score" in line and line["inputs"] == lines[-1]["inputs"]]
    if not lines:
        return None
    best = lines[-1]["best_epoch"]
    text = (
        f"{len(lines)} epochs; the weights are those of epoch {best}, which was best on the validation pairs. The "
        "score is the area under the hit-rate over log K, up to K = 1,000: it moves with every rank."
    )
    scores = ", ".join(f"{line['score']:.3f}" for line in lines)
    shown = html.figure(training_curve(lines), f"Validation score by epoch: {scores}.")
    return html.section("training", "Training", text, html.tag("div", shown, kind="half"))


def _making(run: RunFolder, metrics: Metrics) -> html.Section:
    stamps = {stage: run.read_stamp(stage) for stage in STAGES}
    seconds = {stage: float(stamp["seconds"]) for stage, stamp in stamps.items() if stamp}
    seconds["evaluate"] = sum(metrics["seconds"].values())
    settings = json.dumps(json.loads(run.config.read_text()), indent=1)
    shown = html.folded("All settings of the run", html.text("pre", settings))
    text = "Stages, and how long each took on the machine it ran on."
    return html.section("making", "How it was made", text, time_table(seconds), shown)
