"""Pieces of the network that torch has as well, but slower on a processor: pooling's gradient, and dropout.

Letters: S pins whose messages are read, U pins that pool them, T neighbours, M message width, E wires: places of
neighbours in a (U, T) table.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def weighted_sum(
    message_SM: Tensor, neighbors_UT: Tensor, weights_UT: Tensor, wires_E: Tensor | None, starts_S: Tensor | None
) -> Tensor:
    """(U, M) sums of neighbours' messages by weight, without ever holding a (U, T, M) tensor.

    wires_E   places in neighbors_UT, flat, where a pin of S is read, pin by pin; without them torch sorts them itself
    starts_S  where each pin's begin
    """
    weights_UT = weights_UT.to(message_SM.dtype)
    if wires_E is None or starts_S is None:
        return F.embedding_bag(neighbors_UT, message_SM, per_sample_weights=weights_UT, mode="sum")
    pooled_UM: Tensor = _WeightedSum.apply(  # type: ignore[no-untyped-call]
        message_SM, neighbors_UT, weights_UT, wires_E, starts_S
    )
    return pooled_UM


def largest(message_SM: Tensor, neighbors_UT: Tensor, known_UT: Tensor) -> Tensor:
    """(U, M) the largest of the known neighbours' messages in each unit, zeros for a pin that knows none."""
    known_U1 = known_UT.any(dim=1, keepdim=True)
    # A neighbour counted twice changes no maximum, so a known one stands in for those that are not.
    stand_in_U1 = neighbors_UT.gather(1, known_UT.int().argmax(dim=1, keepdim=True))
    return F.embedding_bag(torch.where(known_UT, neighbors_UT, stand_in_U1), message_SM, mode="max") * known_U1


class _WeightedSum(torch.autograd.Function):
    """The gradient is a weighted sum, too, over those who read a message. Adding it up reader by reader, as torch does,
    takes six times as long, and in bfloat16 rounds after every reader instead of once.
    """

    @staticmethod
    def forward(
        ctx: Any, message_SM: Tensor, neighbors_UT: Tensor, weights_UT: Tensor, wires_E: Tensor, starts_S: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weights_UT, wires_E, starts_S)
        return F.embedding_bag(neighbors_UT, message_SM, per_sample_weights=weights_UT, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights_UT, wires_E, starts_S = ctx.saved_tensors
        gradient_UM = gradients[0].contiguous()
        readers_E = wires_E // weights_UT.shape[1]
        weights_E = weights_UT.flatten()[wires_E].to(gradient_UM.dtype)
        gradient_SM = F.embedding_bag(
            readers_E, gradient_UM, starts_S, per_sample_weights=weights_E, mode="sum", include_last_offset=False
        )
        return gradient_SM, None, None, None, None


class Dropout(nn.Module):
    """Leaves out a share of units in training, in steps of 1/256, and scales up the others.

    On a processor torch draws a random number for each unit, one after the other; here one draw serves eight.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; unchanged outside of training."""
        left_out = round(self.share * 256)
        if not self.training or left_out == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.share)
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= left_out
        return x * kept.to(x.dtype).mul_(256 / (256 - left_out))
