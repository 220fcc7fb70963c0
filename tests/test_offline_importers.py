"""Importers on small hand-made files: what comes out, which line is to blame, and that nothing half is left."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.errors import DatasetError, UserError
from offline.data.dataset import Dataset, open_dataset
from offline.data.dataset_writer import staged_folder
from offline.data.validation import validate_dataset
from offline.importers.csv import import_csv
from offline.importers.registry import IMPORTERS, import_dataset
from offline.importers.splits import (
    draw_cold_pins,
    hold_out,
    part_users,
    split_cold_pairs,
    split_shuffled,
    without_repeats,
)

SHARED = Path(__file__).parents[2] / "shared"
NUM_ARTICLES, NUM_USERS = 60, 30


@pytest.fixture
def citeulike(tmp_path: Path) -> Path:
    """60 articles; each user keeps 12 of them; tag 0 is on all, tag 1 on four; each article cites the next two."""
    source = tmp_path / "citeulike"
    source.mkdir()
    rng = np.random.default_rng(3)
    libraries = [sorted(rng.choice(NUM_ARTICLES, 12, replace=False).tolist()) for _ in range(NUM_USERS)]
    tags = [[0, 1] if article < 4 else [0] for article in range(NUM_ARTICLES)]
    cited = [[(article + 1) % NUM_ARTICLES, (article + 2) % NUM_ARTICLES] for article in range(NUM_ARTICLES)]
    for name, lists in (("users", libraries), ("item-tag", tags), ("citations", cited)):
        lines = [" ".join(map(str, [len(items), *items])) for items in lists]
        (source / f"{name}.dat").write_text("\n".join(lines) + "\n")
    (source / "tags.dat").write_text("common\nrare\n")
    (source / "titles.txt").write_text("".join(f"Article {article}\n" for article in range(NUM_ARTICLES)))
    return source


@pytest.fixture
def movietweetings(tmp_path: Path) -> Path:
    """20 users rate 10 films each, one a minute; even films are liked, odd ones are not."""
    source = tmp_path / "films"
    source.mkdir()
    films = [f"{film:07d}::Film {film} (19{film:02d})::Drama|Comedy" for film in range(40)]
    (source / "movies.dat").write_text("\n".join([*films, "0000040::Ohne Genre (2000)::"]) + "\n", encoding="utf-8")
    rng = np.random.default_rng(5)
    ratings = []
    for user in range(20):
        for step, film in enumerate(rng.choice(40, 20, replace=False).tolist()):
            ratings.append(f"{user}::{film:07d}::{8 if film % 2 == 0 else 5}::{1000 + 60 * step + user}")
    (source / "ratings.dat").write_text("\n".join(ratings) + "\n")
    return source


def edges_of(dataset: Dataset) -> pl.DataFrame:
    return pl.concat(dataset.edge_batches())


def table(found: pl.DataFrame | None) -> pl.DataFrame:
    assert found is not None
    return found


def test_citeulike_becomes_a_sound_data_set(citeulike: Path, tmp_path: Path) -> None:
    summary = import_dataset("citeulike", citeulike, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    pins = dataset.pins()
    assert validate_dataset(tmp_path / "out") == []
    assert (summary.num_pins, summary.num_boards) == (NUM_ARTICLES, NUM_USERS)
    assert pins["title"][7] == "Article 7"
    assert pins["annotations"].to_list() == [["common"]] * NUM_ARTICLES  # the rare tag is on four articles only
    assert len(dataset.coldstart_pins()) == 3  # 5 % of 60


def test_every_library_entry_is_an_edge_or_cold_or_held_out(citeulike: Path, tmp_path: Path) -> None:
    import_dataset("citeulike", citeulike, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    users = table(dataset.users_test())
    num_held = users["held_out"].list.len().sum()
    assert edges_of(dataset).height + table(dataset.coldstart_edges()).height + num_held == NUM_USERS * 12
    kept = edges_of(dataset).group_by("board_id").agg("pin_id")
    joined = users.join(kept, left_on="user_id", right_on="board_id")
    assert [set(row) for row in joined["history"]] == [set(row) for row in joined["pin_id"]]
    assert not any(set(held) & set(history) for held, history in users.select("held_out", "history").iter_rows())


def test_citations_are_split_in_three_without_a_link_twice(citeulike: Path, tmp_path: Path) -> None:
    import_dataset("citeulike", citeulike, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    splits = [table(dataset.pairs(split)).rows() for split in ("train", "valid", "test", "coldstart")]
    links = [frozenset(pair) for split in splits for pair in split]
    assert len(links) == len(set(links))
    cold = set(dataset.coldstart_pins())
    both_cold = sum({f"a{n}", f"a{(n + step) % 60}"} <= cold for n in range(60) for step in (1, 2))
    assert len(links) == 120 - both_cold
    assert all(query in cold for query, _ in splits[3])
    sizes = [len(split) for split in splits[:3]]
    assert sizes == [round(0.7 * sum(sizes)), round(0.8 * sum(sizes)) - round(0.7 * sum(sizes)), sizes[2]]


def test_titles_and_abstracts_of_the_publishers_csv_count_from_one(citeulike: Path, tmp_path: Path) -> None:
    (citeulike / "titles.txt").unlink()
    rows = '"doc.id","title","citeulike.id","raw.title","raw.abstract"\n1,"x",9,"Caf\xe9, the","An ""abstract"""\n'
    (citeulike / "raw-data.csv").write_bytes(rows.encode("latin-1"))
    import_dataset("citeulike", citeulike, tmp_path / "out")
    pins = open_dataset(tmp_path / "out").pins()
    assert pins.select("title", "description").row(0) == ("Café, the", 'An "abstract"')
    assert pins.select("title", "description").row(1) == (None, None)


