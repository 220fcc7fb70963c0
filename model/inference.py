"""The network without torch: what the service and the bulk jobs compute an embedding with.

Letters: B pins asked for, S pins with a latent at hand, T neighbours, F features, M message width, D embedding width,
H width of a latent (F before the first convolution, D after it).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from model.config import NetworkConfig
from model.errors import ReleaseError

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]
Gather = Callable[[int, Rows], Floats]

NETWORK_FORMAT = 3
EPSILON = 1e-12
MOST_POPULAR = 0.97  # a prior coordinate of one would leave nothing of the pin itself


@dataclass(frozen=True)
class Embedded:
    """What the network knows of B pins: one message per layer, for others to pool, and the unit vectors."""

    messages_BM: list[Floats]
    vectors_BD: Floats


def unit_rows(x_BD: Floats) -> Floats:
    """Rows scaled to length one; rows of zeros stay zeros."""
    norms = np.sqrt(np.einsum("bd,bd->b", x_BD, x_BD))
    scaled: Floats = x_BD / np.maximum(norms, EPSILON)[:, None]
    return scaled


def add_prior(z_BD: Floats, popularity_B: Floats) -> Floats:
    """Unit rows [sqrt(1 - p^2) z, p], one dimension wider: two popular pins come nearer, all else stays in order."""
    p_B1 = popularity_B[:, None]
    return np.concatenate([np.sqrt(1 - p_B1 * p_B1) * z_BD, p_B1], axis=1).astype(np.float32)


def weighted_sum(weights_BT: Floats, messages_BTM: Floats) -> Floats:
    """(B, M): each row's messages summed by weight, one small matrix product a row."""
    pooled_BM: Floats = np.matmul(weights_BT[:, None, :], messages_BTM)[:, 0]
    return pooled_BM


def pool_messages(messages_BTM: Floats, weights_BT: Floats, pooling: str) -> Floats:
    """gamma of algorithm 1: neighbours' messages to one row each; a pin without neighbours pools to zeros."""
    known_BT = weights_BT > 0
    if pooling == "importance":
        return weighted_sum(weights_BT, messages_BTM)
    if pooling == "mean":
        share_BT = known_BT / np.maximum(known_BT.sum(1, keepdims=True), 1)
        return weighted_sum(share_BT.astype(np.float32), messages_BTM)
    # Messages come out of a ReLU, so zero is a lower bound and marks "no neighbour" without changing a maximum.
    maximum: Floats = np.where(known_BT[:, :, None], messages_BTM, 0).max(axis=1, initial=0)
    return maximum


