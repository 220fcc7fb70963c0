"""PinSage in torch, for training (paper, section 3.2, algorithms 1 and 2).

Letters: S pins whose features are read, U pins that a layer outputs, T neighbours, E wires between them, F features,
M message width, D embedding width, H width of a latent (F before the first convolution, D after it).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.config import NetworkConfig, Pooling
from model.files import writing
from model.inference import read_network_config, write_network_config
from model.layers import Dropout, largest, weighted_sum


@dataclass(frozen=True)
class Block:
    """One convolution's wiring, as positions in the previous layer's output, of which the first U are the pins' own.

    neighbors_UT  a pin's neighbours; any valid position where there is none
    weights_UT    their importance, 0 where there is none
    wires_E       optional, for a faster gradient: places in neighbors_UT, flat, by the position they name
    starts_S      where each position's wires begin
    """

    neighbors_UT: Tensor
    weights_UT: Tensor
    wires_E: Tensor | None = None
    starts_S: Tensor | None = None


class Convolve(nn.Module):
    """CONVOLVE (algorithm 1)."""

    def __init__(self, width: int, hidden_dim: int, embed_dim: int, pooling: Pooling, dropout: float) -> None:
        super().__init__()
        self.Q = nn.Linear(width, hidden_dim)
        self.W = nn.Linear(width + hidden_dim, embed_dim)
        self.pooling = pooling
        self.dropout = Dropout(dropout)

    def message(self, h_SH: Tensor) -> Tensor:
        """ReLU(Q h + q), (S, M): once per pin, before the gather."""
        message: Tensor = self.dropout(F.relu(self.Q(h_SH)))
        return message

    def combine(self, h_UH: Tensor, pooled_UM: Tensor) -> Tensor:
        """Unit rows of ReLU(W [h, n] + w), (U, D)."""
        width, weight = h_UH.shape[1], self.W.weight  # by parts, which spares the copy that [h, n] is
        z_UD = F.linear(h_UH, weight[:, :width], self.W.bias) + F.linear(pooled_UM, weight[:, width:])
        return F.normalize(F.relu(z_UD), dim=1)

    def forward(self, h_SH: Tensor, block: Block) -> Tensor:
        """(U, D) from the previous layer's (S, H)."""
        pooled_UM = pool(self.message(h_SH), block, self.pooling)
        return self.combine(h_SH[: len(pooled_UM)], pooled_UM)


def pool(message_SM: Tensor, block: Block, pooling: Pooling) -> Tensor:
    """gamma of algorithm 1: (U, M) from the neighbours' messages, without ever holding a (U, T, M) tensor."""
    weights_UT = block.weights_UT
    known_UT = weights_UT > 0
    if pooling == "max":
        return largest(message_SM, block.neighbors_UT, known_UT)
    if pooling == "mean":
        weights_UT = known_UT / known_UT.sum(1, keepdim=True).clamp(min=1)
    return weighted_sum(message_SM, block.neighbors_UT, weights_UT, block.wires_E, block.starts_S)


class Prior(nn.Module):
    """The popularity prior's weights: set on validation pairs, never by gradients (see offline.training.prior)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, num_prior: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_prior))
        self.register_buffer("bias", torch.zeros(()))


class PinSage(nn.Module):
    """Embeddings of a minibatch (algorithm 2), of unit length; K = 0 is a shared perceptron on the features."""

    def __init__(self, config: NetworkConfig, *, dropout: float = 0.0, feature_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        widths = [config.num_inputs] + [config.embed_dim] * config.num_layers
        self.convolve = nn.ModuleList(
            Convolve(width, config.hidden_dim, config.embed_dim, config.pooling, dropout) for width in widths[:-1]
        )
        last = nn.Linear(config.hidden_dim, config.learned_dim, bias=False)
        if config.residual:  # training starts from the linear map alone, and takes from the graph what helps
            nn.init.zeros_(last.weight)
        self.head = nn.ModuleDict({"G1": nn.Linear(widths[-1], config.hidden_dim), "G2": last})
        self.residual = nn.Linear(config.num_inputs, config.learned_dim) if config.residual else None
        self.prior = Prior(config.num_prior) if config.num_prior else None
        self.dropout = Dropout(dropout)
        self.feature_dropout = Dropout(feature_dropout)

    def forward(self, x_SF: Tensor, blocks: list[Block]) -> Tensor:
        """(U_last, D) unit rows; without the prior's dimension, which training leaves alone."""
        x_SF = self.feature_dropout(x_SF[:, : self.config.num_inputs])
        h_SH, x_UF = x_SF, x_SF
        for convolve, block in zip(self.convolve, blocks, strict=True):
            h_SH = convolve(h_SH, block)
            x_UF = x_UF[: len(h_SH)]
        z_UD: Tensor = self.head["G2"](self.dropout(F.relu(self.head["G1"](h_SH))))
        if self.residual is not None:
            z_UD = z_UD + self.residual(x_UF)
        return F.normalize(z_UD.float(), dim=1)


def save_network(folder: Path, network: PinSage) -> None:
    """Write weights.safetensors and network.json, the pair that model.inference reads."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.detach().float().cpu().contiguous() for name, w in network.state_dict().items()}
    aside = folder / "weights.safetensors.tmp"
    with writing(aside):
        save_file(weights, aside)
    write_network_config(folder / "network.json", network.config)
    aside.replace(folder / "weights.safetensors")


def load_network(folder: Path) -> PinSage:
    """Read what save_network wrote."""
    network = PinSage(read_network_config(folder / "network.json"))
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network
