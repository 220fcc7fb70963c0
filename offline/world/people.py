"""What the people of a synthetic world do: boards of one or two topics, and later sessions that mostly keep to one.

Boards are filled in the first nine months, sessions happen in the three months after: no edge knows a session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offline.world.world import World

# Legend: U people of a chunk, B boards, E edges, S sessions, N engagements.

Array = npt.NDArray[Any]

DAY = 86_400
START = 1_704_067_200  # 1 January 2024
CUT = START + 270 * DAY
END = START + 365 * DAY

USERS_PER_PIN = 0.14
CHUNK_USERS = 20_000
MEAN_BOARDS = 3.0
BOARD_MEDIAN, BOARD_SPREAD, MAX_BOARD = 16, 0.95, 400
MIXED_BOARDS, MIXED_PINS = 0.4, 0.3
MEAN_SESSIONS = 4.0
MIN_SESSION, MAX_SESSION = 3, 10
TEST_USERS = 0.15


@dataclass(frozen=True)
class Boards:
    """Boards of a chunk: whose, of which topic, with which second topic (-1 = none), and their pins in time order."""

    users_B: Array
    topics_B: Array
    seconds_B: Array
    boards_E: Array
    pins_E: Array
    times_E: Array


@dataclass(frozen=True)
class Engagements:
    """Engagements of a chunk by user and time, each pin once per user and none that is on a board of the user's."""

    users_N: Array
    pins_N: Array
    times_N: Array
    sessions_N: Array


def num_people(num_pins: int) -> int:
    """How many people a world of this size has."""
    return max(round(USERS_PER_PIN * num_pins), 20)


def fill_boards(world: World, interests_U3: Array, rng: np.random.Generator) -> Boards:
    """Boards of all people of a chunk; people and boards are numbered from 0 inside it."""
    users_B = np.repeat(np.arange(len(interests_U3)), 1 + rng.poisson(MEAN_BOARDS - 1, size=len(interests_U3)))
    num_boards = len(users_B)
    liked_B3 = interests_U3[users_B]
    choice_B = rng.integers(0, 3, size=num_boards)
    topics_B = liked_B3[np.arange(num_boards), choice_B]
    other_B = liked_B3[np.arange(num_boards), (choice_B + 1) % 3]
    mixed_B = (rng.random(num_boards) < MIXED_BOARDS) & (other_B != topics_B)
    seconds_B = np.where(mixed_B, other_B, -1)
    sizes_B = rng.lognormal(np.log(BOARD_MEDIAN), BOARD_SPREAD, size=num_boards).clip(3, MAX_BOARD).astype(np.int64)
    boards_E = np.repeat(np.arange(num_boards), sizes_B)
    takes_second = (seconds_B[boards_E] >= 0) & (rng.random(len(boards_E)) < MIXED_PINS)
    wishes_E = np.where(takes_second, seconds_B[boards_E], topics_B[boards_E])
    pins_E = world.picks(wishes_E, rng)
    kept = first_of_each(boards_E * world.num_pins + pins_E)
    boards_E, pins_E = boards_E[kept], pins_E[kept]
    return Boards(users_B, topics_B, seconds_B, boards_E, pins_E, _board_times(boards_E, num_boards, rng))


def _board_times(boards_E: Array, num_boards: int, rng: np.random.Generator) -> Array:
    """Seconds at which pins were put on their boards: ascending in a board, all before CUT."""
    begun_B = rng.integers(START, CUT - 30 * DAY, size=num_boards)
    pace_B = rng.integers(60, 2 * DAY, size=num_boards)
    position_E = np.arange(len(boards_E)) - np.searchsorted(boards_E, boards_E)
    return np.minimum(begun_B[boards_E] + position_E * pace_B[boards_E], CUT - 1)


def hold_sessions(world: World, interests_U3: Array, boards: Boards, rng: np.random.Generator) -> Engagements:
    """Sessions of all people of a chunk after CUT."""
    users_S = np.repeat(np.arange(len(interests_U3)), 1 + rng.poisson(MEAN_SESSIONS - 1, size=len(interests_U3)))
    num_sessions = len(users_S)
    topics_S = interests_U3[users_S, rng.integers(0, 3, size=num_sessions)]
    begun_S = rng.integers(CUT, END - DAY, size=num_sessions)
    order = np.lexsort((begun_S, users_S))
    users_S, topics_S, begun_S = users_S[order], topics_S[order], begun_S[order]
    sessions_N = np.repeat(np.arange(num_sessions), rng.integers(MIN_SESSION, MAX_SESSION + 1, size=num_sessions))
    pins_N = world.picks(topics_S[sessions_N], rng)
    position_N = np.arange(len(sessions_N)) - np.searchsorted(sessions_N, sessions_N)
    times_N = begun_S[sessions_N] + position_N * rng.integers(10, 300, size=num_sessions)[sessions_N]
    keys_N = users_S[sessions_N] * world.num_pins + pins_N
    kept = first_of_each(keys_N)
    owned = boards.users_B[boards.boards_E] * world.num_pins + boards.pins_E
    kept = kept[~np.isin(keys_N[kept], owned)]
    return Engagements(users_S[sessions_N][kept], pins_N[kept], times_N[kept], sessions_N[kept])


def first_of_each(keys_N: Array) -> Array:
    """Positions of the first occurrence of each key, ascending."""
    return np.sort(np.unique(keys_N, return_index=True)[1])
