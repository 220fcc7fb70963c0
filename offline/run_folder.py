"""The run folder: where each stage of the offline half writes, and which stages are done."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAMP_FORMAT = 1


@dataclass(frozen=True)
class RunFolder:
    """Names of everything inside RUN; making one does not touch the disk."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset.json"

    @property
    def prepare(self) -> Path:
        return self.path / "prepare"

    @property
    def pins(self) -> Path:
        return self.prepare / "pins.arrow"

    @property
    def boards(self) -> Path:
        return self.prepare / "boards.arrow"

    @property
    def graph(self) -> Path:
        return self.prepare / "graph"

    @property
    def neighbor_ids(self) -> Path:
        return self.prepare / "neighbors_ids.npy"

    @property
    def neighbor_weights(self) -> Path:
        return self.prepare / "neighbors_weights.npy"

    @property
    def features(self) -> Path:
        return self.prepare / "features.npy"

    @property
    def visual(self) -> Path:
        return self.prepare / "visual.npy"

    @property
    def encoder(self) -> Path:
        return self.prepare / "encoder"

    @property
    def held_out_edges(self) -> Path:
        return self.prepare / "held_out_edges.npy"

    def pairs(self, split: str) -> Path:
        return self.prepare / f"pairs_{split}.npy"

    @property
    def train(self) -> Path:
        return self.path / "train"

    @property
    def weights(self) -> Path:
        return self.train / "weights.safetensors"

    @property
    def network(self) -> Path:
        return self.train / "network.json"

    def messages(self, layer: int) -> Path:
        return self.path / "embed" / f"messages_{layer}.npy"

    @property
    def embeddings(self) -> Path:
        return self.path / "embeddings.npy"

    @property
    def pin_ids(self) -> Path:
        return self.path / "pin_ids.txt"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def related(self) -> Path:
        return self.path / "related"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def stamp(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def read_stamp(self, stage: str) -> dict[str, Any] | None:
        """The stamp of a finished stage, or None."""
        try:
            stamp: dict[str, Any] = json.loads(self.stamp(stage).read_text())
        except (OSError, ValueError):
            return None
        return stamp if stamp.get("format") == STAMP_FORMAT else None

    def is_done(self, stage: str, inputs: str) -> bool:
        """Whether the stage finished on just these inputs."""
        stamp = self.read_stamp(stage)
        return stamp is not None and stamp["inputs"] == inputs

    def write_stamp(self, stage: str, inputs: str, seconds: float) -> None:
        """Say that the stage is done; written aside and renamed, so a stamp is whole or absent."""
        path = self.stamp(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        stamp = {
            "stage": stage,
            "format": STAMP_FORMAT,
            "inputs": inputs,
            "seconds": round(seconds, 3),
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        aside.write_text(json.dumps(stamp, indent=1) + "\n")
        aside.replace(path)


def fingerprint(*parts: object) -> str:
    """A short hash of plain values: what a stage's result depends on."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
