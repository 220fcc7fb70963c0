"""Losses against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from model.losses import max_margin_loss, softmax_loss

QUERY_BD = torch.tensor([[1.0, 0.0]])
POSITIVE_BD = torch.tensor([[0.8, 0.6]])  # cosine 0.8
NEGATIVE_ND = torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])  # cosines 0, 0.6, 1


def test_max_margin_by_hand() -> None:
    # max(0, n - 0.8 + 0.3) = 0, 0.1, 0.5 -> mean 0.2
    loss = max_margin_loss(QUERY_BD, POSITIVE_BD, NEGATIVE_ND, None, margin=0.3)
    assert loss.item() == pytest.approx(0.2)


def test_max_margin_counts_hard_negatives_like_shared_ones() -> None:
    # One hard negative with cosine 0.6 adds 0.1: (0 + 0.1 + 0.5 + 0.1) / 4
    hard_BHD = torch.tensor([[[0.6, -0.8]]])
    loss = max_margin_loss(QUERY_BD, POSITIVE_BD, NEGATIVE_ND, hard_BHD, margin=0.3)
    assert loss.item() == pytest.approx(0.175)


def test_max_margin_leaves_masked_negatives_out() -> None:
    # Without the third: (0 + 0.1) / 2
    masked_BN = torch.tensor([[False, False, True]])
    loss = max_margin_loss(QUERY_BD, POSITIVE_BD, NEGATIVE_ND, None, margin=0.3, masked_BN=masked_BN)
    assert loss.item() == pytest.approx(0.05)


def softmax(log_chance: list[float], masked: list[bool]) -> float:
    candidate_CD = torch.cat([POSITIVE_BD, NEGATIVE_ND[:2]])
    loss = softmax_loss(
        QUERY_BD,
        candidate_CD,
        torch.tensor([0]),
        torch.tensor(log_chance),
        torch.tensor(0.5),
        torch.tensor([masked]),
    )
    return loss.item()


def test_softmax_by_hand() -> None:
    # logits 1.6, 0, 1.2
    expected = -math.log(math.exp(1.6) / (math.exp(1.6) + 1 + math.exp(1.2)))
    assert softmax([0.0, 0.0, 0.0], [False, False, False]) == pytest.approx(expected)


def test_softmax_corrects_for_the_chance_of_being_drawn() -> None:
    # The third is drawn twice as often as the others: its logit loses log 2.
    expected = -math.log(math.exp(1.6) / (math.exp(1.6) + 1 + math.exp(1.2) / 2))
    assert softmax([0.0, 0.0, math.log(2)], [False, False, False]) == pytest.approx(expected)


def test_softmax_leaves_accidental_hits_out() -> None:
    expected = -math.log(math.exp(1.6) / (math.exp(1.6) + 1))
    assert softmax([0.0, 0.0, 0.0], [False, False, True]) == pytest.approx(expected)
