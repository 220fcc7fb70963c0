from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from service_fixtures import cluster_of, make_release, make_world, words_of

from model.changes import PinRecord
from model.release import Release
from service.live.catalogue import Catalogue
from service.live.facets import Filter
from service.live.failures import InvalidContent, UnknownPin
from service.live.text_search import search_text
from service.live.views import PinContentIn
from service.recommend.related import related, related_batch


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("related") / "releases", make_world())


@pytest.fixture
def catalogue(release: Release) -> Catalogue:
    return Catalogue(release, max_live_pins=1_000)


def test_related_pins_are_the_nearest_without_the_pin_itself(catalogue: Catalogue, release: Release) -> None:
    page = related(catalogue, "p42", limit=10)
    exact = np.argsort(-(release.embeddings_PD @ release.embeddings_PD[42]), kind="stable")[1:11]
    assert [item.pin_id for item in page.items] == [f"p{row}" for row in exact]
    assert page.release == release.id
    assert page.next_offset == 10
    assert page.items[0].title == release.pins["title"][int(exact[0])].as_py()
    assert page.items[0].image_url == f"http://images/p{exact[0]}.png"
    scores = [item.score for item in page.items]
    assert scores == sorted(scores, reverse=True)


def test_reasons_tell_what_walks_reach_from_what_is_only_alike(catalogue: Catalogue) -> None:
    listed = catalogue.listed(42)
    assert listed is not None
    for limit, visited in ((60, listed.together), (100, catalogue.neighbors(42)[0])):  # a list has 64 pins
        items = related(catalogue, "p42", limit=limit).items
        together = {f"p{row}" for row in visited} & {item.pin_id for item in items}
        assert {item.pin_id for item in items if item.reason == "saved_together"} == together
        assert {item.reason for item in items} == {"saved_together", "similar"}


