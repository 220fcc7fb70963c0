"""A run of some dozens of pins with everything that a release needs, made without training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from model.config import NetworkConfig
from model.features import FeatureEncoder
from model.graph import BipartiteGraph
from model.halves import to_halves
from model.inference import NETWORK_FORMAT, weight_shapes
from model.release_writer import SPLITS, ReleaseParts
from model.walks import build_neighborhoods
from offline.config import RunConfig, load_config
from offline.embedding.embed import embed_run
from offline.inputs.encoders import fit_degree, fit_visual
from offline.release.index_stage import build_index
from offline.run_folder import RunFolder

CONFIG = load_config(
    assignments=[
        "walks.num_neighbors=5",
        "walks.num_walks=40",
        "network.hidden_dim=16",
        "network.embed_dim=8",
        "encoder.board_dim=6",
        "encoder.text_dim=0",
        "encoder.annotation_dim=0",
        "train.epochs=1",
        "train.batch_size=16",
        "train.num_negatives=8",
        "threads=1",
    ]
)
NUM_PINS, NUM_BOARDS = 60, 12


def make_run(path: Path, *, config: RunConfig = CONFIG, seed: int = 0) -> RunFolder:
    """Pins p0, p1, … on boards b0, b1, …, with visual vectors (the only content) and random weights."""
    run, rng = RunFolder(path), np.random.default_rng(seed)
    run.prepare.mkdir(parents=True)
    write_tables(run)
    graph = BipartiteGraph.from_edges(
        np.repeat(np.arange(NUM_PINS), 3).astype(np.int32),
        rng.integers(0, NUM_BOARDS, 3 * NUM_PINS).astype(np.int32),
        num_pins=NUM_PINS,
        num_boards=NUM_BOARDS,
    )
    graph.save(run.graph)
    walks = config.walks.to_walk_config()
    build_neighborhoods(
        graph, walks, seed=1, ids_path=run.neighbor_ids, weights_path=run.neighbor_weights, num_threads=1
    )
    visual = rng.normal(size=(NUM_PINS, 4)).astype(np.float32)
    np.save(run.visual, visual)
    features = write_encoder(run, graph, visual)
    write_network(run, NetworkConfig(features, **config.network.model_dump()), rng)
    for split in ("train", "valid", "test"):
        np.save(run.pairs(split), rng.integers(0, NUM_PINS, (20, 2)).astype(np.int32))
    run.config.write_text(json.dumps(config.model_dump()))
    run.dataset.write_text(json.dumps({"path": "/data/tiny"}))
    embed_run(run, chunk=32, num_threads=1, progress=lambda text, share: None)
    build_index(run, config.index, seed=1, num_threads=1)
    return run


def write_tables(run: RunFolder) -> None:
    ids = [f"p{row}" for row in range(NUM_PINS)]
    pins = pa.table(
        {
            "pin_id": ids,
            "title": [f"pin number {row}" for row in range(NUM_PINS)],
            "annotations": [["even" if row % 2 == 0 else "odd"] for row in range(NUM_PINS)],
            "description": pa.nulls(NUM_PINS, pa.string()),
            "image_url": [f"http://images/{pin}.png" for pin in ids],
            "category": ["a" if row % 3 else "b" for row in range(NUM_PINS)],
            "language": pa.nulls(NUM_PINS, pa.string()),
            "created_at": pa.array(range(NUM_PINS), pa.int64()),
        }
    )
    boards = pa.table({"board_id": [f"b{row}" for row in range(NUM_BOARDS)], "title": ["board"] * NUM_BOARDS})
    for path, table in ((run.pins, pins), (run.boards, boards)):
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)


def write_encoder(run: RunFolder, graph: BipartiteGraph, visual: np.ndarray) -> int:
    encoder = FeatureEncoder(visual=fit_visual(visual, 8, seed=0), degree=fit_degree(graph.pin_degrees()))
    encoder.save(run.encoder)
    x = np.zeros((NUM_PINS, encoder.num_features), np.float32)
    x[:, encoder.slices["visual"]] = encoder.visual(visual)  # type: ignore[misc]
    encoder.fill_graph(x, graph.pin_degrees(), np.array([], np.int64))
    np.save(run.features, to_halves(x))
    return encoder.num_features


def write_network(run: RunFolder, config: NetworkConfig, rng: np.random.Generator) -> None:
    run.train.mkdir()
    weights = {name: rng.normal(size=s).astype(np.float32) / 4 for name, s in weight_shapes(config).items()}
    save_file(weights, run.weights)
    run.network.write_text(json.dumps({"format": NETWORK_FORMAT, **vars(config)}))


def release_parts(run: RunFolder) -> ReleaseParts:
    """The parts of the run as a release wants them."""
    return ReleaseParts(
        config=run.config,
        weights=run.weights,
        network=run.network,
        pins=run.pins,
        boards=run.boards,
        graph=run.graph,
        encoder=run.encoder,
        features=run.features,
        embeddings=run.embeddings,
        messages=[run.messages(0), run.messages(1)],
        index=run.index,
        visual=run.visual,
        pairs={split: run.pairs(split) for split in SPLITS},
    )
