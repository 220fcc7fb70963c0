"""The two ranking losses.

Letters: B labelled pairs of the batch, N negatives shared by all of them, H hard negatives of each, D embedding width.
All vectors have unit length, so a product of two is their cosine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def max_margin_loss(
    query_BD: Tensor,
    positive_BD: Tensor,
    negative_ND: Tensor,
    hard_BHD: Tensor | None,
    margin: float,
    masked_BN: Tensor | None = None,
) -> Tensor:
    """Mean over pairs and negatives of max(0, z_q . z_n - z_q . z_i + margin) (paper, equation 1).

    masked_BN is true where a shared negative is in truth related to the query; hard_BHD holds each pair's own hard
    negatives, which count like shared ones.
    """
    positive_B1 = (query_BD * positive_BD).sum(1, keepdim=True)
    violation_BN = F.relu(query_BD @ negative_ND.T - positive_B1 + margin)
    counted_BN = torch.ones_like(violation_BN) if masked_BN is None else (~masked_BN).to(violation_BN.dtype)
    total, count = (violation_BN * counted_BN).sum(), counted_BN.sum()
    if hard_BHD is not None and hard_BHD.shape[1]:
        hard_BH = torch.einsum("bd,bhd->bh", query_BD, hard_BHD)
        total = total + F.relu(hard_BH - positive_B1 + margin).sum()
        count = count + hard_BH.numel()
    return total / count.clamp(min=1)


def softmax_loss(
    query_BD: Tensor,
    candidate_CD: Tensor,
    target_B: Tensor,
    log_chance_C: Tensor,
    temperature: Tensor,
    masked_BC: Tensor,
) -> Tensor:
    """Sampled softmax over the batch's own positives and the shared negatives, corrected for how they were drawn.

    logit(q, c) = z_q . z_c / temperature - log chance(c), where chance is the expected number of times that c is among
    the candidates (the logQ correction); masked_BC is true for accidental hits, which leave the sum.
    """
    logits_BC = query_BD @ candidate_CD.T / temperature - log_chance_C
    logits_BC = logits_BC.masked_fill(masked_BC, float("-inf"))
    return F.cross_entropy(logits_BC, target_B)
