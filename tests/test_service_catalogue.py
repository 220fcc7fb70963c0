from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_fixtures import WALK_SEED, WALKS, World, cluster_of, make_release, make_world, words_of

from model.changes import EdgeRecord, PinRecord
from model.release import Release
from service.live.catalogue import Catalogue
from service.live.facets import Filter
from service.live.failures import DeltaFull, InvalidContent
from service.live.views import PinContentIn


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def release(world: World, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("catalogue") / "releases", world)


@pytest.fixture
def catalogue(release: Release) -> Catalogue:
    return Catalogue(release, max_live_pins=1_000)


def pin(pin_id: str, cluster: int, *, boards: bool = True, **more: object) -> PinRecord:
    """A pin that belongs to a planted cluster by its words and, if wanted, its boards."""
    own = tuple(f"b{10 * cluster + i}" for i in range(3)) if boards else ()
    words = words_of(cluster)
    return PinRecord(pin_id, " ".join(words[:4]), (words[4],), boards=own, **more)  # type: ignore[arg-type]


def nearest(catalogue: Catalogue, pin_id: str, k: int = 5, **filters: str) -> list[str]:
    vector_1D = catalogue.vectors(catalogue.rows([pin_id]))
    rows = catalogue.search(vector_1D, k, wanted=Filter(**filters)).rows_QK[0]
    return [catalogue.directory.pins.name(row) for row in rows.tolist() if row >= 0]


# --- pins ---


def test_a_new_pin_finds_itself_and_its_cluster_at_once(catalogue: Catalogue) -> None:
    for cluster in range(6):
        applied = catalogue.apply(pin(f"new{cluster}", cluster))
        assert applied is not None
        assert applied.created
        found = nearest(catalogue, f"new{cluster}")
        assert found[0] == f"new{cluster}"
        assert {cluster_of(other) for other in found[1:] if other.startswith("p")} == {cluster}


def test_a_new_pin_is_in_the_lists_of_others_at_once(catalogue: Catalogue) -> None:
    catalogue.apply(pin("new", 2))
    neighbor = nearest(catalogue, "new")[1]
    assert "new" in nearest(catalogue, neighbor, 60)  # of its cluster of 51


def test_neighbors_of_a_new_pin_share_its_boards(catalogue: Catalogue) -> None:
    applied = catalogue.apply(pin("new", 4))
    assert applied is not None
    ids_T, weights_T = catalogue.neighbors(applied.row)
    assert set(ids_T % 6) == {4}
    assert weights_T.sum() == pytest.approx(1)
    assert list(weights_T) == sorted(weights_T, reverse=True)


def test_a_new_pin_is_a_neighbor_of_the_next_one(catalogue: Catalogue) -> None:
    catalogue.apply(PinRecord("one", "word1", boards=("mine",)))
    applied = catalogue.apply(PinRecord("two", "word1", boards=("mine",)))
    assert applied is not None
    assert catalogue.neighbors(applied.row)[0].tolist() == [catalogue.row("one")]


def test_a_pin_without_boards_takes_its_nearest_pins_by_content(catalogue: Catalogue, release: Release) -> None:
    applied = catalogue.apply(pin("new", 3, boards=False))
    assert applied is not None
    x_F = catalogue.delta.features(catalogue.delta.slot_of(applied.row))
    alone_1D, _ = catalogue.embedder.forward(x_F[None], np.empty((1, 0), np.int64), np.empty((1, 0), np.float32))
    cosines_P = release.embeddings_PD @ alone_1D[0]
    ids_T, weights_T = catalogue.neighbors(applied.row)
    np.testing.assert_array_equal(ids_T, np.argsort(-cosines_P)[: WALKS.num_neighbors])
    np.testing.assert_allclose(weights_T, cosines_P[ids_T] / cosines_P[ids_T].sum(), atol=1e-3)
    assert nearest(catalogue, "new")[0] == "new"


def test_a_deleted_pin_is_gone_everywhere(catalogue: Catalogue) -> None:
    catalogue.apply(pin("new", 0))
    for gone in ("new", "p0"):
        friend = nearest(catalogue, gone)[1]
        boards = catalogue.graph.boards_of(catalogue.row(gone))
        applied = catalogue.apply(PinRecord(gone, deleted=True))
        assert applied is not None
        assert catalogue.row(gone) == -1
        assert gone not in nearest(catalogue, friend, 400)
        assert all(applied.row not in catalogue.graph.pins_of(board) for board in boards)
        assert catalogue.apply(PinRecord(gone, deleted=True)) is None


