"""A data set of three topics with everything an evaluation looks at, and a run of it made without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from model.config import NetworkConfig
from model.features import FeatureEncoder
from model.inference import weight_shapes, write_network_config
from offline.config import load_config
from offline.data.dataset import open_dataset
from offline.embedding.embed import embed_run
from offline.inputs.prepare import prepare
from offline.progress import silent
from offline.release.index_stage import build_index
from offline.run_folder import RunFolder
from offline.stages import _write_json

TOPICS = {"cats": "soft cat fur", "ships": "white ship sail", "bread": "warm bread crust"}
PINS_EACH, COLD_EACH, BOARDS_EACH = 20, 2, 6
CONFIG = load_config(
    assignments=[
        "walks.num_walks=60",
        "walks.num_neighbors=6",
        "encoder.text_dim=8",
        "encoder.annotation_dim=0",
        "encoder.board_dim=8",
        "encoder.min_token_count=1",
        "network.hidden_dim=16",
        "network.embed_dim=12",
        "threads=2",
    ]
)


def write_world(folder: Path, *, titles: bool = True) -> Path:
    """Pin t0..t19 of each topic on boards of its topic, t20 and t21 cold; pairs and users stay inside a topic."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    pins, edges, tests, users = [], [], [], []
    for topic, words in TOPICS.items():
        names = [f"{topic}{n}" for n in range(PINS_EACH + COLD_EACH)]
        for n, name in enumerate(names):
            title = f"{words} {rng.choice(words.split())} {name}" if titles else None
            pins.append({"pin_id": name, "title": title, "annotations": [topic] if titles else [], "category": topic})
            boards = rng.choice(BOARDS_EACH, 2, replace=False)
            edges += [(name, f"{topic}-board{board}") for board in boards]
            tests += [(name, names[(n + step) % PINS_EACH]) for step in (1, 3)]
        users.append({"user_id": topic, "history": names[:8], "held_out": names[8:12]})
    cold = {pin["pin_id"] for pin in pins if int(pin["pin_id"].strip("abcdehiprst")) >= PINS_EACH}
    _write(folder, "pins", pl.DataFrame(pins, schema_overrides={"title": pl.String, "annotations": pl.List(pl.String)}))
    _write(folder, "edges", _table(("pin_id", "board_id"), [e for e in edges if e[0] not in cold]))
    _write(folder, "coldstart_edges", _table(("pin_id", "board_id"), [e for e in edges if e[0] in cold]))
    _write(folder, "coldstart_pins", pl.DataFrame({"pin_id": sorted(cold)}))
    columns = ("query_pin_id", "related_pin_id")
    for split in ("train", "valid", "test"):
        _write(folder, f"pairs_{split}", _table(columns, [t for t in tests if t[0] not in cold]))
    _write(folder, "pairs_coldstart", _table(columns, [t for t in tests if t[0] in cold]))
    _write(folder, "users_test", pl.DataFrame(users))
    return folder


def embedded_run(dataset: Path, path: Path) -> RunFolder:
    """A run up to the index. The weights are random, so only the residual path carries something: the features."""
    run, rng = RunFolder(path), np.random.default_rng(5)
    path.mkdir()
    _write_json(run.config, CONFIG.model_dump())
    prepare(
        open_dataset(dataset),
        run,
        seed=1,
        walks=CONFIG.walks.to_walk_config(),
        encoder=CONFIG.encoder,
        pairs=CONFIG.pairs,
        num_threads=1,
    )
    encoder = FeatureEncoder.load(run.encoder)
    network = NetworkConfig(encoder.num_features, num_prior=encoder.num_prior, **CONFIG.network.model_dump())
    weights = {name: np.asarray(rng.normal(size=s) / 4, np.float32) for name, s in weight_shapes(network).items()}
    run.train.mkdir()
    save_file(weights, run.weights)
    write_network_config(run.network, network)
    embed_run(run, chunk=32, num_threads=1, progress=silent)
    build_index(run, CONFIG.index, seed=1, num_threads=1)
    return run


def _table(columns: tuple[str, str], rows: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _write(folder: Path, name: str, table: pl.DataFrame) -> None:
    table.write_parquet(folder / f"{name}.parquet")
