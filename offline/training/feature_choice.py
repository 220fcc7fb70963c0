"""Networks that look at some groups of the features only, so that what each group is worth can be measured.

Everything that reads features multiplies them by a weight first. So a network is blind to a column where its weights
are zero, and nothing that computes embeddings, here or in the service, has to know of it.

Letters: F features, H hidden columns.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.errors import UserError
from model.features import FeatureEncoder
from model.network import PinSage


def see_only(network: PinSage, encoder: FeatureEncoder, groups: Sequence[str]) -> None:
    """Make the network blind to all other groups of features, and keep it so while it is trained.

    Raises UserError for a group that the data set does not have.
    """
    known = [name for name in encoder.slices if encoder.slices[name].start < network.config.num_inputs]
    absent = [name for name in groups if name not in known]
    if absent:
        raise UserError(f"train.features: this data set has no {', '.join(absent)}; it has: {', '.join(known)}")
    hidden = [np.arange(network.config.num_inputs)[encoder.slices[name]] for name in known if name not in groups]
    if not hidden:
        return
    hidden_H = torch.from_numpy(np.concatenate(hidden))
    for weight in input_weights(network):
        _hold_at_zero(weight, hidden_H)


def input_weights(network: PinSage) -> Iterator[nn.Parameter]:
    """The matrices that features are multiplied by; their first columns are the features'."""
    first = network.convolve[0] if len(network.convolve) else None
    layers = [network.head["G1"]] if first is None else [first.Q, first.W]
    for layer in [*layers, network.residual]:
        if layer is not None:
            assert isinstance(layer.weight, nn.Parameter)
            yield layer.weight


def _hold_at_zero(weight: nn.Parameter, hidden_H: Tensor) -> None:
    """Zero these columns and their gradients: weight decay and Adam leave a zero without a gradient alone."""
    with torch.no_grad():
        weight[:, hidden_H.to(weight.device)] = 0
    zeroed = functools.partial(_without_columns, hidden_H)
    weight.register_hook(zeroed)  # type: ignore[no-untyped-call]


def _without_columns(hidden_H: Tensor, gradient: Tensor) -> Tensor:
    return gradient.index_fill(1, hidden_H.to(gradient.device), 0)
