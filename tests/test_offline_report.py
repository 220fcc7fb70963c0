"""The report: one file, everything in it, nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from topic_world import embedded_run, write_world

from offline.data.dataset import open_dataset
from offline.evaluation.evaluate import evaluate
from offline.evaluation.evaluation_data import EvaluationData, Limits, load_evaluation_data
from offline.evaluation.ranking import Method, cosine_scorer
from offline.report.report_examples import Card, choose_examples, label_agreement, map_embeddings, map_labels, thumbnail
from offline.report.report_page import card_box, example_row
from offline.report.report_tables import measures_table, spoken_time, verdicts_table
from offline.run_folder import RunFolder

LOG = [
    {"inputs": "old", "epoch": 1, "best_epoch": 1, "loss": 9.0, "score": 0.01},
    {"inputs": "new", "epoch": 1, "best_epoch": 1, "loss": 5.0, "score": 0.1},
    {"inputs": "new", "epoch": 2, "best_epoch": 2, "loss": 4.0, "score": 0.2},
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
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.seen if tag in tags]


def test_the_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert not parsed.all("script", "link", "iframe", "object")
    assert all((image["src"] or "").startswith("data:image/") for image in parsed.all("img"))
    assert "url(" not in page
    assert "@import" not in page


def test_the_contents_lead_to_every_part(page: str) -> None:
    parsed = Page(page)
    keys = [attributes["id"] for attributes in parsed.all("section") if "id" in attributes]
    assert [link["href"] for link in parsed.all("a")] == [f"#{key}" for key in keys]
    assert len(set(keys)) == len(keys) == len(re.findall("<h2", page))


def test_figures_have_words_and_tables_have_headings(page: str) -> None:
    parsed = Page(page)
    words = re.findall(r'<figure>.*?alt="(.*?)"', page)
    assert len(words) > 10
    assert all(len(each) > 20 for each in words)
    assert any("Hit rate at K = 10, 100, 1000: pinsage 0." in each for each in words)
    assert all(heading.get("scope") in ("col", "row") for heading in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table")) > 5


def test_every_part_is_there(page: str) -> None:
    titles = re.findall("<h2.*?>(.*?)</h2>", page)
    assert titles == [
        "Related pins", "By degree of the pin", "Cold start", "Home feed", "Table 1: variants of the method",
        "How alike random pins are", "Map of the embeddings", "Examples", "Table 3: batch size",
        "Table 4: how many neighbours", "Training", "How it was made",
    ]  # fmt: skip
    assert "2 epochs; the weights are those of epoch 2" in page
    assert "1 min 15 s" in page
    assert "num_neighbors" in page


def test_what_is_not_measured_comes_with_the_command(run: RunFolder, page: str) -> None:
    assert f"<code>pinsage evaluate {run.path} --table 3 &amp;&amp; pinsage evaluate {run.path}</code>" in page


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
    gap = {"HR@10": {"mean": -0.15, "low": -0.2, "high": -0.1}}
    worse = {"n": 1200, "HR@10": 0.1, "intervals": {"HR@10": [0.05, 0.15]}, "differences": gap}
    table = measures_table("Rows", {"pinsage": row, "text": worse, "boards": {"n": 0}}, {"HR@10": "HR@10"})
    assert '<tr class="ours"><th scope="row">pinsage</th><td>1,200</td>' in table
    assert '<td class="best">0.2500<span class="mark"></span><small>0.200 – 0.300</small></td>' in table
    assert table.count('class="best"') == 1
    assert re.search(r'0\.1000<span class="mark below" role="img" aria-label="lower than this run[^>]*>▼</span>', table)
    assert '<th scope="row">boards</th><td>0</td><td>–</td>' in table


def test_in_short_says_who_is_ahead_and_who_cannot_be_told() -> None:
    def row(low: float, high: float) -> dict[str, Any]:
        keys = ("HR@10", "HR@100", "MRR_scaled100")
        gaps = {key: {"mean": 0, "low": low, "high": high} for key in keys}
        return {
            "n": 50,
            **dict.fromkeys(keys, 0.5),
            "intervals": {key: [0.4, 0.6] for key in keys},
            "differences": gaps,
        }

    rows = {"pinsage": row(0, 0), "worse": row(-0.2, -0.1), "better": row(0.1, 0.2), "like": row(-0.1, 0.1),
            "few": {**row(0, 0), "differences": {}}}  # fmt: skip
    table = verdicts_table({"related": rows, "coldstart": {}, "homefeed": {}}, {})
    columns = re.findall(r'data-heading="(.*?)">(.*?)</td>', table)[:3]
    assert {heading: re.findall(r"<span.*?>(.*?)</span>", chips) for heading, chips in columns} == {
        "ahead of": ["worse"], "not to be told from": ["like", "few"], "behind": ["better"],
    }  # fmt: skip


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


def test_labels_are_the_rarest_of_the_common_annotations(data: EvaluationData) -> None:
    """Everything is an animal here, so that says nothing; "soft" is not among the ten commonest."""
    kinds = [f"kind{n}" for n in range(9)]
    tags = [["animal", kinds[n % 9]] for n in range(18)] + [["animal", "soft"], ["soft"], ["animal"], []]
    pins = data.pins_A[: len(tags)].with_columns(
        category=pl.lit(None, pl.String), annotations=pl.Series(tags, dtype=pl.List(pl.String))
    )
    changed = EvaluationData(**{**vars(data), "pins_A": pins})
    labels = map_labels(changed, np.arange(len(tags)))
    assert labels[:18] == kinds * 2
    assert labels[18:] == ["animal", None, "animal", None]


def test_agreement_of_labels_with_the_nearest_pin() -> None:
    """Two pairs of neighbours, of which one shares a label; the pin without a label is nobody's neighbour."""
    angles = np.radians([0, 1, 90, 91, 0.5])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert label_agreement(vectors, ["a", "a", "a", "b", None]) == (0.5, 0.75**2 + 0.25**2)
    assert label_agreement(vectors, ["a", "a", None, None, None]) is None


