"""RUN/table1.json, table3.json, table4.json: the paper's tables, measured on this run's data.

    {"format": 1, "table": 1, "dataset": "citeulike-a", "candidates": 16131, "sample": null, "minutes": 10.0,
     "rows": {NAME: {"n": 3000, "HR@10": 0.2, "HR@100": …, "HR@500": …, "MRR": …, "MRR_scaled100": …,
                     "intervals": {"HR@10": [low, high], …},
                     "seconds": 240.1,
                     "differences": {"HR@10": {"low": -0.02, "high": -0.01, "mean": -0.015}, …}}},
     "contrasts": {NAME: {OTHER: {"HR@10": {"low": …, "high": …, "mean": …}, …}}},
     "neighbors": {"num": 48.3, "equal": 31.0},
     "skipped": {NAME: "why there is no such row"}}

rows         in the order to be shown. intervals: 95 % bootstrap of the value, drawing queries.
differences  the row's value minus that of the run's own embedding (row "default"), pair by pair, with the 95 %
             bootstrap interval over queries: below zero the row is worse, zero inside says nothing. A method that looks
             at fewer pairs is compared on those. The row "default" itself has {}, and so have all where there are too
             few queries for an interval.
contrasts    table 1 only: NAME minus OTHER in the same way, for the comparisons that the paper makes
neighbors    how many a pin has, and how many equal ones would spread its weights as widely (1 / sum of their squares)
seconds      of training, validation included; 0 for what learns nothing, and for ALS
minutes      the limit of training that each row had; the run itself had its own

In table 1 "pinsage" is the paper's row (preset `paper`) and "default" the run. Table 3 has rows "512", "1024", …, table
4 rows "10", "20", "50", and both the row "default". A row that was trained also has

epochs, best_epoch  passes over the pairs, and the one that validation liked best
converged           whether validation stopped improving before the time was over
ms_per_iteration    of the batches, without validation
iterations          until the best epoch
minutes             their product: the time to converge
batch_size          pairs in a minibatch
num_neighbors       T, neighbours of a pin
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from offline.run_folder import RunFolder

FORMAT = 1
NUMBERS = (1, 3, 4)


def table_path(run: RunFolder, number: int) -> Path:
    """Where a table of the paper is written."""
    return run.path / f"table{number}.json"


def write_table(run: RunFolder, table: dict[str, Any]) -> None:
    """Write a table aside and rename it, so that a table is whole or absent."""
    path = table_path(run, table["table"])
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(table, indent=1, allow_nan=False) + "\n")
    aside.replace(path)


def read_tables(run: RunFolder) -> dict[int, dict[str, Any]]:
    """The tables that were measured for a run, by number; none that this program cannot read."""
    tables = {}
    for number in NUMBERS:
        try:
            table: dict[str, Any] = json.loads(table_path(run, number).read_text())
        except (OSError, ValueError):
            continue
        if table.get("format") == FORMAT:
            tables[number] = table
    return tables