def test_a_deleted_pin_can_be_put_again(catalogue: Catalogue) -> None:
    for back in ("new", "p1"):
        catalogue.apply(pin(back, 1))
        row = catalogue.row(back)
        catalogue.apply(PinRecord(back, deleted=True))
        applied = catalogue.apply(pin(back, 5))
        assert applied is not None
        assert applied.created
        assert applied.row == row
        assert nearest(catalogue, back)[0] == back


def test_replacing_a_pin_replaces_content_boards_and_vector(catalogue: Catalogue) -> None:
    for name in ("new", "p2"):
        catalogue.apply(pin(name, 2))
        applied = catalogue.apply(pin(name, 5, category="moved"))
        assert applied is not None
        assert not applied.created
        shown = catalogue.describe(applied.row)
        assert shown["boards"] == ["b50", "b51", "b52"]
        assert shown["title"] == " ".join(words_of(5)[:4])
        found = nearest(catalogue, name, 300)
        assert found[0] == name
        assert found.count(name) == 1
        assert [cluster_of(other) for other in found[2:5]] == [5, 5, 5]
        assert name in nearest(catalogue, "p2", 300, category="moved")
        assert name not in nearest(catalogue, "p3", 300, category="c2")


def test_a_pin_put_twice_has_the_same_vector(catalogue: Catalogue) -> None:
    first = catalogue.apply(pin("new", 1))
    assert first is not None
    before = catalogue.vectors(np.array([first.row]))
    catalogue.apply(pin("new", 1))
    np.testing.assert_array_equal(catalogue.vectors(np.array([first.row])), before)


def test_a_replaced_pin_is_still_asked_for_as_often(catalogue: Catalogue, release: Release) -> None:
    column = release.encoder.slices["popularity"].start + 1
    for _ in range(2):
        applied = catalogue.apply(pin("p6", 0))
        assert applied is not None
        asked = catalogue.delta.features(catalogue.delta.slot_of(applied.row))[column]
        assert asked == release.features_PF[6, column] > 0
    new = catalogue.apply(pin("new", 0))
    assert new is not None
    assert catalogue.delta.features(catalogue.delta.slot_of(new.row))[column] == 0


# --- boards ---


def test_an_edge_moves_a_pin_toward_its_new_board(catalogue: Catalogue) -> None:
    for name in ("new", "p3"):
        catalogue.apply(pin("new", 3))
        goal_D = catalogue.vectors(catalogue.rows(["p10", "p16", "p22"])).mean(0)
        before = catalogue.vectors(catalogue.rows([name]))[0] @ goal_D
        for board in ("b40", "b41", "b42", "b43", "b44"):
            assert catalogue.apply(EdgeRecord(board, name, True)) is not None
        assert catalogue.vectors(catalogue.rows([name]))[0] @ goal_D > before
        shown = catalogue.describe(catalogue.row(name))
        assert set(shown["boards"]) >= {"b40", "b44"}
        assert shown["title"] is not None


def test_removing_what_was_added_gives_the_old_vector(catalogue: Catalogue) -> None:
    catalogue.apply(pin("new", 3))
    before = catalogue.vectors(catalogue.rows(["new"]))
    catalogue.apply(EdgeRecord("b40", "new", True))
    assert not np.array_equal(catalogue.vectors(catalogue.rows(["new"])), before)
    catalogue.apply(EdgeRecord("b40", "new", False))
    np.testing.assert_allclose(catalogue.vectors(catalogue.rows(["new"])), before, atol=2e-3)


def test_an_edge_that_changes_nothing_has_no_effect(catalogue: Catalogue) -> None:
    catalogue.apply(pin("new", 3))
    slots = catalogue.delta.num_slots
    assert catalogue.apply(EdgeRecord("b30", "new", True)) is None
    assert catalogue.apply(EdgeRecord("b40", "new", False)) is None
    assert catalogue.apply(EdgeRecord("nowhere", "new", False)) is None
    assert catalogue.apply(EdgeRecord("b30", "nobody", True)) is None
    assert catalogue.delta.num_slots == slots


# --- vectors as offline ---


