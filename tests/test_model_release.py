from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_run import NUM_PINS, make_run, release_parts

from model import release_writer
from model.errors import ReleaseError
from model.exact import exact_neighbors
from model.index import AnnIndex, read_params
from model.manifest import Manifest, checksum_of, describe_files
from model.release import current, list_releases, open_release, remove_old, set_current
from model.release_writer import ReleaseParts, write_release
from offline.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture
def parts(run: RunFolder) -> ReleaseParts:
    return release_parts(run)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "releases"


def write(root: Path, parts: ReleaseParts) -> Manifest:
    return write_release(root, parts, dataset="tiny", quality={"index_recall": 1.0}, seq=7)


def entries(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()} - {".lock"}


def test_a_release_holds_what_the_run_had(root: Path, parts: ReleaseParts, run: RunFolder) -> None:
    manifest = write(root, parts)
    release = open_release(root, manifest.id).load()
    np.testing.assert_array_equal(release.embeddings_PD, np.load(run.embeddings))
    np.testing.assert_array_equal(release.visual_PV, np.load(run.visual))
    np.testing.assert_array_equal(release.features_PF, np.load(run.features).astype(np.float16))
    for layer in (0, 1):
        np.testing.assert_array_equal(release.messages[layer], np.load(run.messages(layer)).astype(np.float16))
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(release.pairs(split), np.load(run.pairs(split)))
    assert release.pins.num_rows == NUM_PINS == manifest.num_pins
    assert release.pin_ids.id_of(release.pin_ids.lookup("p17")) == "p17"
    assert release.board_ids.lookup("b3") == 3
    assert release.graph.num_edges == manifest.num_edges
    assert release.walks.num_neighbors == 5
    assert (manifest.seq, manifest.quality, manifest.dataset) == (7, {"index_recall": 1.0}, "tiny")
    found = release.index.query(release.embeddings_PD[:5], 3)
    np.testing.assert_array_equal(
        found.rows_QK, exact_neighbors(release.embeddings_PD, release.embeddings_PD[:5], 3).rows_QK
    )


def test_everything_large_is_mapped_and_outlives_its_files(root: Path, parts: ReleaseParts) -> None:
    release = open_release(root, write(root, parts).id).load()
    for array in (release.embeddings_PD, release.features_PF, *release.messages, release.graph.pin_boards_E):
        owner = array
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        assert type(owner).__name__ == "mmap", type(owner)
    before = pa.total_allocated_bytes()
    title = release.pins["title"][41].as_py()
    assert pa.total_allocated_bytes() - before < 10_000
    shutil.rmtree(root)
    gc.collect()
    assert release.pins["title"][41].as_py() == title == "pin number 41"
    assert np.isfinite(release.embeddings_PD).all()


def test_what_was_touched_is_in_memory(root: Path, parts: ReleaseParts) -> None:
    release = open_release(root, write(root, parts).id)
    messages_PM = release.messages[0]

    def resident() -> int:
        maps = Path("/proc/self/smaps").read_text().split(f"{release.id}/messages_0.npy")[1]
        return 1024 * int(maps.split("Rss:")[1].split()[0])

    before = resident()
    release.touch()
    assert before < messages_PM.nbytes <= resident()


def test_the_run_may_change_afterwards(root: Path, tmp_path: Path) -> None:
    """Copied, not linked: writing into the run's file must not reach the release."""
    run = make_run(tmp_path / "run")
    manifest = write(root, release_parts(run))
    with run.embeddings.open("r+b") as file:
        file.seek(200)
        file.write(b"junk")
    open_release(root, manifest.id, verify=True)


@pytest.mark.parametrize(
    "name",
    ["embeddings.npy", "weights.safetensors", "pins.arrow", "graph/pin_ptr.npy", "messages_1.npy", "config.json"],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "link"])
def test_a_damaged_file_is_named(root: Path, parts: ReleaseParts, name: str, damage: str) -> None:
    release_id = write(root, parts).id
    path = root / release_id / name
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flip":
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "link":
        elsewhere = root / "elsewhere"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    with pytest.raises(ReleaseError, match=path.name):
        open_release(root, release_id)


