"""The network against numbers worked by hand, and its two implementations against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import NetworkConfig
from model.errors import ReleaseError
from model.inference import MOST_POPULAR, Inference, pool_messages, weight_shapes
from model.network import Block, Convolve, PinSage, load_network, pool, save_network

CONFIG = NetworkConfig(num_features=7, hidden_dim=6, embed_dim=5, num_layers=2)


def make_network(config: NetworkConfig = CONFIG, seed: int = 0) -> PinSage:
    torch.manual_seed(seed)
    network = PinSage(config).eval()
    torch.nn.init.normal_(network.head["G2"].weight)  # it starts at zero, and a zero would hide what comes before it
    return network


def make_block(ids: list[list[int]], weights: list[list[float]]) -> Block:
    return Block(torch.tensor(ids), torch.tensor(weights))


def identity_convolve() -> Convolve:
    """Q = identity with q = (0, -1); W adds the pin's own latent and the pooled one, w = (0, -1)."""
    convolve = Convolve(width=2, hidden_dim=2, embed_dim=2, pooling="importance", dropout=0.0)
    eye = torch.eye(2)
    with torch.no_grad():
        convolve.Q.weight.copy_(eye)
        convolve.Q.bias.copy_(torch.tensor([0.0, -1.0]))
        convolve.W.weight.copy_(torch.cat([eye, eye], dim=1))
        convolve.W.bias.copy_(torch.tensor([0.0, -1.0]))
    return convolve


def test_algorithm_1_on_three_pins_by_hand() -> None:
    # Messages ReLU(h + (0, -1)): (1, 0), (0, 2), (4, 0). Pin 0 pools 3/4 of pin 1 and 1/4 of pin 2: (1, 1.5).
    # Own (1, 0) + pooled (1, 1.5) + (0, -1) = (2, 0.5), length sqrt(4.25).
    h_SH = torch.tensor([[1.0, 0.0], [0.0, 3.0], [4.0, 1.0]])
    block = make_block([[1, 2]], [[0.75, 0.25]])
    z_UD = identity_convolve()(h_SH, block)
    assert z_UD.tolist()[0] == pytest.approx([2 / 4.25**0.5, 0.5 / 4.25**0.5])


def test_a_pin_without_neighbours_keeps_its_own_latent_only() -> None:
    # Own (3, 4) + (0, -1) = (3, 3).
    h_SH = torch.tensor([[3.0, 4.0]])
    z_UD = identity_convolve()(h_SH, make_block([[0]], [[0.0]]))
    assert z_UD.tolist()[0] == pytest.approx([0.5**0.5, 0.5**0.5])


@pytest.mark.parametrize("pooling", ["importance", "mean", "max"])
def test_the_order_of_neighbours_changes_nothing(pooling: str) -> None:
    network = make_network(replace(CONFIG, pooling=pooling, num_layers=1))
    x_SF = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    one = network(x_SF, [make_block([[1, 2, 3]], [[0.5, 0.3, 0.2]])])
    other = network(x_SF, [make_block([[3, 1, 2]], [[0.2, 0.5, 0.3]])])
    torch.testing.assert_close(one, other)


def test_poolings_by_hand() -> None:
    message_SM = torch.tensor([[1.0, 0.0], [0.0, 4.0], [2.0, 2.0]])
    block = make_block([[0, 1, 2]], [[0.75, 0.25, 0.0]])
    assert pool(message_SM, block, "importance").tolist() == [[0.75, 1.0]]
    assert pool(message_SM, block, "mean").tolist() == [[0.5, 2.0]]
    assert pool(message_SM, block, "max").tolist() == [[1.0, 4.0]]


@pytest.mark.parametrize("pooling", ["importance", "mean", "max"])
def test_poolings_are_the_same_in_numpy(pooling: str) -> None:
    rng = np.random.default_rng(3)
    message_SM = rng.random((6, 4), np.float32)
    ids_UT = rng.integers(6, size=(5, 3))
    weights_UT = rng.random((5, 3), np.float32) * (rng.random((5, 3)) < 0.7)
    block = Block(torch.from_numpy(ids_UT), torch.from_numpy(weights_UT.astype(np.float32)))
    torch_UM = pool(torch.from_numpy(message_SM), block, pooling)  # type: ignore[arg-type]
    numpy_UM = pool_messages(message_SM[ids_UT], weights_UT.astype(np.float32), pooling)
    np.testing.assert_allclose(numpy_UM, torch_UM.numpy(), atol=1e-6)


@pytest.mark.parametrize("num_layers", [0, 1, 2])
@pytest.mark.parametrize("residual", [True, False])
def test_embeddings_have_unit_length(num_layers: int, residual: bool) -> None:
    network = make_network(replace(CONFIG, num_layers=num_layers, residual=residual, hidden_dim=64))
    x_SF = torch.randn(3, 7, generator=torch.Generator().manual_seed(2))
    blocks = [make_block([[1], [2], [0]], [[1.0], [1.0], [0.0]])] * num_layers
    lengths = network(x_SF, blocks).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3))


def test_a_saved_network_computes_the_same(tmp_path: Path) -> None:
    network = make_network()
    save_network(tmp_path, network)
    x_SF = torch.randn(3, 7, generator=torch.Generator().manual_seed(2))
    blocks = [make_block([[1], [2], [0]], [[1.0], [1.0], [1.0]])] * 2
    torch.testing.assert_close(load_network(tmp_path).eval()(x_SF, blocks), network(x_SF, blocks))