def test_a_vector_equals_the_offline_one_for_the_same_neighbors(
    catalogue: Catalogue, release: Release, world: World
) -> None:
    x_PF = np.asarray(release.features_PF, np.float32)
    vectors_PD, messages_PKM = catalogue.embedder.forward(x_PF, world.around.ids_BT, world.around.weights_BT)
    assert (vectors_PD * release.embeddings_PD).sum(1).min() >= 0.999
    for layer in range(2):
        np.testing.assert_allclose(messages_PKM[:, layer], release.messages[layer], atol=2e-2)


def test_walks_are_the_offline_walks(catalogue: Catalogue, world: World) -> None:
    for row in (0, 17, 200):
        ids_BT, weights_BT = catalogue.graph.neighbors(row, WALKS, seed=WALK_SEED)
        np.testing.assert_array_equal(ids_BT[0], world.around.ids_BT[row])
        np.testing.assert_array_equal(weights_BT[0], world.around.weights_BT[row])


def test_the_same_content_and_boards_come_near_the_offline_vector(catalogue: Catalogue, world: World) -> None:
    """Only the random walks differ."""
    cosines = []
    for row in range(0, 294, 13):
        boards = tuple(f"b{board}" for board in world.graph.boards_of(row))
        visual, tags = tuple(world.visual_PV[row].tolist()), tuple(world.tags[row])
        catalogue.apply(PinRecord(f"twin{row}", world.titles[row], tags, visual=visual, boards=boards))
        cosines.append(np.vdot(*catalogue.vectors(catalogue.rows([f"p{row}", f"twin{row}"]))))
    assert min(cosines) > 0.97


def test_a_preview_is_near_what_a_put_gives_and_stores_nothing(catalogue: Catalogue) -> None:
    record = pin("new", 2)
    content = PinContentIn(record.title, record.annotations, boards=(*record.boards, "unheard of"))
    vector_D = catalogue.preview(content)
    assert catalogue.delta.num_slots == 0
    catalogue.apply(record)
    assert vector_D @ catalogue.vectors(catalogue.rows(["new"]))[0] > 0.95


def test_a_pin_of_which_nothing_is_known_still_finds_itself(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = catalogue.embedder.forward
    monkeypatch.setattr(
        catalogue.embedder, "forward", lambda x_BF, *around: (np.zeros((1, 16), np.float32), forward(x_BF, *around)[1])
    )
    catalogue.apply(PinRecord("new", "unheard of"))
    assert nearest(catalogue, "new")[0] == "new"


# --- limits and faults ---


@pytest.mark.parametrize("visual", [(1.0,) * 11, (1.0,) * 13, (float("nan"),) * 12, (float("inf"),) * 12, (1e39,) * 12])
def test_a_visual_vector_that_does_not_fit_is_refused(catalogue: Catalogue, visual: tuple[float, ...]) -> None:
    with pytest.raises(InvalidContent, match="visual"):
        catalogue.check(PinRecord("new", "word1", visual=visual))
    with pytest.raises(InvalidContent, match="visual"):
        catalogue.preview(PinContentIn("word1", visual=visual))


def test_a_record_that_cannot_be_embedded_changes_nothing(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.apply(pin("old", 1))
    before = catalogue.describe(catalogue.row("old"))
    vector_1D = catalogue.vectors(catalogue.rows(["old"]))

    def fail(*_: object) -> None:
        raise ValueError("not finite")

    with monkeypatch.context() as patch:
        patch.setattr(catalogue.embedder, "forward", fail)
        for name in ("old", "new"):
            with pytest.raises(ValueError, match="not finite"):
                catalogue.apply(pin(name, 4))
    assert catalogue.row("new") == -1
    assert catalogue.describe(catalogue.row("old")) == before
    np.testing.assert_array_equal(catalogue.vectors(catalogue.rows(["old"])), vector_1D)
    assert not any("new" in nearest(catalogue, f"p{row}", 400) for row in range(6))


def test_a_full_delta_refuses_new_pins_and_keeps_taking_edges(release: Release) -> None:
    catalogue = Catalogue(release, max_live_pins=2)
    catalogue.apply(pin("one", 0))
    catalogue.apply(EdgeRecord("b30", "p0", True))
    with pytest.raises(DeltaFull):
        catalogue.check(pin("two", 0))
    catalogue.check(pin("one", 1))  # it has its place
    before = catalogue.vectors(catalogue.rows(["p1", "p0"]))
    catalogue.apply(EdgeRecord("b30", "p1", True))
    catalogue.apply(EdgeRecord("b31", "p0", True))
    after = catalogue.vectors(catalogue.rows(["p1", "p0"]))
    assert catalogue.is_on("p1", "b30")
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])
    catalogue.apply(PinRecord("one", deleted=True))
    catalogue.check(pin("two", 0))