@pytest.mark.parametrize("name", ["index/index.bin", "index/index.json", "index/twins.npy"])
def test_a_damaged_index_is_built_again_beside_the_release(root: Path, parts: ReleaseParts, name: str) -> None:
    release_id = write(root, parts).id
    path = root / release_id / name
    path.write_bytes(path.read_bytes()[:-3])
    release = open_release(root, release_id)
    queries = np.asarray(release.embeddings_PD[:9])
    np.testing.assert_array_equal(
        release.index.query(queries, 5).rows_QK, exact_neighbors(release.embeddings_PD, queries, 5).rows_QK
    )
    kept = root / ".cache" / release_id / "index.bin"
    made_at = kept.stat().st_mtime_ns
    assert release.manifest == list_releases(root)[0]
    _ = open_release(root, release_id).index
    assert kept.stat().st_mtime_ns == made_at  # found, not built a third time


@pytest.mark.parametrize("name", ["index/index.bin", "index/index.json", "index/twins.npy"])
def test_a_link_in_the_place_of_an_index_is_not_followed(root: Path, parts: ReleaseParts, name: str) -> None:
    """This one never ends."""
    release_id = write(root, parts).id
    (root / release_id / name).unlink()
    (root / release_id / name).symlink_to("/dev/zero")
    release = open_release(root, release_id)
    assert release.index.query(np.asarray(release.embeddings_PD[3:4]), 1).rows_QK.tolist() == [[3]]


def test_a_link_in_the_place_of_the_manifest_is_not_followed(root: Path, parts: ReleaseParts) -> None:
    path = root / write(root, parts).id / "manifest.json"
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ReleaseError, match=r"manifest\.json"):
        open_release(root, path.parent.name)
    assert list_releases(root) == []


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"num_pins": "60"},
        {"files": {"../../etc/passwd": {"bytes": 1, "sha256": ""}}},
        {"files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}},
        {"files": []},
        {"extra": 1},
        {"id": "r20200101-000000-0000"},
    ],
)
def test_a_damaged_manifest_is_refused(root: Path, parts: ReleaseParts, change: dict[str, object]) -> None:
    release_id = write(root, parts).id
    path = root / release_id / "manifest.json"
    change_manifest(path, **change)
    with pytest.raises(ReleaseError, match=r"manifest\.json"):
        open_release(root, release_id)
    assert list_releases(root) == []


@pytest.mark.parametrize(("table", "column"), [("pins", "title"), ("pins", "annotations"), ("boards", "board_id")])
@pytest.mark.parametrize("kind", ["gone", "numbers"])
def test_a_table_without_a_column_is_refused(
    root: Path, parts: ReleaseParts, table: str, column: str, kind: str
) -> None:
    """Although all checksums are right."""
    folder = root / write(root, parts).id
    path = folder / f"{table}.arrow"
    was = pa.ipc.open_file(path.read_bytes()).read_all()
    at = was.column_names.index(column)
    now = was.drop_columns([column]) if kind == "gone" else was.set_column(at, column, pa.array(range(was.num_rows)))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, now.schema) as writer:
        writer.write_table(now)
    names = json.loads((folder / "manifest.json").read_text())["files"]
    change_manifest(folder / "manifest.json", files={n: vars(i) for n, i in describe_files(folder, names).items()})
    with pytest.raises(ReleaseError, match=f"{table}.*{column}"):
        open_release(root, folder.name).load()


def test_the_index_of_another_release_is_not_used(root: Path, tmp_path: Path, parts: ReleaseParts) -> None:
    """In itself it is whole, and of nearly the same vectors; some neighbours would be missing."""
    folder = root / write(root, parts).id
    vectors = np.load(parts.embeddings)
    vectors[3] = -vectors[3]
    AnnIndex.build(vectors, read_params(folder / "index")).save(folder / "index")
    release = open_release(root, folder.name)
    found = release.index.query(np.asarray(release.embeddings_PD[3:4]), 1)
    assert found.rows_QK.tolist() == [[3]]
    assert (root / ".cache" / folder.name / "index.bin").exists()


@pytest.mark.parametrize("name", ["../../x", "r20200101-000000-0000", "", "CURRENT"])
def test_only_names_of_releases_are_opened(root: Path, parts: ReleaseParts, name: str) -> None:
    write(root, parts)
    with pytest.raises(ReleaseError, match="release"):
        open_release(root, name)


def change_manifest(path: Path, **changes: object) -> None:
    """Change a manifest and make its checksum right again."""
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document | {"checksum": checksum_of(document)}))


def test_a_manifest_with_another_number_is_refused(root: Path, parts: ReleaseParts) -> None:
    """One that would have changes left out, though everything fits."""
    release_id = write(root, parts).id
    path = root / release_id / "manifest.json"
    path.write_text(path.read_text().replace('"seq": 7', '"seq": 8'))
    with pytest.raises(ReleaseError, match=r"manifest\.json: damaged"):
        open_release(root, release_id)