def test_lists_made_beforehand_give_what_a_search_gives(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was put, changed and taken away since; beside what is known of the pins, nothing else differs."""
    rng = np.random.default_rng(3)
    catalogue = Catalogue(release, max_live_pins=1_000)
    for number in range(60):
        pin_id = f"p{rng.integers(300)}" if number % 2 else f"new-{number}"
        boards = tuple(f"b{board}" for board in rng.integers(0, 60, 2))
        deleted = number % 5 == 1
        catalogue.apply(PinRecord(pin_id, title=" ".join(words_of(number % 6)[:3]), boards=boards, deleted=deleted))
    asked = [(f"p{row}", number % 30 + 1, number % 3 * 10) for number, row in enumerate(rng.permutation(300)[:60])]
    asked = [each for each in asked if catalogue.row(each[0]) >= 0]

    def answers() -> list[list[tuple[str, float]]]:
        pages = [
            related(catalogue, pin, limit=limit, offset=offset, exclude=["p1", "p2"]) for pin, limit, offset in asked
        ]
        return [[(item.pin_id, round(item.score, 5)) for item in page.items] for page in pages]

    with_lists = answers()
    assert sum(catalogue.listed(catalogue.row(pin)) is not None for pin, _, _ in asked) > 30
    monkeypatch.setattr(Catalogue, "listed", lambda self, row: None)
    assert with_lists == answers()


def test_a_new_pin_in_a_list_made_beforehand_has_its_reason(catalogue: Catalogue, release: Release) -> None:
    like = catalogue.describe(42)
    catalogue.apply(PinRecord("new", title=like["title"], boards=tuple(like["boards"])))
    items = {item.pin_id: item for item in related(catalogue, "p42", limit=60).items}
    visited = {catalogue.directory.pins.name(row) for row in catalogue.neighbors(42)[0].tolist()}
    assert catalogue.listed(42) is not None
    assert (items["new"].reason == "saved_together") == ("new" in visited)
    assert "new" in visited


def test_pages_continue_each_other_and_end(catalogue: Catalogue) -> None:
    whole = [item.pin_id for item in related(catalogue, "p0", limit=500).items]
    pages, offset = [], 0
    while offset is not None:
        page = related(catalogue, "p0", limit=70, offset=offset)
        pages += [item.pin_id for item in page.items]
        offset = page.next_offset
    assert pages == whole
    assert len(set(whole)) == len(whole) == 299
    assert related(catalogue, "p0", limit=10, offset=5_000).items == []


def test_the_last_page_has_no_next_one(catalogue: Catalogue) -> None:
    assert related(catalogue, "p0", limit=299).next_offset is None
    assert related(catalogue, "p0", limit=298).next_offset == 298


def test_exclusions_and_filters_are_obeyed(catalogue: Catalogue) -> None:
    first = [item.pin_id for item in related(catalogue, "p0", limit=10).items]
    rest = related(catalogue, "p0", limit=10, exclude=[*first, "unheard of"])
    assert not {item.pin_id for item in rest.items} & set(first)
    assert len(rest.items) == 10
    other = related(catalogue, "p0", limit=60, wanted=Filter("c3"))
    assert len(other.items) == 50
    assert {cluster_of(item.pin_id) for item in other.items} == {3}
    assert other.next_offset is None


@pytest.mark.parametrize("pin_id", ["nobody", "p300", ""])
def test_a_pin_that_is_not_there_is_unknown(catalogue: Catalogue, pin_id: str) -> None:
    with pytest.raises(UnknownPin):
        related(catalogue, pin_id, limit=5)


def test_a_deleted_pin_is_unknown(catalogue: Catalogue) -> None:
    catalogue.apply(PinRecord("p5", deleted=True))
    with pytest.raises(UnknownPin):
        related(catalogue, "p5", limit=5)


def test_a_batch_answers_pins_and_contents_in_order(catalogue: Catalogue) -> None:
    content = PinContentIn(" ".join(words_of(4)), boards=("b40", "b41"))
    known, unknown, new = related_batch(catalogue, ["p1", "nobody", content], limit=6)
    assert known == related(catalogue, "p1", limit=6).items
    assert unknown is None
    assert new is not None
    assert len(new) == 6
    assert {cluster_of(item.pin_id) for item in new} == {4}
    assert catalogue.delta.num_slots == 0
    assert related_batch(catalogue, ["nobody"], limit=6) == [None]


def test_content_that_does_not_fit_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidContent, match="visual"):
        related_batch(catalogue, [PinContentIn(visual=(1.0,))], limit=5)


# --- by words ---


def test_words_find_titles_and_tags(catalogue: Catalogue, release: Release) -> None:
    items = search_text(catalogue, "WORD12", 300)
    texts = {item.pin_id: item.reason for item in items}
    titles = release.pins["title"].to_pylist()
    tags = release.pins["annotations"].to_pylist()
    expected = {
        f"p{row}": "title" if "word12" in titles[row].split() else "annotation"
        for row in range(300)
        if "word12" in titles[row].split() or "word12" in tags[row]
    }
    assert texts == expected
    assert set(expected.values()) == {"title", "annotation"}


def test_pins_that_more_words_fit_come_first(catalogue: Catalogue) -> None:
    catalogue.apply(PinRecord("new", "Oak lamp for the desk", ("lighting",)))
    catalogue.apply(PinRecord("other", "Oak table"))
    found = search_text(catalogue, "oak la", 5)
    assert [(item.pin_id, item.score) for item in found] == [("new", 1.0), ("other", 0.5)]
    assert [item.pin_id for item in search_text(catalogue, "LIGHT", 5)] == ["new"]
    assert search_text(catalogue, "amp", 5) == []  # only the start of a word fits


def test_words_of_any_script_are_found_in_the_release(tmp_path: Path) -> None:
    world = make_world(30)
    world.titles[3], world.titles[4] = "La belle Étoile", '"Звезда" (2)'
    catalogue = Catalogue(make_release(tmp_path / "releases", world), max_live_pins=10)
    assert [item.pin_id for item in search_text(catalogue, "éto", 5)] == ["p3"]
    assert [item.pin_id for item in search_text(catalogue, "звез", 5)] == ["p4"]


def test_where_all_others_are_deleted_lists_are_empty_and_a_new_pin_is_found(release: Release) -> None:
    catalogue = Catalogue(release, max_live_pins=1_000)
    for row in range(1, 300):
        catalogue.apply(PinRecord(f"p{row}", deleted=True))
    page = related(catalogue, "p0", limit=20)
    assert (page.items, page.next_offset) == ([], None)
    assert related_batch(catalogue, ["p0", "p1"], limit=5) == [[], None]
    catalogue.apply(PinRecord("new", title=" ".join(words_of(2))))
    assert [item.pin_id for item in related(catalogue, "p0", limit=20).items] == ["new"]
    catalogue.apply(PinRecord("p0", deleted=True))
    assert related(catalogue, "new", limit=20).items == []


def test_words_of_replaced_and_deleted_pins_find_nothing(catalogue: Catalogue, release: Release) -> None:
    title = release.pins["title"][0].as_py()
    assert "p0" in {item.pin_id for item in search_text(catalogue, title, 300)}
    catalogue.apply(PinRecord("p0", "something else"))
    catalogue.apply(PinRecord("p6", deleted=True))
    found = {item.pin_id for item in search_text(catalogue, f"{title} word0 word1 word2", 300)}
    assert found
    assert not found & {"p0", "p6"}
    assert [item.pin_id for item in search_text(catalogue, "something", 5)] == ["p0"]


@pytest.mark.parametrize("text", ["", "  ", "?!", "no such thing", "(", "\\", "a" * 200])
def test_words_that_nothing_fits_find_nothing(catalogue: Catalogue, text: str) -> None:
    assert search_text(catalogue, text, 5) == []