def test_the_same_source_gives_the_same_bytes(citeulike: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        import_dataset("citeulike", citeulike, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 10
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("users.dat", "2 1 2\n1 x\n", 'users.dat, line 2: wanted whole numbers, found "1 x"'),
        ("users.dat", "2 1 2\n3 1 2\n", "users.dat, line 2: wanted 3 numbers, found 2"),
        ("users.dat", "1 60\n", "users.dat, line 1: 60 is not a number from 0 to 59"),
        ("users.dat", "\n", "users.dat, line 1: wanted whole numbers"),
        ("item-tag.dat", "1 2\n", "item-tag.dat, line 1: 2 is not a number from 0 to 1"),
        ("citations.dat", "1 3\n", "citations.dat: wanted 60 lines as in item-tag.dat, found 1"),
        ("titles.txt", "One\nTwo\n", "titles.txt: wanted 60 lines as in item-tag.dat, found 2"),
        ("raw-data.csv", "doc.id,title\n", "raw-data.csv: wanted a column raw.abstract or abstract"),
        ("raw-data.csv", "id,title,abstract\n0,a,b\n", 'raw-data.csv, row 1: wanted a number from 1, found "0"'),
        ("raw-data.csv", "id,title,abstract\n1,a\n", "raw-data.csv, row 1: wanted 3 cells, found 2"),
        ("raw-data.csv", "id,title,abstract\n61,a,b\n", "raw-data.csv: article 61 of only 60"),
    ],
)
def test_citeulike_names_the_line_and_leaves_nothing(
    citeulike: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (citeulike / name).write_text(content)
    with pytest.raises(DatasetError) as caught:
        import_dataset("citeulike", citeulike, tmp_path / "out")
    assert str(caught.value).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["citeulike"]


def test_movietweetings_cuts_in_time(movietweetings: Path, tmp_path: Path) -> None:
    import_dataset("movietweetings", movietweetings, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert validate_dataset(tmp_path / "out") == []
    pins = dataset.pins()
    assert pins.select("pin_id", "title").row(3) == ("tt0000003", "Film 3 (1903)")
    assert pins["annotations"][3].to_list() == ["Drama", "Comedy"]
    assert pins["annotations"][40].to_list() == []
    edges = edges_of(dataset)
    assert all(int(pin[2:]) % 2 == 0 for pin in edges["pin_id"])  # odd films are not liked
    times = liked_times(movietweetings)
    cut = times[int(0.7 * (len(times) - 1))]
    num_before = sum(time <= cut for time in times)
    assert edges.height + table(dataset.coldstart_edges()).height == num_before
    assert edges["timestamp"].max() == cut or edges["timestamp"].to_numpy().max() < cut


def liked_times(source: Path) -> list[int]:
    rows = [line.split("::") for line in (source / "ratings.dat").read_text().splitlines()]
    return sorted(int(time) for _, _, rating, time in rows if int(rating) >= 6)


def test_movietweetings_pairs_are_consecutive_likes_after_the_cut(movietweetings: Path, tmp_path: Path) -> None:
    import_dataset("movietweetings", movietweetings, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    times = liked_times(movietweetings)
    cut = times[int(0.7 * (len(times) - 1))]
    later: dict[str, list[str]] = {}
    for line in (movietweetings / "ratings.dat").read_text().splitlines():
        user, film, rating, time = line.split("::")
        if int(rating) >= 6 and int(time) > cut:
            later.setdefault(user, []).append(f"tt{film}")
    expected = {frozenset(pair) for films in later.values() for pair in pairwise(films)}
    cold = set(dataset.coldstart_pins())
    expected = {pair for pair in expected if not pair <= cold}
    found = [table(dataset.pairs(split)).rows() for split in ("train", "valid", "test", "coldstart")]
    assert {frozenset(pair) for split in found for pair in split} == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ratings.dat", "1::0000000::8::5\n1::0000002::eight::5\n", 'line 2: wanted a whole number, found "eight"'),
        ("ratings.dat", "1::0000000::8\n", "line 1: wanted 4 fields by ::"),
        ("ratings.dat", "1::0000000::8::5\n\n1::0000099::8::5\n", "line 3: wanted a film of movies.dat"),
        ("ratings.dat", "1::0000000::8::9999999999\n", "line 1: wanted seconds since 1970"),
        ("ratings.dat", "1::0000000::5::9\n", "no rating of 6 or more"),
        ("movies.dat", "x::Film::Drama\n", 'line 1: wanted a number, found "x"'),
        ("movies.dat", "1::Film::\n1::Again::\n", "line 2: wanted an id that no earlier line has"),
    ],
)
def test_movietweetings_names_the_line(
    movietweetings: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (movietweetings / name).write_text(content)
    with pytest.raises(DatasetError) as caught:
        import_dataset("movietweetings", movietweetings, tmp_path / "out")
    assert name in str(caught.value)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_csv_finds_common_names_and_adds_pins_that_only_edges_have(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "edges.tsv").write_text("userId\tmovieId\ttimestamp\n7\t11\t100\n8\t10\t\n7\t12\t300\n")
    (tmp_path / "src" / "items.csv").write_text('movieId,title,genres\n10,"Heat, a film",Crime|Drama\n13,Up,\n')
    summary = import_dataset("csv", tmp_path / "src", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert str(summary) == "4 pins, 2 boards, 3 edges"
    assert edges_of(dataset).rows() == [("11", "7", 100), ("10", "8", None), ("12", "7", 300)]
    pins = dataset.pins().select("pin_id", "title", "annotations").rows()
    assert pins == [("10", "Heat, a film", ["Crime", "Drama"]), ("13", "Up", []), ("11", None, []), ("12", None, [])]
    assert dataset.boards()["board_id"].to_list() == ["7", "8"]
    assert validate_dataset(tmp_path / "out") == []


def test_csv_with_other_names_of_columns(tmp_path: Path) -> None:
    (tmp_path / "plays.csv").write_text("Who;Song;When\nann;s1;5\nbob;s2;6\n")
    (tmp_path / "songs.csv").write_text("Song,Artist\ns1,Nina\ns2,Ella\n")
    names = {"pin_id": "Song", "board_id": "Who", "timestamp": "When", "title": "Artist"}
    import_csv(tmp_path / "plays.csv", tmp_path / "out", items=tmp_path / "songs.csv", columns=names)
    dataset = open_dataset(tmp_path / "out")
    assert edges_of(dataset).rows() == [("s1", "ann", 5), ("s2", "bob", 6)]
    assert dataset.pins()["title"].to_list() == ["Nina", "Ella"]


@pytest.mark.parametrize(
    ("edges", "items", "message"),
    [
        ("a,b\n1,2\n", "", "edges.csv, column pin_id: wanted pin_id or pin or"),
        ("pin_id,board_id\n1,2\nx y,2\n", "", 'edges.csv, row 2, column pin_id: "x y" is no id'),
        ("pin_id,board_id\n1,2\n1\n", "", "edges.csv, row 2: malformed line: wanted 2 cells, found 1"),
        ("pin_id,board_id,timestamp\n1,2,now\n", "", "edges.csv, row 1, column timestamp: wanted a whole number"),
        ("pin_id,board_id,timestamp\n1,2,-4\n", "", "edges.csv, row 1, column timestamp: negative time -4"),
        ("pin_id,board_id\n", "", "edges.csv: wanted a row per edge, found none"),
        ("pin_id,board_id\n1,2\n", "pin_id,title\n1,a\n1,b\n", 'items.csv, row 2, column pin_id: "1" is there already'),
    ],
)
def test_csv_names_row_and_column_and_leaves_nothing(tmp_path: Path, edges: str, items: str, message: str) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "edges.csv").write_text(edges)
    if items:
        (source / "items.csv").write_text(items)
    with pytest.raises(DatasetError) as caught:
        import_dataset("csv", source, tmp_path / "out")
    assert str(caught.value).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_unknown_format_missing_source_and_taken_folder(citeulike: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no importer is called "excel"; there are citeulike, movietweetings, csv'):
        import_dataset("excel", citeulike, tmp_path / "out")
    with pytest.raises(UserError, match="is not there"):
        import_dataset("citeulike", tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        import_dataset("citeulike", citeulike, citeulike)
    assert list(IMPORTERS) == ["citeulike", "movietweetings", "csv"]


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"

    def write(*, fail: bool) -> None:
        with staged_folder(out) as folder:
            (folder / "a").write_text("1")
            assert not out.exists()
            if fail:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        write(fail=True)
    assert list((tmp_path / "deep").iterdir()) == []
    write(fail=False)
    assert (out / "a").read_text() == "1"


def test_cold_pins_have_enough_edges_and_keep_their_order() -> None:
    pins = pl.DataFrame({"pin_id": [f"p{n}" for n in range(20)]})
    edges = pl.DataFrame({"pin_id": [f"p{n}" for n in range(20) for _ in range(n % 5)]})
    cold = draw_cold_pins(edges, pins, np.random.default_rng(0), share=0.3)["pin_id"].to_list()
    assert len(cold) == 6
    assert all(int(pin[1:]) % 5 >= 3 for pin in cold)
    assert cold == sorted(cold, key=lambda pin: int(pin[1:]))


def test_cold_pairs_are_turned_and_those_of_two_cold_ends_dropped() -> None:
    pairs = pl.DataFrame({"query_pin_id": ["a", "c", "a", "c"], "related_pin_id": ["b", "a", "d", "d"]})
    warm, cold = split_cold_pairs(pairs, pl.DataFrame({"pin_id": ["c", "d"]}))
    assert warm.rows() == [("a", "b")]
    assert cold.rows() == [("c", "a"), ("d", "a")]


def test_a_pair_stays_in_the_first_split_that_has_it() -> None:
    def pairs(*rows: tuple[str, str]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=["query_pin_id", "related_pin_id"], orient="row")

    splits = {"train": pairs(("a", "b"), ("a", "b"), ("c", "d")), "test": pairs(("b", "a"), ("e", "f"), ("f", "e"))}
    kept = without_repeats(splits)
    assert kept["train"].rows() == [("a", "b"), ("c", "d")]
    assert kept["test"].rows() == [("e", "f"), ("f", "e")]


def test_shares_of_the_splits() -> None:
    pairs = pl.DataFrame({"query_pin_id": [f"q{n}" for n in range(200)], "related_pin_id": ["r"] * 200})
    splits = split_shuffled(pairs, np.random.default_rng(0))
    assert [splits[f"pairs_{name}"].height for name in ("train", "valid", "test")] == [140, 20, 40]
    assert pl.concat(splits.values())["query_pin_id"].n_unique() == 200


def test_users_are_parted_by_how_much_they_did() -> None:
    rng = np.random.default_rng(1)
    weights = pl.DataFrame({"board_id": [f"u{n}" for n in range(500)], "len": rng.integers(1, 20, 500)})
    parted = weights.join(part_users(weights, rng), on="board_id")
    shares = dict(parted.group_by("part").agg(pl.col("len").sum() / weights["len"].sum()).rows())
    assert shares == pytest.approx({"train": 0.7, "valid": 0.1, "test": 0.2}, abs=0.01)


def test_held_out_pins_leave_the_graph() -> None:
    users = [f"u{n}" for n in range(10) for _ in range(20)] + ["small"] * 9
    edges = pl.DataFrame({"pin_id": [f"p{n}" for n in range(len(users))], "board_id": users})
    left, users_test = hold_out(edges, np.random.default_rng(0))
    assert users_test.height == 2  # a fifth of the ten users with ten pins or more
    assert users_test["held_out"].list.len().to_list() == [4, 4]
    assert users_test["history"].list.len().to_list() == [16, 16]
    assert left.height == edges.height - 8
    assert not set(left["pin_id"]) & set(users_test["held_out"].explode())


@pytest.mark.parametrize(("name", "folder"), [("citeulike", "citeulike-a"), ("movietweetings", "movietweetings-100k")])
def test_the_real_sources_import_clean_and_as_large_as_they_should(name: str, folder: str, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the real data sets are not here")
    summary = import_dataset(name, SHARED / "raw" / folder, tmp_path / "out")
    given = open_dataset(SHARED / "data" / folder)
    assert validate_dataset(tmp_path / "out") == []
    assert (summary.num_pins, summary.num_boards) == (given.pins().height, given.boards().height)
    assert summary.num_edges == pytest.approx(given.num_edges(), rel=0.02)
    assert summary.num_coldstart_pins == len(given.coldstart_pins())
    num_tags = [dataset.pins()["annotations"].list.len().sum() for dataset in (open_dataset(tmp_path / "out"), given)]
    assert num_tags[0] == num_tags[1]
