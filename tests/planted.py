"""A data set with a planted answer: pins of one cluster share boards, words and pairs; clusters share nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

NUM_CLUSTERS, PINS_EACH, BOARDS_EACH = 6, 20, 8
WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord"]

SMALL = (
    "threads=1",
    "walks.num_walks=40",
    "walks.num_neighbors=8",
    "network.hidden_dim=24",
    "network.embed_dim=16",
    "encoder.text_dim=8",
    "encoder.annotation_dim=4",
    "encoder.board_dim=8",
    "train.batch_size=64",
    "train.num_negatives=20",
    "train.epochs=6",
)


def pin(cluster: int, number: int) -> str:
    """The id of a pin; its cluster can be read from it."""
    return f"{WORDS[cluster]}-{number}"


def write_planted(folder: Path, seed: int = 0) -> Path:
    """Write the data set and return its folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    ids = [pin(cluster, number) for cluster in range(NUM_CLUSTERS) for number in range(PINS_EACH)]
    titles = [f"{name.split('-')[0]} thing" for name in ids]
    pl.DataFrame({"pin_id": ids, "title": titles}).write_csv(folder / "pins.csv")
    edges = [
        (pin(cluster, number), f"{WORDS[cluster]}-board-{board}")
        for cluster in range(NUM_CLUSTERS)
        for number in range(PINS_EACH)
        for board in rng.choice(BOARDS_EACH, 3, replace=False)
    ]
    pl.DataFrame(edges, ["pin_id", "board_id"], orient="row").write_csv(folder / "edges.csv")
    taken: set[tuple[str, ...]] = set()
    for split, count in (("train", 200), ("valid", 30), ("test", 60)):
        pairs: list[tuple[str, ...]] = []
        while len(pairs) < count:
            cluster = int(rng.integers(NUM_CLUSTERS))
            pair = tuple(pin(cluster, number) for number in rng.choice(PINS_EACH, 2, replace=False))
            if tuple(sorted(pair)) not in taken:
                taken.add(tuple(sorted(pair)))
                pairs.append(pair)
        table = pl.DataFrame(sorted(pairs), ["query_pin_id", "related_pin_id"], orient="row")
        table.write_csv(folder / f"pairs_{split}.csv")
    return folder