class Inference:
    """PinSage's forward pass (paper, algorithms 1 and 2) on NumPy arrays."""

    def __init__(self, config: NetworkConfig, weights: dict[str, Floats]) -> None:
        """Raises ReleaseError when a weight is missing or has another shape than the configuration says."""
        self.config = config
        self._weights = {name: np.array(w, np.float32, order="C") for name, w in weights.items()}
        for name, shape in weight_shapes(config).items():
            found = self._weights.get(name)
            if found is None or found.shape != shape:
                raise ReleaseError(f"weights: {name} should be {shape}, is {None if found is None else found.shape}")
            if not np.isfinite(found).all():
                raise ReleaseError(f"weights: {name} is not finite")

    @classmethod
    def load(cls, folder: Path) -> Inference:
        """Read network.json and weights.safetensors. Raises ReleaseError naming the file that does not fit."""
        try:
            weights = load_file(folder / "weights.safetensors")
        except (OSError, SafetensorError) as error:
            raise ReleaseError(f"{folder / 'weights.safetensors'}: {error}") from error
        return cls(read_network_config(folder / "network.json"), weights)

    def message(self, layer: int, h_SH: Floats) -> Floats:
        """ReLU(Q h + q), (S, M): what a pin tells those that have it as a neighbour (algorithm 1, line 1)."""
        return _relu(self._linear(f"convolve.{layer}.Q", self._latents(layer, h_SH)))

    def combine(self, layer: int, h_BH: Floats, pooled_BM: Floats) -> Floats:
        """Unit rows of ReLU(W [h, n] + w), (B, D) (algorithm 1, lines 2 and 3)."""
        both = np.concatenate([self._latents(layer, h_BH), pooled_BM], axis=1)
        return unit_rows(_relu(self._linear(f"convolve.{layer}.W", both)))

    def head(self, h_BH: Floats, x_BF: Floats) -> Floats:
        """Unit rows of G2 ReLU(G1 h + g), (B, D) (algorithm 2, line 16), plus R x + r and the prior if on."""
        h_BH = self._latents(self.config.num_layers, h_BH)
        z_BD = _relu(self._linear("head.G1", h_BH)) @ self._weights["head.G2.weight"].T
        if self.config.residual:
            z_BD += self._linear("residual", self.inputs(x_BF))
        z_BD = unit_rows(z_BD)
        return add_prior(z_BD, self.popularity(x_BF)) if self.config.num_prior else z_BD

    def inputs(self, x_BF: Floats) -> Floats:
        """The features that the network reads."""
        return x_BF[:, : self.config.num_inputs]

    def popularity(self, x_BF: Floats) -> Floats:
        """(B,) in [0, 0.97]: the prior's coordinate, linear in the features that are its own."""
        prior_B = x_BF[:, self.config.num_inputs :] @ self._weights["prior.weight"] + self._weights["prior.bias"]
        clipped: Floats = prior_B.clip(0, MOST_POPULAR)
        return clipped

    def embed(self, x_BF: Floats, ids_BT: Rows, weights_BT: Floats, gather: Gather) -> Embedded:
        """Embed pins from their own features and their neighbours' stored messages.

        ids_BT      neighbours' rows, -1 where there is none
        weights_BT  their normalised visit counts, 0 where there is none
        gather      (layer, rows) -> messages (len(rows), M) of that layer
        """
        known_BT = ids_BT >= 0
        weights_BT = np.where(known_BT, weights_BT, 0).astype(np.float32)
        h_BH, messages = x_BF, []
        for layer in range(self.config.num_layers):
            messages.append(self.message(layer, h_BH))
            neighbors_BTM = np.zeros((*ids_BT.shape, self.config.hidden_dim), np.float32)
            neighbors_BTM[known_BT] = gather(layer, ids_BT[known_BT])
            pooled_BM = pool_messages(neighbors_BTM, weights_BT, self.config.pooling)
            h_BH = self.combine(layer, h_BH, pooled_BM)
        return Embedded(messages, self.head(h_BH, x_BF))

    def _latents(self, layer: int, h_BH: Floats) -> Floats:
        """What a layer reads: the network's inputs before the first, the latents themselves later."""
        return self.inputs(h_BH) if layer == 0 else h_BH

    def _linear(self, name: str, x_BH: Floats) -> Floats:
        product: Floats = x_BH @ self._weights[f"{name}.weight"].T
        product += self._weights[f"{name}.bias"]
        return product


def _relu(x_BH: Floats) -> Floats:
    return np.maximum(x_BH, 0, out=x_BH)


def weight_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight; the names are the ones inside weights.safetensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    width, hidden, dim = config.num_inputs, config.hidden_dim, config.embed_dim
    for layer in range(config.num_layers):
        shapes[f"convolve.{layer}.Q.weight"] = (hidden, width)
        shapes[f"convolve.{layer}.Q.bias"] = (hidden,)
        shapes[f"convolve.{layer}.W.weight"] = (dim, width + hidden)
        shapes[f"convolve.{layer}.W.bias"] = (dim,)
        width = dim
    shapes["head.G1.weight"] = (hidden, width)
    shapes["head.G1.bias"] = (hidden,)
    shapes["head.G2.weight"] = (config.learned_dim, hidden)
    if config.residual:
        shapes["residual.weight"] = (config.learned_dim, config.num_inputs)
        shapes["residual.bias"] = (config.learned_dim,)
    if config.num_prior:
        shapes["prior.weight"], shapes["prior.bias"] = (config.num_prior,), ()
    return shapes


def write_network_config(path: Path, config: NetworkConfig) -> None:
    """Write network.json."""
    path.write_text(json.dumps({"format": NETWORK_FORMAT, **asdict(config)}, indent=1) + "\n")


def read_network_config(path: Path) -> NetworkConfig:
    """Read network.json. Raises ReleaseError naming the file."""
    try:
        fields = json.loads(path.read_text())
        found = fields.pop("format")
        if found != NETWORK_FORMAT:
            raise ReleaseError(f"{path}: format {found}, this program reads {NETWORK_FORMAT}")
        return NetworkConfig(**fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ReleaseError(f"{path}: {error}") from error
