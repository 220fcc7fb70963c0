from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_run import NUM_BOARDS, NUM_PINS, make_run

from model import keyspace
from model.changes import Change, EdgeRecord, PinRecord, write_records
from model.errors import PinsageError, UserError
from model.features import PinContent
from model.live_graph import LiveGraph
from model.release import Release, current, list_releases, open_release, set_current
from offline.data.dataset import open_dataset
from offline.release import reindex as reindex_module
from offline.release.event_pairs import pairs_from_events
from offline.release.merge import write_dataset
from offline.release.overlay import Overlay, apply_changes
from offline.release.publish import publish_run
from offline.release.reindex import reindex
from offline.run_folder import RunFolder

VISUAL = (0.5, -1.0, 0.25, 2.0)


def silent(text: str, share: float) -> None: ...


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture
def root(made: RunFolder, home: Path, redis_client: redis.Redis) -> Path:
    """The releases of a home with one release."""
    publish_run(made, home, redis=redis_client)
    return home / "releases"


@pytest.fixture
def old(root: Path) -> Release:
    return open_release(root, current(root) or "")


def now(root: Path) -> Release:
    return open_release(root, current(root) or "").load()


def boards_by_pin(release: Release) -> dict[str, set[str]]:
    """The graph in words."""
    return {
        release.pin_ids.id_of(row): set(release.board_ids.ids_of(release.graph.boards_of(row)))
        for row in range(release.manifest.num_pins)
    }


# --- applying changes ------------------------------------------------------------------------------------------

PIN_NAMES = st.sampled_from(["p0", "p1", "p59", "n0", "n1"])
BOARD_NAMES = st.sampled_from(["b0", "b11", "new1", "new2"])
RECORDS = st.one_of(
    st.builds(PinRecord, PIN_NAMES, title=st.just("now"), boards=st.lists(BOARD_NAMES, max_size=3).map(tuple)),
    st.builds(PinRecord, PIN_NAMES, deleted=st.just(True)),
    st.builds(EdgeRecord, BOARD_NAMES, PIN_NAMES, st.booleans()),
)


def apply_by_the_book(pins: dict[str, set[str]], records: list[Change]) -> tuple[dict[str, set[str]], set[str]]:
    """What the docstring of model/changes.py says, with dicts; also which pins have new content."""
    fresh: set[str] = set()
    for record in records:
        if isinstance(record, EdgeRecord):
            if record.pin_id in pins:
                (pins[record.pin_id].add if record.present else pins[record.pin_id].discard)(record.board_id)
        elif record.deleted:
            pins.pop(record.pin_id, None)
            fresh.discard(record.pin_id)
        else:
            pins[record.pin_id] = set(record.boards)
            fresh.add(record.pin_id)
    return pins, fresh


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(RECORDS, max_size=12))
def test_the_merged_graph_is_what_the_changes_say(old: Release, records: list[Change]) -> None:
    expected, fresh = apply_by_the_book(boards_by_pin(old), records)
    overlay = apply_changes(old, records)
    pins = pl.concat([pl.from_arrow(table) for table in overlay.pin_tables()])
    ids = pins["pin_id"].to_list()
    boards = overlay.board_table()["board_id"].to_pylist()
    found: dict[str, set[str]] = {pin: set() for pin in ids}
    for pins_E, boards_E in overlay.edge_chunks():
        for pin, board in zip(pins_E, boards_E, strict=True):
            assert boards[board] not in found[ids[pin]]  # no edge twice
            found[ids[pin]].add(boards[board])
    assert found == expected
    assert {pin for pin, title in pins.select("pin_id", "title").rows() if title == "now"} == fresh
    assert boards[:NUM_BOARDS] == old.boards["board_id"].to_pylist()
    kept = [pin for pin in ids if pin.startswith("p")]
    assert kept == sorted(kept, key=lambda pin: int(pin[1:]))  # the release's order
    assert ids[: len(kept)] == kept


def some_changes() -> list[Change]:
    return [
        PinRecord("n0", title="new", annotations=("x", "y"), visual=VISUAL, boards=("b1", "b2"), created_at=7),
        PinRecord("p5", deleted=True),
        PinRecord("p9", title="changed", visual=VISUAL, boards=("b3", "fresh")),
        EdgeRecord("b4", "p20", True),
        PinRecord("n1", title="not anywhere"),
    ]


