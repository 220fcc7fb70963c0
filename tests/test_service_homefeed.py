from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_fixtures import cluster_of, make_release, make_world, words_of

from model.changes import PinRecord
from model.release import Release
from service.live.catalogue import Catalogue
from service.live.facets import Filter
from service.live.shelves import Shelves
from service.live.views import Action, UserState
from service.recommend.homefeed import AGREEMENT, Asked, Feed, Pick
from service.recommend.spread import COST, Spread

DAY = 86_400.0


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("homefeed") / "releases", make_world())


@pytest.fixture
def catalogue(release: Release) -> Catalogue:
    return Catalogue(release, max_live_pins=1_000)


def user(*pins: str, type: str = "save", hides: tuple[str, ...] = (), seen: tuple[str, ...] = ()) -> UserState:
    """A user who saved these pins within a minute, the newest first."""
    return UserState(tuple(Action(type, pin, 1000.0 - i) for i, pin in enumerate(pins)), hides, seen)


def picks(catalogue: Catalogue, asked: Asked, count: int = 20, shown: tuple[str, ...] = ()) -> list[Pick]:
    return Feed(catalogue, Shelves(catalogue), asked).after(shown, count)


def names(catalogue: Catalogue, asked: Asked, count: int = 20, shown: tuple[str, ...] = ()) -> list[str]:
    return [catalogue.directory.pins.name(pick.row) for pick in picks(catalogue, asked, count, shown)]


# --- what the user did ---


def test_saved_pins_bring_their_nearest_and_say_so(catalogue: Catalogue, release: Release) -> None:
    vectors_PD = release.embeddings_PD
    for pick in picks(catalogue, Asked(user("p0", "p1")), 30):
        assert pick.reason == "because_you_saved"
        assert pick.row % 6 == pick.source % 6
        assert pick.source in (0, 1)
        assert pick.score == pytest.approx(vectors_PD[pick.row] @ vectors_PD[pick.source], abs=1e-5)


def test_the_first_place_is_near_one_recent_pin_and_not_far_from_the_others(
    catalogue: Catalogue, release: Release
) -> None:
    saved = [3, 10, 22]
    cosines_PS = release.embeddings_PD @ release.embeddings_PD[saved].T
    values_P = cosines_PS.max(1) + AGREEMENT * cosines_PS.mean(1)
    values_P[saved] = -1
    [first] = picks(catalogue, Asked(UserState(tuple(Action("save", f"p{row}", 9.0) for row in saved))), 1)
    assert first.row == np.argmax(values_P)
    assert first.score == pytest.approx(cosines_PS[first.row].max(), abs=1e-5)


def test_interests_take_turns(catalogue: Catalogue) -> None:
    """Nine pins of one topic and one of another: both are on the first page, each with its share."""
    saved = [f"p{row}" for row in range(0, 54, 6)] + ["p1"]
    topics = Counter(cluster_of(name) for name in names(catalogue, Asked(user(*saved)), 20))
    assert set(topics) == {0, 1}
    assert min(topics.values()) >= 2
    even = [pick.row % 6 for pick in picks(catalogue, Asked(user("p0", "p6", "p1", "p7")), 20)]
    assert 7 <= even.count(0) <= 13


def test_a_click_counts_less_than_a_save(catalogue: Catalogue) -> None:
    both = UserState((Action("click", "p1", 1000.0), Action("save", "p0", 1000.0)))
    found = picks(catalogue, Asked(both), 30)
    reasons = Counter(pick.reason for pick in found)
    assert reasons["because_you_saved"] > reasons["because_you_clicked"] > 0
    assert {pick.row % 6 for pick in found if pick.reason == "because_you_clicked"} == {1}


def test_old_actions_count_less(catalogue: Catalogue) -> None:
    state = UserState((Action("save", "p1", 200 * DAY), Action("save", "p0", 193 * DAY)))
    topics = Counter(pick.row % 6 for pick in picks(catalogue, Asked(state), 30))
    assert topics[1] > topics[0] > 0