def test_counts_that_do_not_fit_are_refused(root: Path, parts: ReleaseParts) -> None:
    release_id = write(root, parts).id
    change_manifest(root / release_id / "manifest.json", num_pins=NUM_PINS - 1)
    with pytest.raises(ReleaseError, match=r"pins\.arrow"):
        open_release(root, release_id).load()


# --- writing is all or nothing ---------------------------------------------------------------------------------


def test_a_failed_write_leaves_nothing(root: Path, parts: ReleaseParts, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write(root, parts)
    before = entries(root)

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release_writer, "fsync_tree", full)
    with pytest.raises(OSError, match="No space"):
        write(root, parts)
    assert entries(root) == before == {good.id}


def test_a_missing_part_is_named(root: Path, parts: ReleaseParts, run: RunFolder) -> None:
    run.weights.rename(run.weights.with_suffix(".away"))
    try:
        with pytest.raises(ReleaseError, match=r"weights\.safetensors: missing"):
            write(root, parts)
    finally:
        run.weights.with_suffix(".away").rename(run.weights)
    assert entries(root) == set()


def test_too_small_a_disk_is_seen_before_copying(
    root: Path, parts: ReleaseParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ReleaseError, match="1,000 are free"):
        write(root, parts)
    assert entries(root) == set()


def test_numbers_that_float16_cannot_hold_are_refused(root: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    features = np.load(run.features).astype(np.float32)
    features[3, 0] = 1e5
    np.save(run.features, features)
    with pytest.raises(ReleaseError, match=r"features\.npy.*float16"):
        write(root, release_parts(run))
    assert entries(root) == set()


def _write_slowly(root: Path, parts: ReleaseParts, stop_at: str) -> None:
    """Write a release and stand still at the named step."""
    original = getattr(release_writer, stop_at)

    def stand_still(*args: object, **more: object) -> object:
        (root / "standing").touch()
        time.sleep(60)
        return original(*args, **more)

    setattr(release_writer, stop_at, stand_still)
    write(root, parts)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "step",
    ["_copy_as_float16", pytest.param("_describe", marks=SLOW), pytest.param("fsync_tree", marks=SLOW), "write_atomic"],
)
def test_a_killed_writer_is_never_seen_and_is_swept_up(root: Path, parts: ReleaseParts, step: str) -> None:
    good = write(root, parts)
    set_current(root, good.id)
    process = multiprocessing.get_context("spawn").Process(target=_write_slowly, args=(root, parts, step))
    process.start()
    try:
        while not (root / "standing").exists():
            assert process.is_alive()
            time.sleep(0.02)
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        process.close()
    assert current(root) == good.id
    assert [m.id for m in list_releases(root)] == [good.id]
    assert len(entries(root) - {"standing"}) == 3  # CURRENT, the release, what the killed one left
    second = write(root, parts)
    assert entries(root) - {"standing"} == {"CURRENT", good.id, second.id}


# --- the pointer -----------------------------------------------------------------------------------------------


def test_the_pointer_moves_only_to_complete_releases(root: Path, parts: ReleaseParts) -> None:
    assert current(root) is None
    assert list_releases(root) == []
    first = write(root, parts)
    assert current(root) is None
    set_current(root, first.id)
    assert current(root) == first.id
    second = write(root, parts)
    (root / second.id / "manifest.json").unlink()
    with pytest.raises(ReleaseError):
        set_current(root, second.id)
    assert current(root) == first.id


@pytest.mark.parametrize("text", ["", "../x", "r1", "\xff"])
def test_a_damaged_pointer_is_an_error_and_not_a_path(root: Path, text: str) -> None:
    root.mkdir()
    (root / "CURRENT").write_text(text, encoding="latin-1")
    with pytest.raises(ReleaseError, match="CURRENT"):
        current(root)


def test_the_live_release_and_those_to_keep_are_kept(root: Path, parts: ReleaseParts) -> None:
    ids = [write(root, parts).id for _ in range(4)]
    assert ids == sorted(ids)
    set_current(root, ids[1])  # rolled back
    assert remove_old(root, [ids[3], None]) == [ids[0], ids[2]]
    assert [m.id for m in list_releases(root)] == [ids[1], ids[3]]
    assert remove_old(root, [ids[3]]) == []
    assert remove_old(root, []) == [ids[3]]