def test_slots_of_replaced_pins_are_given_back(catalogue: Catalogue) -> None:
    catalogue.apply(pin("stays", 1))
    stays_D = catalogue.vectors(catalogue.rows(["stays"]))
    for turn in range(1_500):
        catalogue.apply(PinRecord("churns", words_of(turn % 6)[turn % 10], boards=("b1",)))
    assert catalogue.delta.num_slots < 1_100
    assert catalogue.delta.num_alive == 2
    assert catalogue.num_live_pins() == 2
    np.testing.assert_array_equal(catalogue.vectors(catalogue.rows(["stays"])), stays_D)
    assert nearest(catalogue, "churns")[0] == "churns"
    assert catalogue.neighbors(catalogue.row("stays"))[1].sum() == pytest.approx(1)


# --- searching ---


def test_filters_let_through_what_they_say_and_are_never_short(catalogue: Catalogue) -> None:
    for i in range(12):
        catalogue.apply(pin(f"new{i}", i % 6, category=f"c{i % 6}", language="fr"))
    catalogue.apply(PinRecord("p3", deleted=True))
    assert len(nearest(catalogue, "p0", 200, category="c3")) == 50 - 1 + 2
    assert {int(p.lstrip("pnew")) % 6 for p in nearest(catalogue, "p0", 99, category="c3")} == {3}
    assert sorted(nearest(catalogue, "p0", 99, language="fr")) == sorted(f"new{i}" for i in range(12))
    assert len(nearest(catalogue, "p0", 99, category="c1", language="fr")) == 2
    both = nearest(catalogue, "p0", 99, category="c1", language="de")
    assert both
    assert all(int(p[1:]) % 6 == 1 and int(p[1:]) % 2 == 1 and int(p[1:]) % 5 for p in both)
    assert nearest(catalogue, "p0", 9, category="no such") == []


def test_exclusions_do_not_shorten_a_list(catalogue: Catalogue) -> None:
    vector_1D = catalogue.vectors(catalogue.rows(["p0"]))
    everything = catalogue.search(vector_1D, 300).rows_QK[0]
    out = everything[:150]
    found = catalogue.search(vector_1D, 100, exclude=out).rows_QK[0]
    np.testing.assert_array_equal(found, everything[150:250])


def test_asking_for_more_than_there_is_fills_up_with_nobody(catalogue: Catalogue) -> None:
    for row in range(290):
        catalogue.apply(PinRecord(f"p{row}", deleted=True))
    found = catalogue.search(catalogue.vectors(np.array([295])), 50)
    assert sorted(found.rows_QK[0][found.rows_QK[0] >= 0].tolist()) == list(range(290, 300))
    for row in range(290, 300):
        catalogue.apply(PinRecord(f"p{row}", deleted=True))
    assert (catalogue.search(catalogue.vectors(np.array([0])), 5).rows_QK == -1).all()
    catalogue.apply(pin("last", 0))
    assert nearest(catalogue, "last") == ["last"]


@pytest.mark.parametrize("query", [np.full((1, 16), np.nan), np.ones((1, 15)), np.ones(16)])
def test_queries_that_make_no_sense_are_refused(catalogue: Catalogue, query: np.ndarray) -> None:
    with pytest.raises(ValueError, match="quer"):
        catalogue.search(query, 5)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "edge"]), st.integers(0, 14), st.integers(0, 5)), max_size=25
)


