"""The report: one file, everything in it, nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from topic_world import embedded_run, write_world

from offline.dataset import open_dataset
from offline.evaluate import evaluate
from offline.evaluation_data import EvaluationData, Limits, load_evaluation_data
from offline.report_examples import Card, map_embeddings, map_labels, thumbnail
from offline.report_page import card_box, measures_table, spoken_time
from offline.run_folder import RunFolder

LOG = [
    {"inputs": "old", "epoch": 1, "best_epoch": 1, "loss": 9.0, "HR@10": 0.01},
    {"inputs": "new", "epoch": 1, "best_epoch": 1, "loss": 5.0, "HR@10": 0.1},
    {"inputs": "new", "epoch": 2, "best_epoch": 2, "loss": 4.0, "HR@10": 0.2},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of a world with a picture, a dangerous title, a training log and a stamp."""
    folder = tmp_path_factory.mktemp("report")
    world = write_world(folder / "world")
    pins = pl.read_parquet(world / "pins.parquet").with_columns(
        image_url=pl.lit("/images/one.png"),
        title=pl.when(pl.col("pin_id") == "cats3").then(pl.lit("<script>x</script> soft cat")).otherwise("title"),
    )
    pins.write_parquet(world / "pins.parquet")
    (world / "images").mkdir()
    Image.new("RGB", (300, 200), "red").save(world / "images/one.png")
    run = embedded_run(world, folder / "run")
    (run.train / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    run.write_stamp("train", "new", 75.2)
    evaluate(run, open_dataset(world))
    return run


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return run.report.read_text()


@pytest.fixture(scope="module")
def data(run: RunFolder) -> EvaluationData:
    return load_evaluation_data(run, open_dataset(run.path.parent / "world"), Limits(None, 10**9, 10), seed=7)


class Page(HTMLParser):
    """Which elements are open, and what was found in the closed ones."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert "script" not in parsed.seen
    assert "link" not in parsed.seen
    assert all(address.startswith("data:image/") for address in parsed.addresses)
    assert "url(" not in page
    assert "@import" not in page


def test_every_part_is_there(page: str) -> None:
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "Related pins", "Cold start", "Home feed", "How alike random pins are", "Map of the embeddings", "Examples",
        "Training", "How it was made",
    ]  # fmt: skip
    assert "2 epochs; the weights are those of epoch 2" in page
    assert "1 min 15 s" in page
    assert "num_neighbors" in page


def test_texts_are_escaped(page: str) -> None:
    assert "&lt;script&gt;" in card_box(Card("p", "<script>", "1 board", None))
    assert "<script>" not in page


def test_pictures_of_the_data_set_are_small_copies(page: str) -> None:
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert found
    with Image.open(io.BytesIO(base64.b64decode(found[0]))) as picture:
        assert max(picture.size) == 112


def test_no_picture_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "set" / "broken.jpg").write_text("no picture")
    for address in (
        None,
        "",
        "https://example.org/a.png",
        "../secret.png",
        "/../secret.png",
        "absent.png",
        "broken.jpg",
    ):
        assert thumbnail(tmp_path / "set", address) is None


def test_numbers_stand_with_their_interval_and_the_best_is_marked() -> None:
    row = {"n": 1200, "HR@10": 0.25, "intervals": {"HR@10": [0.2, 0.3]}}
    worse = {"n": 1200, "HR@10": 0.1, "intervals": {"HR@10": [0.05, 0.15]}}
    table = measures_table({"pinsage": row, "text": worse, "boards": {"n": 0}}, {"HR@10": "HR@10"})
    assert '<tr class="ours"><td>pinsage</td><td>1,200</td>' in table
    assert '<td class="best">0.2500<small>0.2000 – 0.3000</small></td>' in table
    assert table.count('class="best"') == 1
    assert "<td>boards</td><td>0</td><td>–</td>" in table


@pytest.mark.parametrize(
    ("seconds", "spoken"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (59.97, "1 min 00 s"), (3725, "62 min 05 s")]
)
def test_times_are_readable(seconds: float, spoken: str) -> None:
    assert spoken_time(seconds) == spoken


def test_the_map_keeps_topics_together(data: EvaluationData) -> None:
    found = map_embeddings(data, seed=1)
    assert found is not None
    assert found.labels[:2] == ["cats", "cats"]
    labels = np.array(found.labels)
    distances = np.linalg.norm(found.points_S2[:, None] - found.points_S2[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).mean() > 0.6


def test_labels_are_the_commonest_annotation_where_there_is_no_category(data: EvaluationData) -> None:
    tags = [["fur", "cat"], ["cat"], ["sail", "ship"], ["ship", "cat"], []]
    pins = data.pins_A[:5].with_columns(
        category=pl.lit(None, pl.String), annotations=pl.Series(tags, dtype=pl.List(pl.String))
    )
    changed = EvaluationData(**{**vars(data), "pins_A": pins})
    assert map_labels(changed, np.arange(5)) == ["cat", "cat", "ship", "cat", None]


def test_a_data_set_without_texts_categories_or_users(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "world", titles=False)
    pl.read_parquet(folder / "pins.parquet").select("pin_id").write_parquet(folder / "pins.parquet")
    (folder / "users_test.parquet").unlink()
    run = embedded_run(folder, tmp_path / "run")
    evaluate(run, open_dataset(folder))
    page = run.report.read_text()
    assert "Home feed" not in page
    assert "Training" not in page
    assert re.search(r"<b>(cats|ships|bread)\d+</b>", page)  # ids stand in for titles
    assert Page(page).open == []
