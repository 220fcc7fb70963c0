"""A checkpoint of training: weights, best weights, optimiser state and counters in one safetensors file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.errors import PinsageError
from model.files import writing

CHECKPOINT_FORMAT = 1


@dataclass
class Progress:
    """How far training is. epoch counts finished epochs; stale counts those since the best one.

    seconds        of all epochs, validation included
    train_seconds  of the batches alone
    """

    inputs: str
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    stale: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0


def save_checkpoint(
    path: Path, trained: nn.Module, best: dict[str, Tensor], optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write the checkpoint aside and rename it: a crash leaves the last whole one."""
    tensors = {f"trained/{name}": value for name, value in trained.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    metadata = {"format": str(CHECKPOINT_FORMAT), "progress": json.dumps(asdict(progress))}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    with writing(aside):
        save_file(whole, aside, metadata=metadata)
    os.replace(aside, path)


def load_checkpoint(
    path: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, inputs: str
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Put a checkpoint's state into the module and the optimiser; None where there is none for these inputs.

    Raises PinsageError when the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != str(CHECKPOINT_FORMAT):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PinsageError(f"{path}: {error}; delete it to train from the start") from error
    progress = Progress(**json.loads(metadata["progress"]))
    if progress.inputs != inputs:
        return None
    trained.load_state_dict(_group(tensors, "trained/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _group(tensors, "optimizer/").items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress, _group(tensors, "best/")


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