def change(what: str, number: int, cluster: int) -> PinRecord | EdgeRecord:
    """An operation on one of p0 … p9 or of five new pins."""
    name = f"p{number}" if number < 10 else f"new{number}"
    if what == "edge":
        return EdgeRecord(f"b{10 * cluster}", name, True)
    return PinRecord(name, deleted=True) if what == "delete" else pin(name, cluster, category=f"c{cluster}")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_many_changes_at_once_give_what_one_after_the_other_gives(
    release: Release, operations: list[tuple[str, int, int]]
) -> None:
    one, many = (Catalogue(release, max_live_pins=1_000) for _ in range(2))
    records = [change(*operation) for operation in operations]
    records += [PinRecord("alone", "word1"), PinRecord("mine", "word2", boards=("own",))]
    for record in records:
        one.apply(record)
    many.apply_all(records, lambda record, error: pytest.fail(f"{record}: {error}"))
    names = [*(f"p{row}" for row in range(12)), *(f"new{number}" for number in range(10, 15)), "alone", "mine"]
    assert [one.row(name) for name in names] == [many.row(name) for name in names]
    rows = one.rows(names)
    np.testing.assert_allclose(one.vectors(rows), many.vectors(rows), atol=2e-3)
    assert [one.describe(row) for row in rows] == [many.describe(row) for row in rows]


def test_of_many_changes_only_those_at_fault_are_left_out(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = catalogue.embedder.forward

    def picky(x_BF: np.ndarray, *around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if (x_BF[:, release_column] > 0.9).any():
            raise ValueError("too many boards")
        return forward(x_BF, *around)

    release_column = catalogue.release.encoder.slices["popularity"].start
    monkeypatch.setattr(catalogue.embedder, "forward", picky)
    records = [pin(f"new{i}", i % 6) for i in range(100)]
    records[70] = PinRecord("new70", "word1", boards=tuple(f"b{i}" for i in range(10)))
    faults: list[str] = []
    catalogue.apply_all(records, lambda record, error: faults.append(f"{record.pin_id}: {error}"))
    assert faults == ["new70: too many boards"]
    assert [i for i in range(100) if catalogue.row(f"new{i}") < 0] == [70]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_search_equals_exact_search_over_a_dict(release: Release, operations: list[tuple[str, int, int]]) -> None:
    """p0 … p9 and five new pins are put, deleted and moved; dicts of vectors and categories say what must be found."""
    catalogue = Catalogue(release, max_live_pins=1_000)
    vectors = {f"p{row}": release.embeddings_PD[row] for row in range(300)}
    category = {f"p{row}": f"c{row % 6}" for row in range(300)}
    for what, number, cluster in operations:
        record = change(what, number, cluster)
        name = record.pin_id
        catalogue.apply(record)
        if what == "put":
            category[name] = f"c{cluster}"
        elif what == "delete":
            vectors.pop(name, None)
        if catalogue.row(name) >= 0:
            vectors[name] = catalogue.vectors(catalogue.rows([name]))[0]
    query_D = release.embeddings_PD[100]
    for wanted in (None, "c2"):
        names = [name for name in vectors if wanted in (None, category[name])]
        exact = sorted(-float(query_D @ vectors[name]) for name in names)[:20]
        found = catalogue.search(query_D[None], 20, wanted=Filter(wanted))
        np.testing.assert_allclose(-found.scores_QK[0], exact, atol=1e-5)
        assert {catalogue.directory.pins.name(row) for row in found.rows_QK[0].tolist()} <= set(names)


def test_readers_never_miss_a_pin_while_others_are_written(catalogue: Catalogue) -> None:
    """One thread replaces and deletes; readers must always find the pin that is only ever replaced."""
    catalogue.apply(pin("stays", 1))
    catalogue.apply(PinRecord("gone", "word1", deleted=True))
    stop, faults = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                row = catalogue.row("stays")
                found = catalogue.search(catalogue.vectors(np.array([row])), 400).rows_QK[0]
                found = found[found >= 0]
                if row not in found or len(set(found.tolist())) != len(found):
                    faults.append(found)
                if 7 in found:
                    faults.append("deleted")
            except Exception as error:
                faults.append(error)

    catalogue.apply(PinRecord("p7", deleted=True))
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(300):
        catalogue.apply(pin("stays", 1, boards=bool(turn % 2)))
        catalogue.apply(pin(f"other{turn % 50}", turn % 6))
        catalogue.apply(PinRecord(f"other{(turn + 25) % 50}", deleted=True))
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []


def test_a_release_without_categories_and_languages_takes_filters(tmp_path: Path) -> None:
    release = make_release(tmp_path / "releases", make_world(30))
    nothing = pa.nulls(30, pa.string())
    release.pins = release.pins.drop_columns(["category"]).append_column("category", nothing)
    catalogue = Catalogue(release, max_live_pins=10)
    catalogue.apply(pin("new", 0, category="only"))
    assert nearest(catalogue, "p0", 5, category="only") == ["new"]
