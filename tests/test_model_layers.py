"""Pooling's gradient against torch's own, and what dropout leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.layers import Dropout, largest, weighted_sum
from offline.training.minibatches import sort_wires

NUM_READ, NUM_POOLED, WIDTH = 9, 7, 5


def wiring(seed: int, known: float) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and weights, some of them 0; no neighbour is pin 8."""
    rng = np.random.default_rng(seed)
    neighbors_UT = rng.integers(NUM_READ - 1, size=(NUM_POOLED, 4)).astype(np.int32)
    weights_UT = rng.random((NUM_POOLED, 4), np.float32) * (rng.random((NUM_POOLED, 4)) < known)
    return neighbors_UT, weights_UT.astype(np.float32)


@pytest.mark.parametrize("known", [1.0, 0.6, 0.0])
def test_the_gradient_of_pooling_is_torchs(known: float) -> None:
    neighbors_UT, weights_UT = wiring(3, known)
    wires = map(torch.from_numpy, sort_wires(neighbors_UT, weights_UT, NUM_READ))
    tensors = torch.from_numpy(neighbors_UT), torch.from_numpy(weights_UT)
    ours_SM, torchs_SM = (torch.arange(45.0).view(NUM_READ, WIDTH).requires_grad_() for _ in range(2))
    factors_UM = torch.randn(NUM_POOLED, WIDTH, generator=torch.Generator().manual_seed(1))
    pooled_UM = weighted_sum(ours_SM, *tensors, *wires)
    expected_UM = weighted_sum(torchs_SM, *tensors, None, None)
    torch.testing.assert_close(pooled_UM, expected_UM)
    (pooled_UM * factors_UM).sum().backward()
    (expected_UM * factors_UM).sum().backward()
    torch.testing.assert_close(ours_SM.grad, torchs_SM.grad)
    assert ours_SM.grad is not None
    assert not ours_SM.grad[8].any()


@pytest.mark.parametrize("known", [1.0, 0.6, 0.0])
def test_the_largest_message_and_its_gradient(known: float) -> None:
    """Against all neighbours' messages side by side; some pins know no neighbour, in 0.6 and in 0.0."""
    neighbors_UT, weights_UT = wiring(5, known)
    weights_UT[2] = 0
    neighbors, known_UT = torch.from_numpy(neighbors_UT), torch.from_numpy(weights_UT) > 0
    drawn_SM = torch.rand(NUM_READ, WIDTH, generator=torch.Generator().manual_seed(1))
    ours_SM, dense_SM = (drawn_SM.clone().requires_grad_() for _ in range(2))
    factors_UM = torch.randn(NUM_POOLED, WIDTH, generator=torch.Generator().manual_seed(2))
    pooled_UM = largest(ours_SM, neighbors, known_UT)
    expected_UM = (dense_SM[neighbors] * known_UT[:, :, None]).max(dim=1).values
    torch.testing.assert_close(pooled_UM, expected_UM)
    assert not pooled_UM[2].any()
    (pooled_UM * factors_UM).sum().backward()
    (expected_UM * factors_UM * (expected_UM > 0)).sum().backward()
    torch.testing.assert_close(ours_SM.grad, dense_SM.grad)


def test_wires_name_each_place_once_by_position() -> None:
    neighbors_UT, weights_UT = wiring(4, 0.7)
    wires_E, starts_S = sort_wires(neighbors_UT, weights_UT, NUM_READ)
    assert sorted(wires_E) == np.flatnonzero(weights_UT).tolist()
    for position, places in enumerate(np.split(wires_E, starts_S[1:])):
        assert set(neighbors_UT.ravel()[places]) <= {position}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_leaves_out_its_share_and_scales_up_the_others(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = Dropout(0.25)(torch.ones(101, 999, dtype=dtype)).float()
    assert torch.unique(dropped).tolist() == [0.0, pytest.approx(4 / 3, rel=4e-3)]
    # A binomial share of 100,899 units has deviation 0.0014.
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.007)
    assert (dropped[:, 1:] == dropped[:, :-1]).float().mean().item() == pytest.approx(0.625, abs=0.01)


def test_dropout_is_for_training_and_differs_from_one_time_to_the_next() -> None:
    dropout, x = Dropout(0.5), torch.ones(40, 40)
    assert not torch.equal(dropout(x), dropout(x))
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
