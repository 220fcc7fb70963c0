"""The rows of the paper's tables as settings: each differs in what the paper says, and in nothing that was prepared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import SMALL

from model.config import NetworkConfig
from model.network import PinSage
from offline.config import PRESETS, RunConfig, load_config
from offline.evaluation.variants import NO_CONTENT, table_1, table_3, table_4

RUN = load_config(assignments=[*SMALL, "seed=5"])
GROUPS = dict.fromkeys(["text", "annotations", "boards", "degree", "popularity"])


def rows(config: RunConfig = RUN, groups: dict[str, None] = GROUPS) -> dict[str, RunConfig]:
    return {variant.name: variant.config for variant in table_1(config, groups, minutes=3).variants}


def test_rows_of_table_1_stand_in_the_papers_order() -> None:
    names = ["combined", "max-pooling", "mean-pooling", "mean-pooling-xent", "mean-pooling-hard", "pinsage", "mlp"]
    assert list(rows()) == names


@pytest.mark.parametrize(
    ("name", "layers", "pooling", "loss", "hard"),
    [
        ("combined", 0, "importance", "max_margin", False),
        ("max-pooling", 2, "max", "max_margin", False),
        ("mean-pooling", 2, "mean", "max_margin", False),
        ("mean-pooling-xent", 2, "mean", "softmax", False),
        ("mean-pooling-hard", 2, "mean", "max_margin", True),
        ("pinsage", 2, "importance", "max_margin", True),
        ("mlp", 0, "importance", "softmax", False),
    ],
)
def test_what_the_rows_are(name: str, layers: int, pooling: str, loss: str, hard: bool) -> None:
    config = rows()[name]
    assert (config.network.num_layers, config.network.pooling) == (layers, pooling)
    assert (config.train.loss, config.train.max_hard_negatives > 0) == (loss, hard)
    assert config.network.residual is (name == "mlp")
    assert config.train.max_minutes == 3


def test_all_rows_use_what_the_run_prepared_and_its_seed() -> None:
    for name, config in rows().items():
        for part in ("seed", "threads", "walks", "encoder", "pairs"):
            assert getattr(config, part) == getattr(RUN, part), (name, part)


def test_the_pinsage_row_is_the_preset() -> None:
    paper, row = load_config("paper"), rows()["pinsage"]
    assert row.network == paper.network
    assert row.train == paper.train.model_copy(update={"max_minutes": 3})
    assert "board_share" not in PRESETS["paper"]["train"]


def test_combined_sees_content_alone() -> None:
    assert rows()["combined"].train.features == ("text", "annotations")
    assert rows(groups=dict.fromkeys(["visual", "degree"]))["combined"].train.features == ("visual",)
    assert rows()["pinsage"].train.features == ()


def test_without_content_there_is_no_combined() -> None:
    found = table_1(RUN, dict.fromkeys(["boards", "degree"]), minutes=3)
    assert "combined" not in [variant.name for variant in found.variants]
    assert found.skipped == {"combined": NO_CONTENT}


def test_the_rival_does_not_move_with_the_settings_of_the_run() -> None:
    other = load_config(assignments=[*SMALL, "seed=5", "train.loss=max_margin", "network.pooling=max"])
    assert rows(other)["mlp"] == rows()["mlp"]


def test_the_rival_is_a_perceptron_beside_a_linear_path() -> None:
    """z = G2 relu(G1 x + g) + R x + r, one hidden layer of 512; no pin looks at another."""
    config = rows()["mlp"]
    network = PinSage(NetworkConfig(num_features=10, **config.network.model_dump()), dropout=config.train.dropout)
    network.head["G2"].weight.data.normal_()
    x_SF = torch.randn(4, 10)
    with torch.no_grad():
        found = network.eval()(x_SF, [])
        hidden = torch.relu(network.head["G1"](x_SF))
        assert network.residual is not None
        wanted = hidden @ network.head["G2"].weight.T + network.residual(x_SF)
    assert hidden.shape == (4, 512)
    assert found.shape == (4, 256)
    np.testing.assert_allclose(found, wanted / wanted.norm(dim=1, keepdim=True), atol=1e-5)


def test_table_3_changes_the_batch_and_nothing_else() -> None:
    found = {variant.name: variant.config for variant in table_3(RUN, minutes=3).variants}
    assert list(found) == ["512", "1024", "2048", "4096"]
    for name, config in found.items():
        changed = {"batch_size": int(name), "max_minutes": 3}
        assert config == RUN.model_copy(update={"train": RUN.train.model_copy(update=changed)})


def test_table_4_changes_the_neighbours_and_nothing_else() -> None:
    found = {variant.name: variant.config for variant in table_4(RUN, minutes=3).variants}
    assert list(found) == ["10", "20", "50"]
    for name, config in found.items():
        assert config.walks.num_neighbors == config.train.num_neighbors == int(name)
        assert config.walks.num_walks == RUN.walks.num_walks
        assert config.encoder == RUN.encoder
        assert config.network == RUN.network
