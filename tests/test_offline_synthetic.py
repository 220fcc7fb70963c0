"""The synthetic world: sound, repeatable, and with the structure that it claims to have."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from model.errors import UserError
from offline.data.dataset import open_dataset
from offline.data.validation import validate_dataset
from offline.world.canvas import Dice
from offline.world.compositions import COMPOSITIONS
from offline.world.images import NUM_DICE, SIDE, THUMB, draw_picture, simulated_vectors, visual_vectors
from offline.world.people import CUT, END
from offline.world.synthetic import generate_world
from offline.world.vocabulary import STYLES, SUBJECTS
from offline.world.world import TAIL_POWER, TAIL_SHIFT, make_world

NUM_PINS = 1500


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "world"
    generate_world(out, num_pins=NUM_PINS, seed=7, images=False, visual_dim=32)
    return out


def read(world: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(world / f"{name}.parquet")


def topics_of(world: Path) -> dict[str, str]:
    return dict(read(world, "truth").select("pin_id", "topic").iter_rows())


def test_a_world_is_a_sound_data_set(world: Path) -> None:
    dataset = open_dataset(world)
    visual = dataset.visual()
    assert validate_dataset(world) == []
    assert dataset.pins().height == NUM_PINS
    assert visual is not None
    assert visual.shape == (NUM_PINS, 32)
    assert len(dataset.coldstart_pins()) == round(0.03 * NUM_PINS)
    assert not list(world.parent.glob(".*"))


def test_the_summary_counts_what_was_written(tmp_path: Path) -> None:
    summary = generate_world(tmp_path / "w", num_pins=300, seed=1, images=False)
    assert summary.num_pins == read(tmp_path / "w", "pins").height == 300
    assert summary.num_boards == read(tmp_path / "w", "boards").height
    assert summary.num_edges == read(tmp_path / "w", "edges").height
    assert summary.num_users_test == read(tmp_path / "w", "users_test").height
    assert summary.num_pairs == read(tmp_path / "w", "pairs_coldstart").height


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        generate_world(tmp_path / name, num_pins=120, seed=seed, images=True)
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())


def test_pictures_and_their_urls(tmp_path: Path) -> None:
    generate_world(tmp_path / "w", num_pins=100, seed=1, images=True, visual_dim=16)
    pins = open_dataset(tmp_path / "w").pins()
    assert pins["image_url"].to_list() == [f"/images/{pin}.jpg" for pin in pins["pin_id"]]
    assert pins["description"].null_count() == 0
    for pin in pins["pin_id"]:
        with Image.open(tmp_path / "w" / "images" / f"{pin}.jpg") as picture:
            assert picture.size == (SIDE, SIDE)


def test_every_pin_tells_its_topic_and_the_category_is_the_supertopic(world: Path) -> None:
    pins = read(world, "pins").join(read(world, "truth"), on="pin_id")
    assert (pins["category"] == pins["supertopic"]).all()
    lowered = pins.select(pl.col("title").str.to_lowercase(), pl.col("topic").str.to_lowercase())
    assert all(topic in title for title, topic in lowered.iter_rows())
    assert pins["annotations"].list.len().is_between(3, 7).all()
    assert (pins["annotations"].list.n_unique() == pins["annotations"].list.len()).all()


def test_a_board_keeps_to_one_or_two_topics(world: Path) -> None:
    topics = read(world, "truth").select("pin_id", "topic")
    edges = read(world, "edges").join(topics, on="pin_id")
    counts = edges.group_by("board_id", "topic").len().sort("len", descending=True)
    top = counts.group_by("board_id", maintain_order=True).agg(pl.col("len").head(2).sum(), all=pl.len())
    share = top["len"].sum() / edges.height
    assert 0.8 < share < 1.0
    assert edges.select("pin_id", "board_id").is_unique().all()


def test_popularity_has_a_long_tail(world: Path) -> None:
    degrees = read(world, "edges").group_by("pin_id").len()["len"].sort(descending=True)
    top_tenth = degrees.head(NUM_PINS // 10).sum() / degrees.sum()
    assert top_tenth > 0.2
    assert degrees[0] > 4 * degrees.median()  # type: ignore[operator]


def test_picks_follow_the_tail() -> None:
    world = make_world(200, seed=1)
    topic = int(np.argmax(np.diff(world.starts)))
    size = int(world.starts[topic + 1] - world.starts[topic])
    first = int(world.ranked_P[world.starts[topic]])
    picks = world.picks(np.full(200_000, topic), np.random.default_rng(0))
    low, high = TAIL_SHIFT**TAIL_POWER, (size + TAIL_SHIFT) ** TAIL_POWER
    expected = ((1 + TAIL_SHIFT) ** TAIL_POWER - low) / (high - low)
    inside = picks[world.topic_P[picks] == topic]
    assert np.mean(inside == first) == pytest.approx(expected, abs=0.01)
    assert len(inside) / len(picks) == pytest.approx(0.94, abs=0.03)


def test_consecutive_engagements_mostly_share_a_topic(world: Path) -> None:
    topics = topics_of(world)
    rows = read(world, "engagements").select("user_id", "pin_id", "timestamp").rows()
    same = [
        topics[one[1]] == topics[two[1]] for one, two in pairwise(rows) if one[0] == two[0] and two[2] - one[2] < 3600
    ]
    assert 0.7 < np.mean(same) < 0.97


def test_boards_are_filled_before_sessions_begin(world: Path) -> None:
    edges, engagements = read(world, "edges"), read(world, "engagements")
    assert edges["timestamp"].max() < CUT <= engagements["timestamp"].min()  # type: ignore[operator]
    assert engagements["timestamp"].max() < END  # type: ignore[operator]
    later = pl.col("timestamp").diff().over("board_id")
    assert edges.select(later.alias("d"))["d"].drop_nulls().min() >= 0  # type: ignore[operator]


def test_cold_pins_are_nowhere_in_training(world: Path) -> None:
    cold = set(read(world, "coldstart_pins")["pin_id"])
    for table in ("edges", "engagements"):
        assert not cold & set(read(world, table)["pin_id"])
    users = read(world, "users_test")
    assert not cold & {*users["history"].explode(), *users["held_out"].explode()}
    assert set(read(world, "coldstart_edges")["pin_id"]) <= cold
    pairs = read(world, "pairs_coldstart")
    assert set(pairs["query_pin_id"]) <= cold
    assert not set(pairs["related_pin_id"]) & cold


def test_test_users_have_no_engagement_to_train_on(world: Path) -> None:
    users = read(world, "users_test")
    assert users.height > 20
    assert not set(users["user_id"]) & set(read(world, "engagements")["user_id"])
    assert users["history"].list.len().min() >= 1  # type: ignore[operator]
    assert users["held_out"].list.len().min() >= 1  # type: ignore[operator]


@pytest.mark.parametrize("images", [False, True])
def test_visual_vectors_find_the_topic(tmp_path: Path, images: bool) -> None:
    generate_world(tmp_path / "w", num_pins=400, seed=2, images=images)
    vectors = open_dataset(tmp_path / "w").visual()
    assert vectors is not None
    topic = np.array(list(topics_of(tmp_path / "w").values()))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -1)
    hits = np.mean(topic[scores.argmax(axis=1)] == topic)
    assert hits > 0.6  # a random pin is of the same topic in one case of sixteen


def test_subjects_and_styles_are_complete() -> None:
    assert {subject.composition for subject in SUBJECTS} == set(COMPOSITIONS)
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS) == 16
    assert all(len(subject.nouns) == len(subject.details) == 12 for subject in SUBJECTS)
    assert len({style.name for style in STYLES}) == len(STYLES)


@pytest.mark.parametrize("subject", range(len(SUBJECTS)), ids=[subject.composition for subject in SUBJECTS])
def test_every_composition_draws_every_variant_and_varies_by_pin(subject: int) -> None:
    rng = np.random.default_rng(0)
    for variant in range(12):
        one, thumb = draw_picture(subject, variant * 2, variant, rng.random(NUM_DICE).tolist())
        two, _ = draw_picture(subject, variant * 2, variant, rng.random(NUM_DICE).tolist())
        assert thumb.shape == (THUMB, THUMB, 3)
        assert one.tobytes() != two.tobytes()
        assert np.asarray(one).std() > 5  # not an empty ground


def test_pictures_of_one_topic_are_nearer_than_those_of_others() -> None:
    rng = np.random.default_rng(0)
    looks = [(subject, style, variant) for subject, style, variant in ((0, 1, 2), (0, 10, 2), (5, 1, 2), (9, 16, 7))]
    thumbs = np.stack([draw_picture(*look, rng.random(NUM_DICE).tolist())[1] for look in looks for _ in range(20)])
    vectors = visual_vectors(thumbs, 64)
    centers = vectors.reshape(4, 20, 64).mean(axis=1)
    nearest = ((vectors[:, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest == np.repeat(np.arange(4), 20)) > 0.95


def test_simulated_vectors_have_the_width_asked_for() -> None:
    zeros = np.zeros(5, dtype=np.int64)
    vectors = simulated_vectors(zeros, zeros, zeros, np.random.default_rng(0), 48)
    assert vectors.shape == (5, 48)
    assert vectors.dtype == np.float32


def test_dice_repeat_their_numbers() -> None:
    dice = Dice([0.0, 0.5])
    assert [dice.between(2, 4), dice.below(10), dice.between(0, 1)] == [2, 5, 0]


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    shares: list[float] = []
    generate_world(tmp_path / "w", num_pins=600, seed=1, images=True, progress=lambda text, share: shares.append(share))
    assert shares == sorted(shares)
    assert len(shares) >= 4
    assert 0 <= shares[0] <= shares[-1] <= 1


@pytest.mark.parametrize(("num_pins", "dim"), [(49, 8), (100, 0)])
def test_a_world_too_small_is_refused(tmp_path: Path, num_pins: int, dim: int) -> None:
    with pytest.raises(UserError, match="wanted at least 50 pins and 1 visual dimension"):
        generate_world(tmp_path / "w", num_pins=num_pins, seed=1, images=False, visual_dim=dim)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(UserError, match="is there already"):
        generate_world(tmp_path, num_pins=100, seed=1, images=False)
    assert (tmp_path / "mine").read_text() == "keep"
