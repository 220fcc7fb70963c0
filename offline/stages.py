"""The offline stages: prepare, train, embed, index; each skips what is done and unchanged.

A stage's inputs are hashed into its stamp, and a later stage's hash contains the earlier one's, so a change runs again
just what depends on it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.config import WalkConfig
from model.errors import PinsageError, UserError
from model.feature_files import ENCODER_FORMAT
from model.inference import NETWORK_FORMAT
from offline.config import RunConfig, parse_config
from offline.progress import Report, silent
from offline.run_folder import RunFolder, fingerprint
from offline.training.torch_settings import set_before_torch

if TYPE_CHECKING:
    from offline.inputs.prepare import Walker

STAGES = ("prepare", "train", "embed", "index")
ShowProgress = Callable[[str], AbstractContextManager[Report]]


@contextmanager
def no_progress(stage: str) -> Iterator[Report]:
    """A ShowProgress that says nothing."""
    yield silent


@dataclass(frozen=True)
class Reuse:
    """An earlier release's encoder and weights, for new embeddings without new training."""

    release: Path


Runner = Callable[[Path, RunFolder, RunConfig, Reuse | None, str, Report], None]


def run_stages(
    dataset: Path,
    run: RunFolder,
    config: RunConfig,
    *,
    stages: Sequence[str] = STAGES,
    reuse: Reuse | None = None,
    runners: Mapping[str, Runner] | None = None,
    progress: ShowProgress = no_progress,
) -> dict[str, float]:
    """Run the stages that are not done yet, each as `runners` says or else on this machine; seconds of each that ran.

    Raises UserError when the run is in use by another process or an earlier stage is missing, PinsageError when the
    embeddings have collapsed.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _only_one(run):
        _write_json(run.config, config.model_dump())
        _write_json(run.dataset, {"path": str(dataset.resolve())})
        for stage in stages:
            inputs = stage_inputs(stage, dataset, config, reuse)
            if run.is_done(stage, inputs):
                continue
            _check_earlier(run, stage, dataset, config, reuse)
            started = time.monotonic()
            with progress(stage) as report:
                {**_RUNNERS, **(runners or {})}[stage](dataset, run, config, reuse, inputs, report)
            if stage == "embed":  # whatever engine ran it
                _check_embeddings(run)
            seconds[stage] = time.monotonic() - started
            run.write_stamp(stage, inputs, seconds[stage])
    return seconds


def stage_inputs(stage: str, dataset: Path, config: RunConfig, reuse: Reuse | None = None) -> str:
    """Hash of all that the stage's result depends on."""
    own: dict[str, object] = {
        "prepare": [
            ENCODER_FORMAT,
            dataset_fingerprint(dataset),
            config.seed,
            config.walks,
            config.encoder,
            config.pairs,
            reuse,
        ],
        "train": [NETWORK_FORMAT, config.network, config.train],
        "embed": [],
        "index": [config.index],
    }
    parts = [str(own[name]) for name in STAGES[: STAGES.index(stage) + 1]]
    return fingerprint(stage, parts)


def dataset_fingerprint(dataset: Path) -> str:
    """Hash of the names, sizes and times of a data set's files. Raises UserError where there is no such folder."""
    if not dataset.is_dir():
        raise UserError(f"{dataset}: no such data set folder")
    files = sorted(path for path in dataset.iterdir() if path.is_file())
    return fingerprint([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])


def read_config(run: RunFolder) -> RunConfig:
    """The configuration that a run was made with. Raises UserError where there is no run."""
    try:
        return parse_config(json.loads(run.config.read_text()))
    except OSError:
        raise UserError(f"{run.path}: no run here; make one with: pinsage run DATASET --run {run.path}") from None


def read_dataset_path(run: RunFolder) -> Path:
    """The data set that a run was made from. Raises UserError where there is no run."""
    try:
        return Path(json.loads(run.dataset.read_text())["path"])
    except OSError:
        raise UserError(f"{run.path}: no run here; make one with: pinsage run DATASET --run {run.path}") from None


def num_threads(config: RunConfig) -> int:
    """Processor threads to use."""
    return config.threads or len(os.sched_getaffinity(0))


def _prepare(
    dataset: Path,
    run: RunFolder,
    config: RunConfig,
    reuse: Reuse | None,
    inputs: str,
    report: Report,
    walk_elsewhere: Walker | None = None,
) -> None:
    from offline.data.dataset import open_dataset
    from offline.inputs.prepare import prepare

    prepare(
        open_dataset(dataset),
        run,
        seed=config.seed,
        walks=config.walks.to_walk_config(),
        encoder=config.encoder,
        pairs=config.pairs,
        num_threads=num_threads(config),
        reuse_encoder=reuse.release / "encoder" if reuse else None,
        walk_elsewhere=walk_elsewhere,
        progress=report,
    )


def _train(dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, inputs: str, report: Report) -> None:
    run.train.mkdir(parents=True, exist_ok=True)
    if reuse is not None:
        for name in ("weights.safetensors", "network.json"):
            shutil.copyfile(reuse.release / name, run.train / name)
        return
    set_before_torch()
    from offline.training.train import Trainer

    Trainer(run, config, num_threads=num_threads(config)).train(inputs, report)


def _embed(dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, inputs: str, report: Report) -> None:
    from offline.embedding.embed import embed_run

    embed_run(run, chunk=config.embed.chunk, num_threads=num_threads(config), progress=report)


def _check_embeddings(run: RunFolder) -> None:
    import numpy as np

    from model.inference import read_network_config
    from offline.embedding.collapse import check_collapse

    try:
        num_prior = read_network_config(run.network).num_prior
        check_collapse(np.load(run.embeddings, mmap_mode="r"), num_prior=num_prior)
    except PinsageError as error:
        raise PinsageError(f"{run.path}: {error}") from error


def _index(dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, inputs: str, report: Report) -> None:
    from offline.release.index_stage import index_run

    walks = config.walks.to_walk_config()
    index_run(run, config.index, walks, seed=config.seed, num_threads=num_threads(config), progress=report)


def on_spark(master: str | None) -> dict[str, Runner]:
    """Runners that walk and embed on Spark; `master` as Spark names it."""

    def prepare(
        dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, inputs: str, report: Report
    ) -> None:
        from offline.inputs.walks_spark import walk_on_spark

        def walk(run: RunFolder, walks: WalkConfig, seed: int) -> None:
            walk_on_spark(run, walks, seed=seed, master=master)

        _prepare(dataset, run, config, reuse, inputs, report, walk)

    def embed(
        dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, inputs: str, report: Report
    ) -> None:
        from offline.embedding.embed_spark import embed_on_spark

        embed_on_spark(run, master=master, progress=report)

    return {"prepare": prepare, "embed": embed}


_RUNNERS: dict[str, Runner] = {"prepare": _prepare, "train": _train, "embed": _embed, "index": _index}


def _check_earlier(run: RunFolder, stage: str, dataset: Path, config: RunConfig, reuse: Reuse | None) -> None:
    for earlier in STAGES[: STAGES.index(stage)]:
        if not run.is_done(earlier, stage_inputs(earlier, dataset, config, reuse)):
            raise UserError(f"{run.path}: {stage} needs {earlier} done for this data set and these settings")


@contextmanager
def _only_one(run: RunFolder) -> Iterator[None]:
    with (run.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{run.path}: in use by another pinsage process") from None
        yield


def _write_json(path: Path, value: object) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(value, indent=1) + "\n")
    aside.replace(path)