def test_time_alone_changes_nothing(catalogue: Catalogue) -> None:
    def at(start: float) -> UserState:
        return UserState((Action("save", "p1", start + DAY), Action("save", "p0", start)))

    assert picks(catalogue, Asked(at(0.0))) == picks(catalogue, Asked(at(500 * DAY)))


def test_what_the_user_knows_does_not_come_again(catalogue: Catalogue) -> None:
    first = names(catalogue, Asked(user("p0", "p1")), 40)
    state = UserState(user("p0", "p1").recent, hides=tuple(first[:5]), seen=tuple(first[5:15]))
    again = names(catalogue, Asked(state, exclude=first[15:20]), 100)
    assert not set(again) & {"p0", "p1", *first[:20]}


def test_pins_like_a_hidden_one_are_held_back(catalogue: Catalogue) -> None:
    """Saved p0, hid a pin of its topic: what is nearer to the hidden one sinks, the rest of the topic stays."""
    before = names(catalogue, Asked(user("p0")), 45)
    hidden = before[0]
    vectors = catalogue.vectors(catalogue.rows([hidden, "p0"]))
    after = names(catalogue, Asked(user("p0", hides=(hidden,))), 300)
    nearer = [pin for pin in before[1:] if np.subtract(*(catalogue.vectors(catalogue.rows([pin])) @ vectors.T)[0]) > 0]
    others = [pin for pin in before[1:] if pin not in nearer]
    assert nearer
    assert others
    sunk = np.mean([after.index(pin) for pin in nearer]) - np.mean([before.index(pin) for pin in nearer])
    risen = np.mean([after.index(pin) for pin in others]) - np.mean([before.index(pin) for pin in others])
    assert sunk > risen


def test_a_hidden_pin_brings_nothing(catalogue: Catalogue) -> None:
    found = picks(catalogue, Asked(user("p0", "p1", hides=("p1",))), 30)
    assert {pick.source for pick in found} == {0}


def test_only_the_last_twenty_pins_count(catalogue: Catalogue) -> None:
    state = user(*(f"p{row}" for row in range(0, 120, 6)), "p1")
    assert {pick.source % 6 for pick in picks(catalogue, Asked(state), 25)} == {0}


def test_a_new_pin_is_in_the_feed_at_once(catalogue: Catalogue) -> None:
    boards = tuple(catalogue.describe(0)["boards"])
    twin = catalogue.describe(0)
    catalogue.apply(PinRecord("new", twin["title"], tuple(twin["annotations"]), boards=boards))
    assert "new" in names(catalogue, Asked(user("p0")), 10)


# --- what everybody does ---


def test_every_tenth_place_is_trending_and_every_tenth_fresh(catalogue: Catalogue) -> None:
    for i in range(4):
        catalogue.apply(PinRecord(f"new{i}", words_of(5)[i]))
    found = picks(catalogue, Asked(user("p0"), trending=["p50", "nobody", "p51", "p0", "p52"]), 40)
    assert [pick.row for pick in found[4::10]] == [50, 51, 52, found[34].row]
    assert [pick.reason for pick in found[4::10]] == ["trending"] * 3 + ["because_you_saved"]
    assert [pick.row for pick in found[9::10]] == [303, 302, 301, 300]
    assert {pick.reason for pick in found[9::10]} == {"fresh"}


def test_an_unknown_user_gets_what_is_popular(catalogue: Catalogue, release: Release) -> None:
    found = picks(catalogue, Asked(trending=["p50", "p51"]), 20)
    degrees = release.graph.pin_degrees()
    by_degree = np.lexsort((np.arange(300), -degrees))
    expected = [50, 51, *(row for row in by_degree if row not in (50, 51))][:20]
    assert [pick.row for pick in found] == expected
    assert {pick.reason for pick in found} == {"popular"}


def test_a_feed_goes_on_with_popular_pins_until_there_are_no_more(catalogue: Catalogue) -> None:
    catalogue.apply(PinRecord("new", "word1"))
    catalogue.apply(PinRecord("p7", deleted=True))
    state = user("p0", hides=("p1",), seen=("p2", "p3"))
    found = names(catalogue, Asked(state, exclude=["p4"]), 1_000)
    expected = {f"p{row}" for row in range(300)} - {"p0", "p1", "p4", "p7"} | {"new"}
    assert sorted(found) == sorted(expected)
    assert set(found[-2:]) == {"p2", "p3"}  # what was seen comes last


