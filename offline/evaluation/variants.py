"""The rows of the paper's tables as settings: what differs from the preset `paper`, or from the run itself (section 4).

Prepared arrays are the run's own for all of them: seed, encoder and pairs are the run's, and only table 4 walks anew.
The rows of preset `paper` read every group of features that the run has, board vectors included, unless stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offline.config import PRESETS, RunConfig, merged, parse_config

CONTENT = ("text", "annotations", "visual")  # groups of features that come from a pin itself, not from its boards
BATCH_SIZES = (512, 1024, 2048, 4096)
NUM_NEIGHBORS = (10, 20, 50)
NO_CONTENT = "no pin has words or a visual vector"

Settings = Mapping[str, Any]
NO_HARD: Settings = {"max_hard_negatives": 0}

# On top of preset `paper`, whose loss is max-margin and whose pooling is by importance, with hard negatives.
PAPER_ROWS: Mapping[str, Settings] = {
    "combined": {"network": {"num_layers": 0}, "train": NO_HARD},
    "max-pooling": {"network": {"pooling": "max"}, "train": NO_HARD},
    "mean-pooling": {"network": {"pooling": "mean"}, "train": NO_HARD},
    "mean-pooling-xent": {"network": {"pooling": "mean"}, "train": {**NO_HARD, "loss": "softmax"}},
    "mean-pooling-hard": {"network": {"pooling": "mean"}},
    "pinsage": {},
}

# The rival: what PinSage knows, learned well, without a graph convolution. Every setting that matters is spelled out,
# so that it stays what it is when defaults change.
MLP: Settings = {
    "network": {"num_layers": 0, "hidden_dim": 512, "embed_dim": 256, "residual": True},  # one is the prior's, at 0
    "train": {
        "loss": "softmax",
        "batch_size": 1024,
        "num_negatives": 0,
        "max_hard_negatives": 0,
        "temperature": 0.07,
        "learning_rate": 1e-3,
        "decay": 1.0,
        "weight_decay": 0.01,
        "dropout": 0.2,
        "feature_dropout": 0.0,
        "isolate": 0.0,
        "both_directions": True,
        "board_pairs": 0.0,
        "linear_start": False,
        "prior": False,
        "features": [],
    },
}


@dataclass(frozen=True)
class Variant:
    """A row that has to be trained."""

    name: str
    config: RunConfig


@dataclass(frozen=True)
class Rows:
    """The rows of a table that are trained, in their order, and those that the data does not allow, with the reason."""

    variants: list[Variant]
    skipped: dict[str, str]


def table_1(run: RunConfig, groups: Mapping[str, object], minutes: float) -> Rows:
    """Table 1: variants of the method. groups: names of the groups of features that the run has."""
    rows = Rows([], {})
    for name, settings in PAPER_ROWS.items():
        changes = merged(PRESETS["paper"], dict(settings))
        if name == "combined":
            content = [group for group in CONTENT if group in groups]
            if not content:
                rows.skipped[name] = NO_CONTENT
                continue
            changes = merged(changes, {"train": {"features": content}})
        rows.variants.append(Variant(name, _on_prepared(run, changes, minutes)))
    rows.variants.append(Variant("mlp", _on_prepared(run, dict(MLP), minutes)))
    return rows


def table_3(run: RunConfig, minutes: float) -> Rows:
    """Table 3: the run with other batch sizes."""
    changes = {str(size): {"train": {"batch_size": size}} for size in BATCH_SIZES}
    return Rows([Variant(name, _changed(run, change, minutes)) for name, change in changes.items()], {})


def table_4(run: RunConfig, minutes: float) -> Rows:
    """Table 4: the run with other numbers T of neighbours, all of them looked at in training."""
    changes = {str(num): {"walks": {"num_neighbors": num}, "train": {"num_neighbors": num}} for num in NUM_NEIGHBORS}
    return Rows([Variant(name, _changed(run, change, minutes)) for name, change in changes.items()], {})


def _on_prepared(run: RunConfig, settings: dict[str, Any], minutes: float) -> RunConfig:
    """The run's arrays, but network and training as these settings say, on top of the defaults."""
    own = {name: value for name, value in run.model_dump().items() if name not in {"network", "train"}}
    return parse_config(merged(merged(own, settings), {"train": {"max_minutes": minutes}}))


def _changed(run: RunConfig, change: dict[str, Any], minutes: float) -> RunConfig:
    return parse_config(merged(merged(run.model_dump(), change), {"train": {"max_minutes": minutes}}))
