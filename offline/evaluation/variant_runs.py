"""Runs inside a run: RUN/tables/NAME is trained and embedded with other settings on the arrays that RUN prepared."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from model.errors import UserError
from model.graph import BipartiteGraph
from model.walks import build_neighborhoods
from offline.config import RunConfig
from offline.run_folder import RunFolder
from offline.stages import ShowProgress, no_progress, num_threads, read_config, run_stages, stage_inputs


def variant_folder(run: RunFolder, name: str) -> RunFolder:
    """Where a variant of a run lies."""
    return RunFolder(run.path / "tables" / name)


def train_variant(
    run: RunFolder, dataset: Path, name: str, config: RunConfig, *, progress: ShowProgress = no_progress
) -> RunFolder:
    """Train and embed a variant; what is done with the same settings is not done again.

    Raises UserError when the run's arrays are not those of its settings and data set, PinsageError when training fails
    or the embeddings collapse.
    """
    folder = variant_folder(run, name)
    link_prepared(run, folder, dataset, config)
    run_stages(dataset, folder, config, stages=("train", "embed"), progress=lambda stage: progress(f"{name}: {stage}"))
    shutil.rmtree(folder.messages(0).parent, ignore_errors=True)  # only the service and a release need messages
    return folder


def link_prepared(run: RunFolder, folder: RunFolder, dataset: Path, config: RunConfig) -> None:
    """Links to the run's prepared arrays; neighbourhoods of its own where the variant walks in another way."""
    own = read_config(run)
    if not run.is_done("prepare", stage_inputs("prepare", dataset, own)):
        raise UserError(f"{run.path}: not prepared for this data set and these settings; run it again: pinsage run")
    inputs = stage_inputs("prepare", dataset, config)
    if folder.is_done("prepare", inputs):
        return
    started = time.monotonic()
    shutil.rmtree(folder.prepare, ignore_errors=True)
    folder.prepare.mkdir(parents=True)
    for path in run.prepare.iterdir():
        # Relative, so that a run folder may move.
        (folder.prepare / path.name).symlink_to(os.path.relpath(path.resolve(), folder.prepare.resolve()))
    if config.walks != own.walks:
        _walk(folder, config)
    folder.write_stamp("prepare", inputs, time.monotonic() - started)


def _walk(folder: RunFolder, config: RunConfig) -> None:
    for path in (folder.neighbor_ids, folder.neighbor_weights):
        path.unlink()  # the link, not the run's array
    build_neighborhoods(
        BipartiteGraph.load(folder.graph),
        config.walks.to_walk_config(),
        seed=config.seed,
        ids_path=folder.neighbor_ids,
        weights_path=folder.neighbor_weights,
        num_threads=num_threads(config),
    )


def training_facts(folder: RunFolder) -> dict[str, Any]:
    """How training went: seconds, epochs, best_epoch, converged, and of the batches alone ms_per_iteration,
    iterations until the best epoch, and minutes, their product. Empty where there is no log of the training.
    """
    stamp = folder.read_stamp("train")
    try:
        lines = [json.loads(line) for line in (folder.train / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return {}
    lines = [line for line in lines if stamp and line["inputs"] == stamp["inputs"]]
    if not lines:
        return {}
    last = lines[-1]
    facts: dict[str, Any] = {
        "seconds": round(last["seconds"], 1),
        "epochs": last["epoch"],
        "best_epoch": last["best_epoch"],
        "converged": last["stale"] >= read_config(folder).train.patience,
    }
    if last.get("train_seconds"):
        iterations = last["best_epoch"] * last["batches"]
        milliseconds = 1000 * last["train_seconds"] / (last["epoch"] * last["batches"])
        facts |= {"ms_per_iteration": round(milliseconds, 2), "iterations": iterations}
        facts["minutes"] = round(milliseconds * iterations / 60_000, 3)
    return facts
