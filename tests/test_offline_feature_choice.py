"""A network that is told to look at some groups of features does not know the others, wherever it is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import SMALL, write_planted

from model.errors import UserError
from model.features import FeatureEncoder
from model.inference import Inference
from offline.config import load_config
from offline.run_folder import RunFolder
from offline.stages import run_stages
from offline.training.train import Trainer

NONE = (np.full((1, 1), -1), np.zeros((1, 1), np.float32))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    data = write_planted(folder / "data")
    run_stages(data, RunFolder(folder / "run"), load_config(assignments=SMALL), stages=["prepare"])
    return folder / "run" / "prepare"


def train(folder: Path, prepared: Path, *assignments: str) -> RunFolder:
    run = RunFolder(folder)
    run.train.mkdir(parents=True)
    run.prepare.symlink_to(prepared)
    config = load_config(assignments=[*SMALL, "train.epochs=2", "train.prior=false", *assignments])
    Trainer(run, config, num_threads=1).train("", lambda text, share: None)
    return run


def moved_by(run: RunFolder, group: str) -> float:
    """How far the embeddings move when a group of features is drawn at random."""
    inference, encoder = Inference.load(run.train), FeatureEncoder.load(run.encoder)
    x_BF = np.load(run.features)
    ids_BT, weights_BT = np.load(run.neighbor_ids), np.load(run.neighbor_weights)

    def vectors(x_BF: np.ndarray) -> np.ndarray:
        messages: list[np.ndarray] = []
        latent_BH = x_BF
        for layer in range(inference.config.num_layers):
            messages.append(inference.message(layer, latent_BH))
            pooled = np.einsum("bt,btm->bm", weights_BT, messages[-1][ids_BT])
            latent_BH = inference.combine(layer, latent_BH, pooled)
        return inference.head(latent_BH, x_BF)

    before = vectors(x_BF)
    columns = encoder.slices[group]
    x_BF[:, columns] = np.random.default_rng(1).normal(size=x_BF[:, columns].shape)
    return float(np.abs(vectors(x_BF) - before).max())


@pytest.mark.parametrize("layers", [0, 2])
def test_hidden_groups_change_nothing(tmp_path: Path, prepared: Path, layers: int) -> None:
    run = train(
        tmp_path / "run", prepared, 'train.features=["text"]', f"network.num_layers={layers}", "train.weight_decay=0.1"
    )
    assert [moved_by(run, group) for group in ("boards", "degree", "annotations")] == [0, 0, 0]
    assert moved_by(run, "text") > 0.1


def test_all_groups_count_where_none_is_named(tmp_path: Path, prepared: Path) -> None:
    run = train(tmp_path / "run", prepared, "train.linear_start=false")  # which leaves the degree out
    assert min(moved_by(run, group) for group in ("text", "annotations", "boards", "degree")) > 0.01


def test_a_group_that_the_data_does_not_have_is_named(tmp_path: Path, prepared: Path) -> None:
    with pytest.raises(UserError, match=r"no visual; it has: text, annotations, boards, degree$"):
        train(tmp_path / "run", prepared, 'train.features=["text", "visual"]')