def test_the_merged_data_set_is_a_data_set(old: Release, tmp_path: Path) -> None:
    overlay = apply_changes(old, some_changes())
    more = np.array([[0, 1], [NUM_PINS - 1, 3], old.pairs("test")[0]], np.int32)
    write_dataset(overlay, tmp_path / "set", new_pairs=more)
    data = open_dataset(tmp_path / "set")
    pins = data.pins()
    assert pins["pin_id"].to_list() == [f"p{row}" for row in range(NUM_PINS) if row != 5] + ["n0", "n1"]
    new = pins.filter(pl.col("pin_id") == "n0").row(0, named=True)
    assert (new["title"], new["annotations"], new["created_at"]) == ("new", ["x", "y"], 7)
    assert data.boards()["board_id"].to_list() == [f"b{row}" for row in range(NUM_BOARDS)] + ["fresh"]
    edges = {(pin, board) for batch in data.edge_batches() for pin, board, _ in batch.rows()}
    assert {board for pin, board in edges if pin == "p9"} == {"b3", "fresh"}
    assert ("p20", "b4") in edges
    visual = data.visual()
    np.testing.assert_array_equal(visual[8], VISUAL)
    np.testing.assert_array_equal(visual[-2], VISUAL)
    assert np.isnan(visual[-1]).all()
    np.testing.assert_array_equal(visual[20], old.visual_PV[21])
    ids = pins["pin_id"].to_list()
    for split in ("train", "valid", "test"):
        was = [tuple(old.pin_ids.ids_of(pair)) for pair in old.pairs(split)]
        kept = [pair for pair in was if "p5" not in pair]
        extra = [(ids[a], ids[b]) for a, b in more[:2]] if split == "train" else []
        if split == "train" and tuple(more[2]) not in {tuple(p) for s in ("valid", "test") for p in overlay.pairs(s)}:
            extra.append((ids[more[2][0]], ids[more[2][1]]))  # a deleted pin has moved the rows
        assert data.pairs(split).rows() == kept + extra


# --- index: only what changed ----------------------------------------------------------------------------------


def test_without_changes_every_vector_stays(old: Release, root: Path, redis_client: redis.Redis) -> None:
    manifest = reindex(root.parent, redis_client, "index", silent)
    new = now(root)
    assert (manifest.id, manifest.parent, manifest.mode) == (new.id, old.id, "index")
    assert (manifest.dataset, manifest.model_hash) == (old.manifest.dataset, old.manifest.model_hash)
    np.testing.assert_array_equal(new.embeddings_PD, old.embeddings_PD)
    np.testing.assert_array_equal(new.messages[1], old.messages[1])
    assert boards_by_pin(new) == boards_by_pin(old)


def test_changed_pins_get_new_vectors_and_the_others_keep_theirs(
    old: Release, root: Path, redis_client: redis.Redis
) -> None:
    seqs = write_records(redis_client, some_changes())
    manifest = reindex(root.parent, redis_client, "index", silent)
    new = now(root)
    assert manifest.seq == seqs[-1]
    assert new.pin_ids.lookup("p5") == -1
    assert boards_by_pin(new) == apply_by_the_book(boards_by_pin(old), some_changes())[0]
    for pin in (f"p{row}" for row in range(NUM_PINS) if row not in (5, 9, 20)):
        was, is_now = old.pin_ids.lookup(pin), new.pin_ids.lookup(pin)
        np.testing.assert_array_equal(new.embeddings_PD[is_now], old.embeddings_PD[was])
        np.testing.assert_array_equal(new.features_PF[is_now], old.features_PF[was])
        np.testing.assert_array_equal(new.messages[1][is_now], old.messages[1][was])
    for pin in ("p9", "p20"):
        assert (
            np.abs(new.embeddings_PD[new.pin_ids.lookup(pin)] - old.embeddings_PD[old.pin_ids.lookup(pin)]).max() > 0.01
        )
    for pin in ("n0", "n1", "p9"):
        row = new.pin_ids.lookup(pin)
        assert row in new.index.query(np.asarray(new.embeddings_PD[[row]]), 3).rows_QK[0]
    assert new.pins["title"][new.pin_ids.lookup("p9")].as_py() == "changed"