def test_weight_names_and_shapes_are_those_of_the_file(tmp_path: Path) -> None:
    network = make_network()
    assert {name: tuple(w.shape) for name, w in network.state_dict().items()} == weight_shapes(CONFIG)


def test_inference_on_stored_messages_equals_the_network(tmp_path: Path) -> None:
    # Pins 0..3 form a ring; pin 4 hangs on 0 and 1, and nobody has it as a neighbour, like a pin added later.
    network = make_network()
    save_network(tmp_path, network)
    x_SF = torch.randn(5, 7, generator=torch.Generator().manual_seed(4))
    ids, weights = [[1, 3], [2, 0], [3, 1], [0, 2], [0, 1]], [[0.6, 0.4]] * 5
    block = make_block(ids, weights)
    with torch.no_grad():
        expected_D = network(x_SF, [block, block])[4].numpy()
        first_SM = network.convolve[0].message(x_SF)
        second_SM = network.convolve[1].message(network.convolve[0](x_SF, block))
    messages = [first_SM.numpy(), second_SM.numpy()]
    inference = Inference.load(tmp_path)
    embedded = inference.embed(
        x_SF[4:].numpy(), np.array([[0, 1]]), np.float32([[0.6, 0.4]]), lambda layer, rows: messages[layer][rows]
    )
    np.testing.assert_allclose(embedded.vectors_BD[0], expected_D, atol=1e-5)
    np.testing.assert_allclose(embedded.messages_BM[1][0], messages[1][4], atol=1e-5)


def test_missing_neighbours_are_not_gathered(tmp_path: Path) -> None:
    save_network(tmp_path, make_network())
    asked: list[np.ndarray] = []

    def gather(layer: int, rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return np.ones((len(rows), 6), np.float32)

    Inference.load(tmp_path).embed(np.ones((1, 7), np.float32), np.array([[3, -1]]), np.float32([[1.0, 0.0]]), gather)
    assert [rows.tolist() for rows in asked] == [[3], [3]]


def with_prior(tmp_path: Path, bias: float, weight: list[float]) -> Inference:
    network = make_network(replace(CONFIG, num_prior=2))
    assert network.prior is not None
    network.prior.bias.fill_(bias)
    network.prior.weight.copy_(torch.tensor(weight))
    save_network(tmp_path, network)
    return Inference.load(tmp_path)


def test_the_prior_is_the_last_dimension_and_linear_in_its_own_features(tmp_path: Path) -> None:
    inference = with_prior(tmp_path, 0.1, [0.5, 0.25])
    x_BF = np.random.default_rng(1).normal(size=(3, 7)).astype(np.float32)
    x_BF[:, 5:] = [[0.0, 0.0], [0.4, 0.2], [9.0, 9.0]]  # 0.1, 0.1 + 0.2 + 0.05, and one that is cut off
    h_BD = np.ones((3, 5), np.float32)
    vectors_BD = inference.head(h_BD, x_BF)
    np.testing.assert_allclose(vectors_BD[:, -1], [0.1, 0.35, MOST_POPULAR], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors_BD, axis=1), 1, atol=1e-6)


def test_the_network_does_not_read_the_priors_features(tmp_path: Path) -> None:
    inference = with_prior(tmp_path, 0.0, [0.0, 0.0])
    x_BF = np.random.default_rng(1).normal(size=(2, 7)).astype(np.float32)
    other_BF = x_BF.copy()
    other_BF[:, 5:] = 1.0
    ids_BT, weights_BT = np.array([[0], [0]]), np.ones((2, 1), np.float32)
    one, other = (
        inference.embed(x, ids_BT, weights_BT, lambda k, r: np.ones((len(r), 6), "f4")) for x in (x_BF, other_BF)
    )
    np.testing.assert_array_equal(one.vectors_BD, other.vectors_BD)


def test_without_a_prior_training_and_serving_agree_up_to_the_last_zero(tmp_path: Path) -> None:
    inference = with_prior(tmp_path, 0.0, [0.0, 0.0])
    x_SF = torch.randn(2, 7, generator=torch.Generator().manual_seed(4))
    block = make_block([[0], [0]], [[0.0], [0.0]])
    with torch.no_grad():
        expected_BD = load_network(tmp_path).eval()(x_SF, [block, block])
    alone = inference.embed(
        x_SF.numpy(), np.full((2, 1), -1), np.zeros((2, 1), "f4"), lambda k, r: np.empty((0, 6), "f4")
    )
    np.testing.assert_allclose(alone.vectors_BD, np.pad(expected_BD.numpy(), ((0, 0), (0, 1))), atol=1e-5)


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    save_network(tmp_path, make_network())
    weights = Inference.load(tmp_path)._weights | {"head.G1.bias": np.zeros(3, np.float32)}
    with pytest.raises(ReleaseError, match=r"head\.G1\.bias should be \(6,\)"):
        Inference(CONFIG, weights)


def test_a_damaged_weight_file_is_refused_by_name(tmp_path: Path) -> None:
    save_network(tmp_path, make_network())
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ReleaseError, match=r"weights\.safetensors"):
        Inference.load(tmp_path)