def test_a_method_that_knows_nothing_of_a_query_shows_nothing(data: EvaluationData) -> None:
    """Equal scores of 0 are no answer, whichever pins happen to stand first."""
    blind = Method(lambda queries: lambda block: np.zeros((len(queries), len(np.arange(60)[block])), np.float32))
    examples = choose_examples(data, {"text": blind, "pinsage": Method(cosine_scorer(data.vectors_PD))}, seed=1)
    assert len(examples) == 8
    assert [example.answers["text"] for example in examples] == [[]] * 8
    assert all(len(example.answers["pinsage"]) == 6 for example in examples)
    assert "finds nothing" in example_row(examples[0])


def test_a_data_set_without_texts_categories_or_users(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "world", titles=False)
    pl.read_parquet(folder / "pins.parquet").select("pin_id").write_parquet(folder / "pins.parquet")
    (folder / "users_test.parquet").unlink()
    page = report(embedded_run(folder, tmp_path / "run"), folder)
    assert "Home feed" not in page
    assert "<h2>Training" not in page
    assert re.search(r"<b>(cats|ships|bread)\d+</b>", page)  # ids stand in for titles
    assert "coloured by the number of boards" in page


def test_a_data_set_without_any_test(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "world")
    for name in ("users_test", "coldstart_pins", "coldstart_edges", "pairs_coldstart"):
        (folder / f"{name}.parquet").unlink()
    run = embedded_run(folder, tmp_path / "run")
    np.save(run.pairs("test"), np.zeros((0, 2), np.int32))
    page = report(run, folder)
    assert "The data set has no test pairs" in page
    assert "Examples" not in page
    assert "In short" not in page


def test_a_handful_of_pairs_allows_no_belief(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "world")
    run = embedded_run(folder, tmp_path / "run")
    np.save(run.pairs("test"), np.load(run.pairs("test"))[:4])
    page = report(run, folder)
    assert "fewer than 10 test pairs: nothing here can be believed" in page
    assert "Too few queries to say which differences are beyond chance" in page
    assert 'class="mark above" role' not in page.split("<h2")[1]


def test_hostile_pins_stay_text(tmp_path: Path) -> None:
    """Titles, annotations and categories that want to be HTML, that turn the writing direction, or never end."""
    folder = write_world(tmp_path / "world")
    pins = pl.read_parquet(folder / "pins.parquet").with_columns(
        title=pl.when(pl.int_range(pl.len()) % 2 == 0)
        .then(pl.lit('"><img src=x onerror=alert(1)>\u202e' + "long " * 9000))
        .otherwise(pl.lit("   ")),
        category=pl.lit("$\\frac{<b>one</b>"),
        annotations=pl.lit(["</style><script>"], pl.List(pl.String)),
    )
    pins.write_parquet(folder / "pins.parquet")
    page = report(embedded_run(folder, tmp_path / "run"), folder)
    assert "<img src=x" not in page
    assert "<script" not in page
    assert "<b>one" not in page
    assert "long " * 40 not in page
    assert re.search(r"<b>(cats|ships|bread)\d+</b>", page)  # a blank title is none


def report(run: RunFolder, folder: Path) -> str:
    """The report of a run, which is well-formed."""
    evaluate(run, open_dataset(folder))
    page = run.report.read_text()
    assert Page(page).open == []
    return page
