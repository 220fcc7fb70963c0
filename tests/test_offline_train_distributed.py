"""Several processes train what one process trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import SMALL, write_planted

from offline.config import load_config
from offline.run_folder import RunFolder
from offline.stages import read_config, run_stages
from offline.training.team import Team

# Without noise, and with float32 sums, the only difference left is the order of sums.
QUIET = (
    *SMALL,
    "train.dropout=0",
    "train.feature_dropout=0",
    "train.isolate=0",
    "train.num_neighbors=8",
    "train.prior=false",
    "train.epochs=4",
    "train.learning_rate=0.005",
)
RUN = """
import sys
from offline.training import train_distributed
from offline.training import train_step

train_step.has_bf16 = lambda device: False
train_distributed.main()
"""


def make_run(folder: Path, *assignments: str) -> RunFolder:
    run = RunFolder(folder / "run")
    run_stages(write_planted(folder / "data"), run, load_config(assignments=[*QUIET, *assignments]), stages=["prepare"])
    return run


def torchrun(run: RunFolder, num_processes: int) -> subprocess.CompletedProcess[str]:
    script = run.path.parent / "run.py"
    script.write_text(RUN)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(script), str(run.path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)


def losses(run: RunFolder) -> list[float]:
    lines = map(json.loads, (run.train / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["epoch"] > 0]


@pytest.mark.parametrize(
    ("loss", "tolerance"),
    [
        ("softmax", 1e-4),
        # Means over negatives that are no accidental hits, of which processes have other numbers.
        pytest.param("max_margin", 2e-2, marks=pytest.mark.slow),
    ],
)
def test_two_processes_give_the_loss_curve_of_one(
    tmp_path: Path, loss: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (make_run(tmp_path / size, f"train.loss={loss}") for size in ("one", "two"))
    monkeypatch.setattr("offline.training.train_step.has_bf16", lambda device: False)
    run_stages(tmp_path / "one" / "data", one, read_config(one), stages=["train"])
    done = torchrun(two, 2)
    assert done.returncode == 0, done.stderr
    alone, together = losses(one), losses(two)
    assert together == pytest.approx(alone, rel=tolerance)
    assert len(alone) == 4
    assert min(alone) < alone[0]


@pytest.mark.slow
def test_a_stage_that_is_done_is_not_done_again_and_a_mistake_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.epochs=1")
    assert torchrun(run, 2).returncode == 0
    again = torchrun(run, 2)
    assert again.returncode == 0, again.stderr
    assert len(losses(run)) == 1
    run.stamp("prepare").unlink()
    run.stamp("train").unlink()
    refused = torchrun(run, 2)
    assert refused.returncode != 0
    assert "train needs prepare done" in refused.stderr


@pytest.mark.parametrize("num_rows", [0, 1, 5, 12, 13])
def test_shares_are_disjoint_even_and_complete(num_rows: int) -> None:
    rows = np.arange(num_rows)
    parts = [rows[Team(rank, 4).share(num_rows)] for rank in range(4)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
