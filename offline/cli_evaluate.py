"""What the commands `evaluate` and `run` do at their end: measure, and print what was measured."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from rich.console import Console

from offline.progress import show_progress
from offline.run_folder import RunFolder

MIN_WIDTH = 120  # columns of a table of the paper, where the terminal does not say how wide it is


def evaluate_and_print(run: Path, as_json: bool, sample: int | None, report: bool) -> None:
    """Metrics against baselines."""
    from offline.data.dataset import open_dataset
    from offline.evaluation.evaluate import evaluate, print_tables
    from offline.stages import read_dataset_path

    folder = RunFolder(run)
    dataset = open_dataset(read_dataset_path(folder))
    with show_progress("evaluate", as_json=as_json) as progress:
        metrics = evaluate(folder, dataset, sample=sample, report=report, progress=progress)
    if as_json:
        print(json.dumps(metrics))
    else:
        print_tables(metrics, Console())


def measure_and_print(run: Path, number: int, minutes: float | None, sample: int | None, as_json: bool) -> None:
    """A table of the paper; where no minutes are given, its default."""
    from offline.data.dataset import open_dataset
    from offline.evaluation.metric_tables import print_paper_table
    from offline.evaluation.paper_tables import DEFAULT_MINUTES, measure_table
    from offline.stages import read_dataset_path

    folder = RunFolder(run)
    dataset = open_dataset(read_dataset_path(folder))
    limit = DEFAULT_MINUTES if minutes is None else minutes
    progress = partial(show_progress, as_json=as_json)
    table = measure_table(folder, dataset, number, minutes=limit, sample=sample, progress=progress)
    if as_json:
        print(json.dumps(table))
        return
    console = Console()
    print_paper_table(table, console if console.is_terminal else Console(width=MIN_WIDTH))