def test_filters_hold_for_every_place(catalogue: Catalogue) -> None:
    for i in range(12):
        catalogue.apply(PinRecord(f"new{i}", words_of(i % 6)[0], category=f"c{i % 6}", language="en"))
    catalogue.apply(PinRecord("p9", "moved", category="c1"))
    for state in (user("p0", "p3"), UserState()):
        asked = Asked(state, trending=["p50", "p51", "p57", "p9"], wanted=Filter("c3"))
        found = names(catalogue, asked, 100)
        assert {int(name.lstrip("pnew")) % 6 for name in found} == {3}
        assert len(found) == 50 - ("p3" in {action.pin_id for action in state.recent}) - 1 + 2
        languages = [
            catalogue.describe(row)["language"]
            for row in catalogue.rows(names(catalogue, Asked(state, wanted=Filter("c3", "en")), 100))
        ]
        assert set(languages) == {"en"}


def test_old_pins_are_not_fresh_but_those_with_a_recent_date_are(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Shelves(catalogue).fresh(Filter()).tolist() == []
    monkeypatch.setattr("service.live.shelves.time.time", lambda: 30 * DAY + 295)
    assert Shelves(catalogue).fresh(Filter()).tolist() == [299, 298, 297, 296, 295]
    assert Shelves(catalogue).fresh(Filter("c1")).tolist() == [295]


# --- pages ---


ROWS = st.lists(st.integers(0, 299), unique=True, max_size=8)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, ROWS, ROWS, st.lists(st.integers(1, 25), min_size=1, max_size=5))
def test_pages_are_the_feed_in_pieces(
    catalogue: Catalogue, saved: list[int], hidden: list[int], trending: list[int], sizes: list[int]
) -> None:
    hides = tuple(f"p{row}" for row in hidden)
    asked = Asked(user(*(f"p{row}" for row in saved), hides=hides), [f"p{row}" for row in trending])
    whole = names(catalogue, asked, sum(sizes))
    pages: list[str] = []
    for size in sizes:
        pages += names(catalogue, asked, size, tuple(pages))
    assert pages == whole
    assert len(set(whole)) == len(whole) == sum(sizes)


def test_a_page_does_not_repeat_what_was_shown_when_the_world_moves_on(catalogue: Catalogue) -> None:
    state = user("p0", "p1")
    first = names(catalogue, Asked(state, trending=["p50", "p51"]), 20)
    catalogue.apply(PinRecord(first[3], deleted=True))
    catalogue.apply(PinRecord("new", catalogue.describe(0)["title"]))
    moved = Asked(user("p2", "p0", "p1", seen=tuple(first)), trending=["p51", "p50", first[0]])
    assert not set(names(catalogue, moved, 60, tuple(first))) & set(first)


# --- the order of alike things ---


def test_spread_costs_what_is_like_the_place_before() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    values = np.array([1.0, 0.99, 0.99 - COST / 2])
    spread = Spread([7, 8, 9], values, vectors)
    order = []
    while (best := spread.best()) is not None:
        order.append(best)
        spread.place([7 + best], vectors[best : best + 1])
    assert order == [0, 2, 1]


def test_spread_keeps_the_order_of_values_within_one_topic() -> None:
    vectors = np.repeat(np.array([[0.6, 0.8]], np.float32), 50, axis=0)
    values = np.linspace(0, 1, 50)
    spread = Spread(range(50), values, vectors)
    for expected in range(49, -1, -1):
        assert spread.best() == expected
        spread.place([expected], vectors[:1])
    assert spread.best() is None


def test_spread_takes_many_places_at_once_as_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    one, many = (Spread(range(40), np.ones(40), vectors) for _ in range(2))
    for row in range(20):
        one.place([row], vectors[row : row + 1])
    many.place(range(20), vectors[:20])
    np.testing.assert_allclose(one._costs_C, many._costs_C, atol=1e-5)
    assert one.best() == many.best()
