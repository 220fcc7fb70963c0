"""Edges that labelled pairs were made from: out of the graph, and in every data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import redis
from planted import SMALL, write_planted

from model.changes import Change, EdgeRecord, PinRecord, write_records
from model.release import Release, current, open_release
from offline.config import load_config
from offline.data.dataset import open_dataset
from offline.data.validation import validate_dataset
from offline.release.merge import write_dataset
from offline.release.overlay import apply_changes
from offline.release.publish import publish_run
from offline.release.reindex import reindex
from offline.run_folder import RunFolder
from offline.stages import run_stages

Edges = set[tuple[str, str]]


def silent(text: str, share: float) -> None: ...


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted data set without pairs."""
    folder = write_planted(tmp_path_factory.mktemp("planted") / "set")
    for path in folder.glob("pairs_*"):
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def run(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("run") / "run")
    run_stages(planted, run, load_config(assignments=[*SMALL, "train.epochs=1"]))
    return run


@pytest.fixture
def root(run: RunFolder, home: Path, redis_client: redis.Redis) -> Path:
    publish_run(run, home, redis=redis_client)
    return home / "releases"


def now(root: Path) -> Release:
    return open_release(root, current(root) or "")


def edges_of(folder: Path, table: str = "edges") -> list[tuple[str, str]]:
    """The edges of a data set; a repeated one would be there twice."""
    data = open_dataset(folder)
    if table == "edges":
        return sorted((pin, board) for batch in data.edge_batches() for pin, board, _ in batch.rows())
    frame = data.held_out_edges()
    assert frame is not None
    return sorted(frame.rows())


def words(release: Release, rows: np.ndarray) -> Edges:
    return {(release.pin_ids.id_of(pin), release.board_ids.id_of(board)) for pin, board in rows.tolist()}


def graph_of(release: Release) -> Edges:
    graph = release.graph
    pins = np.repeat(np.arange(graph.num_pins), graph.pin_degrees())
    return words(release, np.stack([pins, graph.pin_boards_E], axis=1))


def merged(release: Release, changes: list[Change], folder: Path) -> list[tuple[str, str]]:
    write_dataset(apply_changes(release, changes), folder, empty_pairs=True)
    assert validate_dataset(folder) == []
    return edges_of(folder)


def test_a_merged_data_set_has_every_edge_of_the_first(root: Path, planted: Path, tmp_path: Path) -> None:
    release = now(root)
    held_out = words(release, release.held_out_edges)
    assert held_out
    assert not held_out & graph_of(release)
    assert merged(release, [], tmp_path / "set") == edges_of(planted)
    assert edges_of(tmp_path / "set", "held_out_edges") == sorted(held_out)


def test_online_changes_count_for_held_out_edges_too(root: Path, planted: Path, tmp_path: Path) -> None:
    release = now(root)
    held_out = sorted(words(release, release.held_out_edges))
    pins = sorted({pin for pin, _ in held_out})
    replaced, gone, told = pins[:3]
    said, taken_off = [edge for edge in held_out if edge[0] not in (replaced, gone, told)][:2]
    changes: list[Change] = [
        PinRecord(replaced, title="now", boards=("fresh",)),
        PinRecord(gone, deleted=True),
        EdgeRecord("fresh", told, True),
        EdgeRecord(said[1], said[0], True),
        EdgeRecord(taken_off[1], taken_off[0], False),
        PinRecord("new", boards=("fresh",)),
    ]
    expected = {edge for edge in edges_of(planted) if edge[0] not in (replaced, gone)} - {taken_off}
    expected |= {(replaced, "fresh"), (told, "fresh"), ("new", "fresh")}
    assert merged(release, changes, tmp_path / "set") == sorted(expected)
    still = [edge for edge in held_out if edge[0] not in (replaced, gone) and edge not in (said, taken_off)]
    assert edges_of(tmp_path / "set", "held_out_edges") == still


@pytest.mark.parametrize("mode", ["index", "embed", "train"])
def test_a_reindex_keeps_them_and_keeps_them_out_of_the_graph(
    root: Path, planted: Path, tmp_path: Path, redis_client: redis.Redis, mode: str
) -> None:
    """So pairs do not change under the figures, and none is read off the graph that is trained on."""
    before = now(root)
    write_records(redis_client, [PinRecord("new", title="amber thing", boards=("amber-board-0",))])
    reindex(root.parent, redis_client, mode, silent)  # type: ignore[arg-type]
    after = now(root)
    assert after.manifest.mode == mode
    assert words(after, after.held_out_edges) == words(before, before.held_out_edges)
    assert graph_of(after) == graph_of(before) | {("new", "amber-board-0")}
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(after.pairs(split), before.pairs(split))
    assert merged(after, [], tmp_path / "set") == sorted([*edges_of(planted), ("new", "amber-board-0")])


def test_where_pairs_are_given_nothing_is_held_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run_stages(write_planted(tmp_path / "set"), run, load_config(assignments=list(SMALL)), stages=["prepare"])
    assert not run.held_out_edges.exists()
