"""Generates a synthetic world as a data set folder, in chunks: memory grows with the pins, not with the edges.

Beside the usual tables there is truth.parquet: the topic and the supertopic of each pin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from model.errors import UserError
from model.files import create_array
from offline.data.dataset_writer import ImportSummary, TableWriters, arrow_schema, staged_folder
from offline.world.images import NUM_DICE, draw_picture, simulated_vectors, visual_vectors
from offline.world.people import CHUNK_USERS, TEST_USERS, Boards, Engagements, fill_boards, hold_sessions, num_people
from offline.world.world import World, make_world
from offline.world.world_text import board_titles, describe_pins

# Legend: P pins, N pins of a chunk, D visual dimensions, S side of a thumbnail.

Array = npt.NDArray[Any]
Report = Callable[[str, float], None]

MIN_PINS = 50
CHUNK_PINS = 200_000
CHUNK_PICTURES = 250
PICTURES, VECTORS, TEXTS, PEOPLE = 1, 2, 3, 4  # one stream of random numbers for each purpose and chunk
TRUTH = "truth"


def generate_world(
    out: Path, *, num_pins: int, seed: int, images: bool, visual_dim: int = 64, progress: Report | None = None
) -> ImportSummary:
    """Write a world of `num_pins` pins to the folder `out`; the same arguments give the same bytes.

    With `images`, a picture of each pin is drawn into images/ and its visual vector computed from it; without, vectors
    are simulated from the same palettes. Raises UserError where `out` is there already or the world is too small.
    """
    if num_pins < MIN_PINS or visual_dim < 1:
        raise UserError(f"wanted at least {MIN_PINS} pins and 1 visual dimension, found {num_pins} and {visual_dim}")
    report = progress or (lambda text, share: None)
    world = make_world(num_pins, seed)
    with staged_folder(out) as folder:
        with TableWriters(folder) as writers:
            _write_pins(world, writers, seed, images)
            _write_visual(world, folder, seed, visual_dim, images, report)
            _write_people(world, writers, seed, lambda text, share: report(text, 0.5 + share / 2))
            counts = writers.num_rows
        about = {"num_pins": num_pins, "seed": seed, "images": images, "visual_dim": visual_dim}
        (folder / "world.json").write_text(json.dumps(about, indent=1) + "\n")
    return ImportSummary(
        num_pins,
        counts["boards"],
        counts["edges"],
        counts.get("pairs_coldstart", 0),
        counts.get("users_test", 0),
        counts["coldstart_pins"],
    )


def _chunks(num: int, size: int) -> Iterator[tuple[int, range]]:
    return ((chunk, range(start, min(start + size, num))) for chunk, start in enumerate(range(0, num, size)))


def pin_ids(num_pins: int) -> pl.Series:
    """Ids of all pins by row: p0000, p0001, …"""
    digits = len(str(num_pins - 1))
    numbers = pl.select(pl.int_range(num_pins).cast(pl.String).str.zfill(digits).alias("n"))
    return numbers.select(pl.concat_str(pl.lit("p"), "n").alias("pin_id"))["pin_id"]


def _write(writers: TableWriters, name: str, **columns: pl.Series | Array) -> None:
    frame = pl.DataFrame(columns)
    if name == TRUTH:
        writers.write(name, frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    else:
        schema = arrow_schema(name, tuple(columns))
        writers.write(name, frame.select(schema.names).to_arrow().cast(schema))


def _write_pins(world: World, writers: TableWriters, seed: int, images: bool) -> None:
    ids = pin_ids(world.num_pins)
    for chunk, pins in _chunks(world.num_pins, CHUNK_PINS):
        rng = np.random.default_rng([seed, TEXTS, chunk])
        topics = world.topic_P[pins.start : pins.stop]
        texts = describe_pins(world, topics, rng, sentences=images)
        id_N = ids[pins.start : pins.stop]
        if images:
            texts["image_url"] = pl.select(pl.concat_str(pl.lit("/images/"), id_N, pl.lit(".jpg")).alias("u"))["u"]
        _write(writers, "pins", pin_id=id_N, **texts)
        names = pl.Series(world.topics.names())
        _write(writers, TRUTH, pin_id=id_N, topic=names.gather(topics), supertopic=texts["category"])
    _write(writers, "coldstart_pins", pin_id=ids.filter(pl.Series(world.cold_P)))


def _write_visual(world: World, folder: Path, seed: int, dim: int, images: bool, report: Report) -> None:
    shape = (world.num_pins, dim)
    vectors_PD = create_array(folder / "features.npy", np.float32, shape)
    what = "draw pictures" if images else "simulate visual vectors"
    if images:
        (folder / "images").mkdir()
    for chunk, pins in _chunks(world.num_pins, CHUNK_PICTURES if images else CHUNK_PINS):
        report(what, pins.start / world.num_pins / 2)
        topics = world.topic_P[pins.start : pins.stop]
        if images:
            rng = np.random.default_rng([seed, PICTURES, chunk])
            thumbs_NSSC = _draw(world, folder / "images", pins, topics, rng.random((len(pins), NUM_DICE)))
            vectors_PD[pins.start : pins.stop] = visual_vectors(thumbs_NSSC, dim)
        else:
            rng = np.random.default_rng([seed, VECTORS, chunk])
            t = world.topics
            looks = t.subjects_T[topics], t.styles_T[topics], t.variants_T[topics]
            vectors_PD[pins.start : pins.stop] = simulated_vectors(*looks, rng, dim)
    vectors_PD.flush()


def _draw(world: World, folder: Path, pins: range, topics_N: Array, numbers: Array) -> Array:
    """Draw and store the pictures of a chunk; returns their thumbnails (N, S, S, 3)."""
    topics, digits = world.topics, len(str(world.num_pins - 1))
    thumbs = []
    for pin, topic, own in zip(pins, topics_N, numbers.tolist(), strict=True):
        looks = int(topics.subjects_T[topic]), int(topics.styles_T[topic]), int(topics.variants_T[topic])
        picture, thumb = draw_picture(*looks, own)
        picture.save(folder / f"p{pin:0{digits}d}.jpg", quality=88, subsampling=0)
        thumbs.append(thumb)
    return np.stack(thumbs)


def _write_people(world: World, writers: TableWriters, seed: int, report: Report) -> None:
    ids, num_users, num_boards = pin_ids(world.num_pins), num_people(world.num_pins), 0
    digits = len(str(num_users - 1))
    for chunk, users in _chunks(num_users, CHUNK_USERS):
        report("boards and sessions", users.start / num_users)
        rng = np.random.default_rng([seed, PEOPLE, chunk])
        interests = world.interests(len(users), rng)
        boards = fill_boards(world, interests, rng)
        engagements = hold_sessions(world, interests, boards, rng)
        user_ids = _numbered("u", users.start, len(users), digits)
        _write_boards(world, writers, boards, ids, num_boards, rng)
        is_test = rng.random(len(users)) < TEST_USERS
        _write_engagements(world, writers, engagements, is_test, ids, user_ids, rng)
        _write_test_users(world, writers, boards, engagements, is_test, ids, user_ids)
        num_boards += len(boards.users_B)


def _numbered(prefix: str, start: int, num: int, digits: int) -> pl.Series:
    numbers = pl.int_range(start, start + num).cast(pl.String).str.zfill(digits)
    return pl.select(pl.concat_str(pl.lit(prefix), numbers).alias("id"))["id"]


def _write_boards(
    world: World, writers: TableWriters, boards: Boards, ids: pl.Series, first: int, rng: np.random.Generator
) -> None:
    digits = len(str(num_people(world.num_pins) * 6))
    board_ids = _numbered("b", first, len(boards.users_B), digits)
    _write(writers, "boards", board_id=board_ids, title=board_titles(world, boards.topics_B, boards.seconds_B, rng))
    is_cold = world.cold_P[boards.pins_E]
    for name, chosen in (("edges", ~is_cold), ("coldstart_edges", is_cold)):
        pins, owners = ids.gather(boards.pins_E[chosen]), board_ids.gather(boards.boards_E[chosen])
        _write(writers, name, pin_id=pins, board_id=owners, timestamp=boards.times_E[chosen])


def _write_engagements(
    world: World,
    writers: TableWriters,
    done: Engagements,
    is_test_U: Array,
    ids: pl.Series,
    user_ids: pl.Series,
    rng: np.random.Generator,
) -> None:
    """Engagements of all but the test's users with pins that are not cold; the cold ones become pairs_coldstart."""
    chosen = ~is_test_U[done.users_N] & ~world.cold_P[done.pins_N]
    actions = pl.Series(["click", "save"]).gather((rng.random(int(chosen.sum())) < 0.4).astype(np.int64))
    _write(
        writers,
        "engagements",
        user_id=user_ids.gather(done.users_N[chosen]),
        pin_id=ids.gather(done.pins_N[chosen]),
        timestamp=done.times_N[chosen],
        action=actions,
    )
    same = done.sessions_N[1:] == done.sessions_N[:-1]
    before, after = done.pins_N[:-1][same], done.pins_N[1:][same]
    one = world.cold_P[before] != world.cold_P[after]
    before, after = before[one], after[one]
    query, related = np.where(world.cold_P[before], (before, after), (after, before))
    _write(writers, "pairs_coldstart", query_pin_id=ids.gather(query), related_pin_id=ids.gather(related))


