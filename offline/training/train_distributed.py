"""The train stage in several processes, which torchrun starts on one machine:

    torchrun --nproc-per-node 2 -m offline.training.train_distributed RUN

The first process does what `pinsage train RUN` does; all of them share every batch (offline/training/team.py).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import PinsageError, UserError
from offline.config import RunConfig
from offline.progress import Report, show_progress, silent
from offline.run_folder import RunFolder
from offline.stages import Reuse, num_threads, read_config, read_dataset_path, run_stages, stage_inputs
from offline.training.torch_settings import set_before_torch

if TYPE_CHECKING:
    from offline.training.team import Team
    from offline.training.train import Trainer

STAGE = "train"


def main() -> None:
    """Entry point; as `pinsage train`, exit code 2 is a user's mistake and 1 any other failure of ours."""
    set_before_torch()
    from offline.training.team import join_team

    try:
        if len(sys.argv) != 2:
            raise UserError("usage: torchrun --nproc-per-node 2 -m offline.training.train_distributed RUN")
        with join_team() as team:
            (lead if team.leads else follow)(RunFolder(Path(sys.argv[1])), team)
    except PinsageError as error:
        print(f"pinsage: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def lead(run: RunFolder, team: Team) -> None:
    """The stage as ever, but for the others being asked to help where it is not done yet."""

    def train(
        dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, inputs: str, report: Report
    ) -> None:
        team.agree(1)
        run.train.mkdir(parents=True, exist_ok=True)
        make_trainer(run, config, team).train(inputs, report)

    dataset, config = read_dataset_path(run), read_config(run)
    if not run_stages(dataset, run, config, stages=(STAGE,), runners={STAGE: train}, progress=show_progress):
        team.agree(0)


def follow(run: RunFolder, team: Team) -> None:
    """Help the first process, where there is anything to do."""
    if team.agree(0) == [1]:
        config = read_config(run)
        inputs = stage_inputs(STAGE, read_dataset_path(run), config)
        make_trainer(run, config, team).train(inputs, silent)


def make_trainer(run: RunFolder, config: RunConfig, team: Team) -> Trainer:
    """This process's part, with its share of the machine's threads."""
    from offline.training.train import Trainer

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Trainer(run, config, num_threads=max(1, num_threads(config) // here), team=team)


if __name__ == "__main__":
    main()