def test_a_new_pin_gets_the_vector_that_the_service_gives_it(
    old: Release, root: Path, redis_client: redis.Redis
) -> None:
    """By the live path: walks on a live graph, messages of the old release."""
    write_records(redis_client, [PinRecord("n0", visual=VISUAL, boards=("b1", "b2"))])
    reindex(root.parent, redis_client, "index", silent)
    new = now(root)
    live = LiveGraph(old.graph)
    row = live.add_pin()
    assert row == new.pin_ids.lookup("n0")
    for board in (1, 2):
        live.add_edge(row, board)
    near = live.neighbors(row, old.walks, seed=1)
    x_BF = old.encoder.encode([PinContent(visual_V=np.array(VISUAL), boards=[1, 2])])
    served = old.network.embed(x_BF, *near, lambda layer, rows: np.asarray(old.messages[layer][rows], np.float32))
    np.testing.assert_allclose(new.embeddings_PD[row], served.vectors_BD[0], atol=1e-3)
    np.testing.assert_allclose(new.messages[1][row], served.messages_BM[1][0], atol=1e-2)


def test_the_next_reindex_goes_on_from_the_last(root: Path, redis_client: redis.Redis) -> None:
    write_records(redis_client, [PinRecord("n0", visual=VISUAL, boards=("b1",))])
    reindex(root.parent, redis_client, "index", silent)
    first = now(root)
    write_records(redis_client, [PinRecord("n1", visual=VISUAL, boards=("b1",)), PinRecord("p0", deleted=True)])
    reindex(root.parent, redis_client, "index", silent)
    second = now(root)
    assert {"n0", "n1"} <= boards_by_pin(second).keys()
    np.testing.assert_array_equal(
        second.embeddings_PD[second.pin_ids.lookup("n0")], first.embeddings_PD[first.pin_ids.lookup("n0")]
    )


def test_after_a_rollback_all_later_changes_are_taken_in_again(
    old: Release, root: Path, redis_client: redis.Redis
) -> None:
    write_records(redis_client, [PinRecord("n0", visual=VISUAL, boards=("b1",))])
    reindex(root.parent, redis_client, "index", silent)
    set_current(root, old.id)
    write_records(redis_client, [PinRecord("n1", visual=VISUAL, boards=("b1",))])
    manifest = reindex(root.parent, redis_client, "index", silent)
    assert manifest.parent == old.id
    assert {"n0", "n1"} <= boards_by_pin(now(root)).keys()


# --- embed and train -------------------------------------------------------------------------------------------


def test_embedding_the_same_catalogue_again_gives_the_same_vectors(
    old: Release, root: Path, redis_client: redis.Redis
) -> None:
    said: list[tuple[str, float]] = []
    manifest = reindex(root.parent, redis_client, "embed", lambda *words: said.append(words))
    new = now(root)
    assert (manifest.mode, manifest.model_hash) == ("embed", old.manifest.model_hash)
    np.testing.assert_allclose(new.embeddings_PD, old.embeddings_PD, atol=1e-5)
    np.testing.assert_array_equal(new.graph.pin_boards_E, old.graph.pin_boards_E)
    for split in ("train", "valid", "test"):
        wanted = [pair for pair in old.pairs(split).tolist() if pair[0] != pair[1]]
        assert new.pairs(split).tolist() == wanted
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_embed_takes_in_changes(root: Path, redis_client: redis.Redis) -> None:
    write_records(redis_client, some_changes())
    reindex(root.parent, redis_client, "embed", silent)
    assert now(root).pin_ids.lookup("n0") == NUM_PINS - 1
    assert now(root).pin_ids.lookup("p5") == -1