def _write_test_users(
    world: World,
    writers: TableWriters,
    boards: Boards,
    done: Engagements,
    is_test_U: Array,
    ids: pl.Series,
    user_ids: pl.Series,
) -> None:
    """What the test's users keep on boards, by time, and what they engaged with later; cold pins are left out."""
    owners_E = boards.users_B[boards.boards_E]
    kept = is_test_U[owners_E] & ~world.cold_P[boards.pins_E]
    history = pl.DataFrame({"user": owners_E[kept], "history": boards.pins_E[kept], "time": boards.times_E[kept]})
    history = history.sort("time", maintain_order=True).unique(["user", "history"], keep="first", maintain_order=True)
    later = is_test_U[done.users_N] & ~world.cold_P[done.pins_N]
    held_out = pl.DataFrame({"user": done.users_N[later], "held_out": done.pins_N[later]})
    named = [
        frame.with_columns(ids.gather(frame[column]).alias(column)).group_by("user", maintain_order=True).agg(column)
        for frame, column in ((history, "history"), (held_out, "held_out"))
    ]
    users = named[0].join(named[1], on="user").sort("user")
    _write(
        writers,
        "users_test",
        user_id=user_ids.gather(users["user"]),
        history=users["history"],
        held_out=users["held_out"],
    )
