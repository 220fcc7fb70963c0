"""Bulk embedding equals minibatch inference, and computes every latent once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import ClassVar

import numpy as np
import pytest
import torch

from model.config import NetworkConfig, WalkConfig
from model.errors import PinsageError
from model.graph import BipartiteGraph
from model.inference import Inference
from model.network import Block, PinSage, save_network
from model.walks import Neighborhoods, importance_neighbors
from offline.embedding.embed import embed_all
from offline.embedding.pooling import pool_rows
from offline.training.minibatches import Forgetting, MinibatchBuilder

NUM_PINS = 83


@pytest.fixture
def world(tmp_path: Path) -> tuple[PinSage, np.ndarray, Neighborhoods]:
    """A random graph of 83 pins, 9 of them on no board, with random features and weights."""
    rng = np.random.default_rng(11)
    graph = BipartiteGraph.from_edges(
        rng.integers(NUM_PINS - 9, size=300).astype(np.int32),
        rng.integers(40, size=300).astype(np.int32),
        num_pins=NUM_PINS,
        num_boards=40,
    )
    config = WalkConfig(num_walks=50, num_hops=2, restart=0.5, num_neighbors=6)
    neighborhoods = importance_neighbors(graph, np.arange(NUM_PINS, dtype=np.int32), config, seed=1)
    torch.manual_seed(3)
    network = PinSage(NetworkConfig(num_features=12, hidden_dim=20, embed_dim=16)).eval()
    torch.nn.init.normal_(network.head["G2"].weight)  # it starts at zero, and a zero would hide what comes before it
    save_network(tmp_path, network)
    return network, rng.normal(size=(NUM_PINS, 12)).astype(np.float32), neighborhoods


def bulk(tmp_path: Path, inference: Inference, features_PF: np.ndarray, neighborhoods: Neighborhoods) -> np.ndarray:
    embed_all(
        inference,
        features_PF,
        neighborhoods,
        messages_path=lambda layer: tmp_path / f"messages_{layer}.npy",
        vectors_path=tmp_path / "vectors.npy",
        chunk=17,
        num_threads=2,
        progress=lambda phase, share: None,
    )
    return np.load(tmp_path / "vectors.npy")


def minibatch_vectors(
    network: PinSage, features_PF: np.ndarray, neighborhoods: Neighborhoods, rows_B: np.ndarray
) -> np.ndarray:
    minibatch = MinibatchBuilder(neighborhoods, 2).build(rows_B)
    blocks = [Block(torch.from_numpy(w.neighbors_UT), torch.from_numpy(w.weights_UT)) for w in minibatch.wirings]
    with torch.no_grad():
        vectors_UD = network(torch.from_numpy(features_PF[minibatch.frontier_S]), blocks)
    return vectors_UD.numpy()[minibatch.places_B]


def test_bulk_equals_minibatch_for_every_pin(tmp_path: Path, world: tuple) -> None:
    """But for messages in half precision, which cost less than a thousandth; a network that rounds them is equal."""
    network, features_PF, neighborhoods = world
    vectors_PD = bulk(tmp_path, Inference.load(tmp_path), features_PF, neighborhoods)
    rows_B = np.concatenate([np.arange(NUM_PINS), [5, 5, 80]])  # repeats, and pins on no board
    unrounded_BD = minibatch_vectors(network, features_PF, neighborhoods, rows_B)
    np.testing.assert_allclose(unrounded_BD, vectors_PD[rows_B], rtol=0, atol=1e-3)
    for convolve in network.convolve:
        convolve.message = rounded(convolve.message)
    rounded_BD = minibatch_vectors(network, features_PF, neighborhoods, rows_B)
    np.testing.assert_allclose(rounded_BD, vectors_PD[rows_B], rtol=0, atol=2e-5)


def rounded(message: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda h_SH: message(h_SH).half().float()


def test_a_message_that_half_precision_cannot_hold_stops_it_by_row(tmp_path: Path, world: tuple) -> None:
    _, features_PF, neighborhoods = world
    features_PF[40] *= 1e7
    with pytest.raises(PinsageError, match="what pin 40 gets"):
        bulk(tmp_path, Inference.load(tmp_path), features_PF, neighborhoods)


def test_an_existing_pin_embedded_again_equals_bulk(tmp_path: Path, world: tuple) -> None:
    _, features_PF, neighborhoods = world
    inference = Inference.load(tmp_path)
    vectors_PD = bulk(tmp_path, inference, features_PF, neighborhoods)
    messages = [np.load(tmp_path / f"messages_{layer}.npy") for layer in range(2)]
    again = inference.embed(
        features_PF, neighborhoods.ids_BT, neighborhoods.weights_BT, lambda layer, rows: messages[layer][rows]
    )
    assert (again.vectors_BD * vectors_PD).sum(1).min() >= 0.999


def test_every_message_is_computed_once(tmp_path: Path, world: tuple) -> None:
    _, features_PF, neighborhoods = world

    class Counting(Inference):
        counts: ClassVar = Counter[int]()
        lock = Lock()

        def message(self, layer: int, h_SH: np.ndarray) -> np.ndarray:
            with self.lock:
                self.counts[layer] += len(h_SH)
            return super().message(layer, h_SH)

    bulk(tmp_path, Counting.load(tmp_path), features_PF, neighborhoods)
    assert Counting.counts == {0: NUM_PINS, 1: NUM_PINS}


def test_nothing_but_whole_files_is_left(tmp_path: Path, world: tuple) -> None:
    _, features_PF, neighborhoods = world
    bulk(tmp_path, Inference.load(tmp_path), features_PF, neighborhoods)
    assert sorted(path.name for path in tmp_path.glob("*.npy*")) == ["messages_0.npy", "messages_1.npy", "vectors.npy"]


def test_features_that_are_not_finite_stop_it_by_row(tmp_path: Path, world: tuple) -> None:
    _, features_PF, neighborhoods = world
    features_PF[40, 3] = np.nan
    with pytest.raises(PinsageError, match="what pin 40 gets"):
        bulk(tmp_path, Inference.load(tmp_path), features_PF, neighborhoods)
    assert not (tmp_path / "vectors.npy").exists()


@pytest.mark.parametrize("pooling", ["importance", "mean", "max"])
def test_pooling_over_arrays_equals_pooling_of_gathered_rows(pooling: str) -> None:
    from model.inference import pool_messages

    rng = np.random.default_rng(2)
    messages_PM = rng.random((30, 8), np.float32).astype(np.float16)
    ids_CT = rng.integers(-1, 30, size=(13, 4)).astype(np.int32)
    weights_CT = np.where(ids_CT >= 0, rng.random((13, 4)), 0).astype(np.float32)
    pooled_CM = pool_rows(messages_PM, ids_CT, weights_CT, pooling)
    expected_CM = pool_messages(messages_PM[np.maximum(ids_CT, 0)].astype(np.float32), weights_CT, pooling)
    np.testing.assert_allclose(pooled_CM, expected_CM, atol=1e-5)


def test_forgetting_keeps_rows_summing_to_one_or_zero(world: tuple) -> None:
    _, _, neighborhoods = world
    builder = MinibatchBuilder(neighborhoods, 1)
    minibatch = builder.build(np.arange(NUM_PINS), Forgetting(num_kept=3, isolate=0.3), np.random.default_rng(1))
    weights_UT = minibatch.wirings[0].weights_UT
    sums = weights_UT.sum(1)
    assert weights_UT.shape[1] == 3
    assert np.all(np.isclose(sums, 1, atol=1e-5) | (sums == 0))
    # 74 pins have boards; each is isolated with chance 0.3: fewer than 8 or more than 38 happens less than 1 in 10^4.
    assert 8 <= (sums[:74] == 0).sum() <= 38


def test_a_minibatch_reads_only_pins_it_needs(world: tuple) -> None:
    _, _, neighborhoods = world
    minibatch = MinibatchBuilder(neighborhoods, 1).build(np.array([4, 4]))
    ids_T = neighborhoods.ids_BT[4]
    assert sorted(minibatch.frontier_S) == sorted({4, *ids_T[ids_T >= 0]})
    assert minibatch.places_B.tolist() == [0, 0]