def test_training_again_makes_another_model(old: Release, root: Path, redis_client: redis.Redis) -> None:
    write_records(redis_client, some_changes())
    for pin in ("p1", "n0", "p2"):
        redis_client.xadd(
            keyspace.EVENTS, {"user": "u", "pin": pin, "type": "save", "board": "", "timestamp": len(pin)}
        )
    manifest = reindex(root.parent, redis_client, "train", silent)
    new = now(root)
    assert manifest.mode == "train"
    assert manifest.model_hash != old.manifest.model_hash
    assert new.manifest.num_pins == NUM_PINS + 1
    learned = {tuple(new.pin_ids.ids_of(pair)) for pair in new.pairs("train")}
    assert {("p1", "n0"), ("n0", "p2")} <= learned


def test_pairs_are_consecutive_saves_of_one_user(redis_client: redis.Redis) -> None:
    def event(user: str, pin: str, type: str, time: object) -> None:
        redis_client.xadd(
            keyspace.EVENTS, {"user": user, "pin": pin, "type": type, "board": "", "timestamp": str(time)}
        )

    event("a", "p1", "save", 100)
    event("b", "p7", "save", 110)
    event("a", "p3", "click", 120)  # no save
    event("a", "p2", "save", 150)
    event("a", "p2", "save", 151)  # the same again
    event("a", "gone", "save", 152)  # unknown: stands between p2 and p4
    event("a", "p4", "save", 153)
    event("a", "p5", "save", 9999)  # too late
    event("b", "p6", "save", 105)  # before p7, although told later
    event("b", "p8", "save", "nonsense")
    redis_client.xadd(keyspace.EVENTS, {"user": "b"})

    def find(ids: list[str]) -> np.ndarray:
        return np.array([int(pin[1:]) if pin != "gone" else -1 for pin in ids])

    assert pairs_from_events(redis_client, find, 1000).tolist() == [[1, 2], [6, 7]]
    redis_client.flushall()
    assert pairs_from_events(redis_client, find, 1000).shape == (0, 2)


# --- failure changes nothing -----------------------------------------------------------------------------------


def test_without_a_release_there_is_nothing_to_begin_with(home: Path, redis_client: redis.Redis) -> None:
    with pytest.raises(UserError, match="pinsage publish"):
        reindex(home, redis_client, "index", silent)


@pytest.mark.parametrize("stop_at", ["reading", "merging", "choosing ef", "copying", "vectors into Redis"])
def test_stopping_anywhere_leaves_everything_as_it_was(
    old: Release, root: Path, redis_client: redis.Redis, stop_at: str
) -> None:
    write_records(redis_client, some_changes())
    before = {path.name for path in root.iterdir()}

    def report(text: str, share: float) -> None:
        if text.startswith(stop_at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(root.parent, redis_client, "index", report)
    assert current(root) == old.id
    assert {path.name for path in root.iterdir()} == before
    assert list((root.parent / "reindex").iterdir()) == []
    assert redis_client.smembers(keyspace.RELEASES) == {old.id.encode()}


def test_a_release_that_went_live_meanwhile_is_not_overwritten(
    made: RunFolder, root: Path, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = reindex_module.apply_changes

    def publish_first(*args: object) -> Overlay:
        publish_run(made, root.parent, redis=redis_client)
        return apply(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reindex_module, "apply_changes", publish_first)
    with pytest.raises(PinsageError, match="another release went live"):
        reindex(root.parent, redis_client, "index", silent)
    assert [m.mode for m in list_releases(root)] == ["publish", "publish"]


def test_damaged_changes_are_left_out_and_the_rest_taken_in(root: Path, redis_client: redis.Redis) -> None:
    write_records(redis_client, [PinRecord("n0", boards=("b1",)), PinRecord("n1", boards=("b1",))])
    redis_client.hset(keyspace.STATE, keyspace.pin_key("n0"), b"junk")
    reindex(root.parent, redis_client, "index", silent)
    assert "n1" in boards_by_pin(now(root))
    assert "n0" not in boards_by_pin(now(root))


def test_what_a_killed_job_left_is_removed(root: Path, redis_client: redis.Redis) -> None:
    left = root.parent / "reindex" / "20200101-000000-1"
    left.mkdir(parents=True)
    (left / "big").write_bytes(b"x")
    reindex(root.parent, redis_client, "index", silent)
    assert not left.exists()
