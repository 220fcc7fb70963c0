"""The linear start against planted groups: one that knows the answer, one of noise, one that all pins share."""

from __future__ import annotations

import numpy as np

from model.inference import unit_rows
from offline.evaluation.ranking import Method, cosine_scorer, related_ranks
from offline.training.linear_start import choose_start

NUM_PINS, WIDTH = 300, 12
GROUPS = {"noise": slice(0, WIDTH), "known": slice(WIDTH, 2 * WIDTH)}


def planted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features (P, 24) of noise and of vectors that twins share, and the pairs of twins."""
    noise_PF = unit_rows(rng.normal(size=(NUM_PINS, WIDTH)).astype(np.float32))
    known_PF = unit_rows(rng.normal(size=(NUM_PINS, WIDTH)).astype(np.float32))
    known_PF[1::2] = known_PF[::2]
    twins = np.arange(0, NUM_PINS, 2)
    return np.concatenate([noise_PF, known_PF], axis=1), np.stack([twins, twins + 1], axis=1)


def ranks(vectors_PD: np.ndarray, pairs_N2: np.ndarray) -> np.ndarray:
    return related_ranks(Method(cosine_scorer(unit_rows(vectors_PD)), 1e-6), *pairs_N2.T, len(vectors_PD))


def test_the_group_that_knows_the_answer_is_taken_and_noise_is_left_out() -> None:
    rng = np.random.default_rng(1)
    features_PF, pairs_N2 = planted(rng)
    start = choose_start(features_PF, features_PF.shape[1], None, GROUPS, pairs_N2, 16, rng)
    assert start is not None
    assert start.groups["known"] > 0
    assert start.groups["noise"] == 0


def test_the_map_ranks_the_pairs_as_the_group_does() -> None:
    rng = np.random.default_rng(2)
    features_PF, pairs_N2 = planted(rng)
    start = choose_start(features_PF, features_PF.shape[1], None, GROUPS, pairs_N2, 16, rng)
    assert start is not None
    z_PD = features_PF @ start.weight_DF.T + start.bias_D
    assert (ranks(z_PD, pairs_N2) == 1).all()
    assert (ranks(features_PF[:, GROUPS["noise"]], pairs_N2) > 1).mean() > 0.9  # noise alone does not know them


def test_what_all_pins_share_is_taken_out() -> None:
    rng = np.random.default_rng(3)
    features_PF, pairs_N2 = planted(rng)
    features_PF[:, GROUPS["known"]] += 3
    start = choose_start(features_PF, features_PF.shape[1], None, GROUPS, pairs_N2, 16, rng)
    assert start is not None
    z_PD = unit_rows((features_PF @ start.weight_DF.T + start.bias_D).astype(np.float32))
    assert abs((z_PD @ z_PD.T).mean()) < 0.05


def test_fewer_dimensions_keep_the_principal_ones() -> None:
    rng = np.random.default_rng(4)
    features_PF, pairs_N2 = planted(rng)
    features_PF[:, GROUPS["known"].start + 2 :] *= 0.01  # two columns hold nearly all there is to know
    start = choose_start(features_PF, features_PF.shape[1], None, {"known": GROUPS["known"]}, pairs_N2, 2, rng)
    assert start is not None
    used_F = np.abs(start.weight_DF).sum(axis=0)
    assert used_F[GROUPS["known"]][:2].min() > 10 * used_F[GROUPS["known"]][2:].max()


def test_more_dimensions_than_features_are_filled_with_zeros() -> None:
    rng = np.random.default_rng(5)
    features_PF, pairs_N2 = planted(rng)
    start = choose_start(features_PF, features_PF.shape[1], None, GROUPS, pairs_N2, 64, rng)
    assert start is not None
    assert start.weight_DF.shape == (64, 2 * WIDTH)
    assert not start.weight_DF[2 * WIDTH :].any()


def test_there_is_no_start_where_all_pins_are_alike() -> None:
    rng = np.random.default_rng(6)
    features_PF = np.ones((NUM_PINS, WIDTH), np.float32)
    pairs_N2 = rng.integers(NUM_PINS, size=(50, 2))
    assert choose_start(features_PF, features_PF.shape[1], None, {"all": slice(0, WIDTH)}, pairs_N2, 8, rng) is None


def test_there_is_no_start_without_groups() -> None:
    rng = np.random.default_rng(7)
    features_PF, pairs_N2 = planted(rng)
    assert choose_start(features_PF, features_PF.shape[1], None, {}, pairs_N2, 8, rng) is None
