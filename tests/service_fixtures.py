"""A small world of planted clusters as a real release, made without training, and helpers of the service's tests.

Pin p<i> belongs to cluster i % 6; its title and tags are words of the cluster, its boards are boards of the cluster.
The weights are random, but the residual path keeps what is alike alike.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import redis
from safetensors.numpy import save_file

from model.config import NetworkConfig, WalkConfig
from model.feature_groups import DegreeScale, PooledTable, PopularityScale, VisualScale
from model.features import FeatureEncoder, PinContent
from model.graph import BipartiteGraph
from model.index import AnnIndex, IndexParams
from model.inference import Inference, weight_shapes, write_network_config
from model.related_lists import write_related_lists
from model.release import Release, open_release, set_current
from model.release_writer import ReleaseParts, write_release
from model.walks import Neighborhoods, importance_neighbors

NUM_CLUSTERS = 6
WORDS = [f"word{i}" for i in range(10 * NUM_CLUSTERS)]
VISUAL_DIM = 12
WALKS = WalkConfig(num_walks=100, num_hops=2, restart=0.5, num_neighbors=10)
WALK_SEED = 7


@dataclass(frozen=True)
class World:
    """What a release is made of, before it is one."""

    titles: list[str]
    tags: list[list[str]]
    visual_PV: np.ndarray
    graph: BipartiteGraph
    around: Neighborhoods

    @property
    def num_pins(self) -> int:
        return len(self.titles)


def words_of(cluster: int) -> list[str]:
    """The ten words of a cluster."""
    return WORDS[10 * cluster : 10 * cluster + 10]


def cluster_of(pin_id: str) -> int:
    """The planted cluster of a pin p<i>."""
    return int(pin_id[1:]) % NUM_CLUSTERS


def make_world(num_pins: int = 300, *, boards_per_cluster: int = 10, seed: int = 0) -> World:
    """Content and graph. The last six pins are on no board."""
    rng = np.random.default_rng(seed)
    clusters_P = np.arange(num_pins) % NUM_CLUSTERS
    words = [rng.choice(words_of(int(c)), 4, replace=False).tolist() for c in clusters_P]
    centers = rng.normal(size=(NUM_CLUSTERS, VISUAL_DIM))
    visual_PV = (centers[clusters_P] + 0.5 * rng.normal(size=(num_pins, VISUAL_DIM))).astype(np.float32)
    pins_E = np.repeat(np.arange(num_pins - 6), 4)
    boards_E = clusters_P[pins_E] * boards_per_cluster + rng.integers(0, boards_per_cluster, len(pins_E))
    graph = BipartiteGraph.from_edges(pins_E, boards_E, num_pins=num_pins, num_boards=NUM_CLUSTERS * boards_per_cluster)
    around = importance_neighbors(graph, np.arange(num_pins), WALKS, seed=WALK_SEED)
    return World([" ".join(w[:3]) for w in words], [w[2:] for w in words], visual_PV, graph, around)


def make_encoder(world: World, *, seed: int = 0) -> FeatureEncoder:
    """Tables in which words, and boards, of one cluster lie near each other."""
    rng = np.random.default_rng(seed)

    def table(num_rows: int, per_cluster: int, dim: int) -> PooledTable:
        centers = rng.normal(size=(NUM_CLUSTERS, dim))
        rows = np.repeat(centers, per_cluster, axis=0)[:num_rows] + 0.5 * rng.normal(size=(num_rows, dim))
        return PooledTable(np.ones(num_rows, np.float32), rows.astype(np.float16))

    num_boards = world.graph.num_boards
    return FeatureEncoder(
        vocabulary={word: row for row, word in enumerate(WORDS)},
        text=table(len(WORDS), 10, 16),
        visual=VisualScale(world.visual_PV.mean(0), world.visual_PV.std(0)),
        boards=table(num_boards, num_boards // NUM_CLUSTERS, 12),
        degree=DegreeScale(1.5, 0.5),
        popularity=PopularityScale(10, 10),
    )


def make_network(encoder: FeatureEncoder, *, hidden_dim: int = 24, embed_dim: int = 16, seed: int = 0) -> Inference:
    """Random weights, and a prior for which a pin that is asked for is a little nearer to all others of its kind."""
    rng = np.random.default_rng(seed)
    config = NetworkConfig(encoder.num_features, hidden_dim, embed_dim, num_prior=encoder.num_prior)
    shapes = weight_shapes(config)
    weights = {name: np.asarray(rng.normal(size=s) / np.sqrt((*s, 1)[-1]), np.float32) for name, s in shapes.items()}
    weights["head.G2.weight"] *= 0.3  # what random convolutions make of the clusters is all alike
    weights |= {"prior.weight": np.array([0.1, 0.2], np.float32), "prior.bias": np.array(0.05, np.float32)}
    return Inference(config, weights)


def make_release(root: Path, world: World | None = None, *, seq: int = 0, seed: int = 0, live: bool = True) -> Release:
    """Write a release of a world and, if `live`, make it the current one."""
    world = world or make_world()
    encoder = make_encoder(world, seed=seed)
    boards = [world.graph.boards_of(row) for row in range(world.num_pins)]
    contents = [
        PinContent(title, tags, None, visual, own)
        for title, tags, visual, own in zip(world.titles, world.tags, world.visual_PV, boards, strict=True)
    ]
    x_PF = encoder.encode(contents)
    encoder.fill_asked(x_PF, np.arange(world.num_pins) % 7)
    network = make_network(encoder, seed=seed)
    messages, vectors_PD = embed_all(network, x_PF, world.around)
    aside = root.parent / f"{root.name}-parts-{seq}-{seed}"
    parts = _write_parts(aside, world, encoder, network, x_PF, messages, vectors_PD)
    manifest = write_release(root, parts, dataset="planted", quality={}, seq=seq)
    if live:
        set_current(root, manifest.id)
    return open_release(root, manifest.id).load()


def embed_all(network: Inference, x_PF: np.ndarray, around: Neighborhoods) -> tuple[list[np.ndarray], np.ndarray]:
    """All pins, layer by layer, as bulk embedding does: messages of each layer and vectors."""
    h_PH, messages = x_PF, []
    weights_PT1 = around.weights_BT[:, :, None]
    for layer in range(network.config.num_layers):
        messages.append(network.message(layer, h_PH))
        h_PH = network.combine(layer, h_PH, (messages[-1][around.ids_BT] * weights_PT1).sum(1))
    return messages, network.head(h_PH, x_PF)


def _write_parts(
    aside: Path,
    world: World,
    encoder: FeatureEncoder,
    network: Inference,
    x_PF: np.ndarray,
    messages: list[np.ndarray],
    vectors_PD: np.ndarray,
) -> ReleaseParts:
    aside.mkdir(parents=True)
    arrays = {"features": x_PF, "embeddings": vectors_PD, "visual": world.visual_PV}
    arrays |= {f"messages_{layer}": message for layer, message in enumerate(messages)}
    for name, array in arrays.items():
        np.save(aside / f"{name}.npy", array)
    (aside / "config.json").write_text(json.dumps({"walks": vars(WALKS)}))
    save_file(network._weights, aside / "weights.safetensors")
    write_network_config(aside / "network.json", network.config)
    world.graph.save(aside / "graph")
    encoder.save(aside / "encoder")
    params = IndexParams(vectors_PD.shape[1], len(vectors_PD))
    index = AnnIndex.build(vectors_PD, params)
    index.save(aside / "index")
    lists = aside / "related"
    write_related_lists(lists, index, vectors_PD, world.graph, WALKS, seed=WALK_SEED, num_threads=1)
    write_tables(aside, world)
    return ReleaseParts(
        aside / "config.json",
        aside / "weights.safetensors",
        aside / "network.json",
        aside / "pins.arrow",
        aside / "boards.arrow",
        aside / "graph",
        aside / "encoder",
        aside / "features.npy",
        aside / "embeddings.npy",
        [aside / f"messages_{layer}.npy" for layer in range(len(messages))],
        aside / "index",
        visual=aside / "visual.npy",
        related=lists,
    )


def write_tables(aside: Path, world: World) -> None:
    """pins.arrow and boards.arrow; every fifth pin has no language."""
    n = world.num_pins
    pins = pa.table(
        {
            "pin_id": [f"p{row}" for row in range(n)],
            "title": world.titles,
            "annotations": world.tags,
            "description": pa.nulls(n, pa.string()),
            "image_url": [f"http://images/p{row}.png" for row in range(n)],
            "category": [f"c{row % NUM_CLUSTERS}" for row in range(n)],
            "language": [None if row % 5 == 0 else ("en", "de")[row % 2] for row in range(n)],
            "created_at": pa.array(range(n), pa.int64()),
        }
    )
    ids = [f"b{row}" for row in range(world.graph.num_boards)]
    for name, table in (("pins", pins), ("boards", pa.table({"board_id": ids, "title": ids}))):
        with pa.OSFile(str(aside / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            # Several chunks, as in a large release.
            writer.write_table(table, max_chunksize=100)


@contextmanager
def frozen(client: redis.Redis) -> Iterator[None]:
    """The server of this client does not answer, though its connections stay open."""
    pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
