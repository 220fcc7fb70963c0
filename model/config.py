"""The numbers that give walks and weights their meaning; they travel with every release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pooling = Literal["importance", "mean", "max"]


@dataclass(frozen=True)
class WalkConfig:
    """How the importance neighbourhood N(u) is drawn (paper 3.1; counts and lengths are our choice).

    num_walks      walks from each pin
    num_hops       most steps pin -> board -> pin of one walk
    restart        probability that a walk ends after a hop
    num_neighbors  T, the most visited pins that are kept
    """

    num_walks: int = 200
    num_hops: int = 2
    restart: float = 0.5
    num_neighbors: int = 50


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of the network (paper, algorithms 1 and 2).

    num_features  width F of a pin's row of features
    num_prior     how many of them, the last ones, only the popularity prior reads; the network reads the others
    hidden_dim    width M of a message ReLU(Q h + q); the paper's m
    embed_dim     width D of an embedding; the paper's d
    num_layers    K convolutions; 0 leaves the shared perceptron of the "Combined" row of table 1
    pooling       gamma: importance (weighted mean), mean or max
    residual      add a linear map of the input to the head, so that content need not pass the convolutions
    """

    num_features: int
    hidden_dim: int = 512
    embed_dim: int = 256
    num_layers: int = 2
    pooling: Pooling = "importance"
    residual: bool = True
    num_prior: int = 0

    @property
    def num_inputs(self) -> int:
        """How many features the network reads."""
        return self.num_features - self.num_prior

    @property
    def learned_dim(self) -> int:
        """How many dimensions of an embedding the network decides; the prior has one where there is one."""
        return self.embed_dim - (self.num_prior > 0)
