"""Bulk embedding goes on where a killed process stopped, and computes nothing twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from tiny_run import NUM_PINS, make_run

from offline.embedding.embed import embed_run
from offline.embedding.partial_arrays import Column, Note, PartialArrays
from offline.progress import silent
from offline.run_folder import RunFolder

# Embeds argv[1] in chunks of 16, writes a line for each block of rows computed, and is killed after argv[2] chunks.
EMBED = """
    import os, signal, sys
    from pathlib import Path
    import offline.embedding.embed as embed
    from offline.run_folder import RunFolder

    run, chunks_to_live = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
    log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    compute = embed._Bulk.compute

    def counted(bulk, step, rows):
        os.write(log, f"{step} {rows.start} {rows.stop}\\n".encode())
        compute(bulk, step, rows)

    def die(phase, share):
        global chunks_to_live
        chunks_to_live -= 1
        if chunks_to_live == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    embed._Bulk.compute = counted
    embed.embed_run(run, chunk=16, num_threads=2, progress=die)
"""

TWO, THREE = Column(2, np.dtype(np.float16)), Column(3, np.dtype(np.float32))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """A trained run without embeddings."""
    shutil.copytree(whole.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    shutil.rmtree(run.messages(0).parent)
    run.embeddings.unlink()
    return run


def embed_and_die(run: RunFolder, chunks_to_live: int, log: Path) -> int:
    command = [sys.executable, "-c", textwrap.dedent(EMBED), str(run.path), str(chunks_to_live), str(log)]
    return subprocess.run(command, timeout=120, check=False, cwd=Path(__file__).parents[1]).returncode


def assert_same_arrays(run: RunFolder, whole: RunFolder) -> None:
    for path, expected in [(run.embeddings, whole.embeddings), *((run.messages(k), whole.messages(k)) for k in (0, 1))]:
        np.testing.assert_allclose(np.load(path), np.load(expected), atol=1e-6)


def test_killed_again_and_again_it_computes_every_row_of_every_step_once(
    run: RunFolder, whole: RunFolder, tmp_path: Path
) -> None:
    log, lives = tmp_path / "log", 0
    while (code := embed_and_die(run, 5, log)) != 0:
        assert code == -signal.SIGKILL
        assert not run.embeddings.exists()
        lives += 1
    computed = np.zeros((3, NUM_PINS), int)
    for step, start, stop in (map(int, line.split()) for line in log.read_text().splitlines()):
        computed[step, start:stop] += 1
    assert lives == 2  # four chunks in each of three steps
    np.testing.assert_array_equal(computed, 1)
    assert_same_arrays(run, whole)


def test_a_chunk_that_was_not_finished_is_computed_again(run: RunFolder, whole: RunFolder, tmp_path: Path) -> None:
    assert embed_and_die(run, 6, tmp_path / "log") == -signal.SIGKILL
    half_done = np.load(run.path / "latents_1.npy.tmp", mmap_mode="r+")
    half_done[40:] = np.nan  # rows after the second chunk of step 1
    half_done.flush()
    embed_run(run, chunk=7, num_threads=1, progress=silent)
    assert_same_arrays(run, whole)


def test_other_weights_start_anew(run: RunFolder, whole: RunFolder, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", seed=5)
    assert embed_and_die(run, 6, tmp_path / "log") == -signal.SIGKILL
    shutil.copy(other.weights, run.weights)
    embed_run(run, chunk=16, num_threads=1, progress=silent)
    finished = np.load(run.embeddings)
    for left_over in (run.embeddings, run.messages(0), run.messages(1)):
        left_over.unlink()
    embed_run(run, chunk=16, num_threads=1, progress=silent)
    np.testing.assert_array_equal(finished, np.load(run.embeddings))
    assert not np.allclose(finished, np.load(whole.embeddings), atol=1e-3)


def test_a_finished_embedding_leaves_no_note_and_no_scratch(run: RunFolder) -> None:
    embed_run(run, chunk=16, num_threads=1, progress=silent)
    assert sorted(path.name for path in run.messages(0).parent.iterdir()) == ["messages_0.npy", "messages_1.npy"]
    assert list(run.path.glob("*.tmp")) == []


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    kept, scratch = {tmp_path / "a.npy": THREE, tmp_path / "b.npy": TWO}, {tmp_path / "c.npy": THREE}
    note = Note(tmp_path / "note.json", "same")
    arrays = PartialArrays(kept, scratch, 5, note=note)
    for path in kept:
        arrays[path][:] = 7
    arrays.record(1, 0, kept)
    arrays.finish()
    os.replace(tmp_path / "b.npy", tmp_path / "b.npy.tmp")
    assert PartialArrays(kept, scratch, 5, note=note).whole
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), 7)


def test_after_a_crash_of_the_machine_only_what_was_on_the_disk_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, note = tmp_path / "a.npy", Note(tmp_path / "note.json", "same")
    arrays = PartialArrays({path: THREE}, {}, 5, note=note)
    forced, force = Event(), PartialArrays._force

    def held_back(*what: Any) -> tuple[int, int]:
        forced.wait()
        return force(*what)

    arrays.record(0, 1, [path])
    arrays._helper.submit(int).result()  # row 0 is on the disk
    monkeypatch.setattr(PartialArrays, "_force", held_back)
    arrays.record(0, 2, [path])
    arrays.record(0, 3, [path])
    noted = PartialArrays({path: THREE}, {}, 5, note=note)
    assert (noted.step, noted.rows) == (0, 3)
    monkeypatch.setattr("offline.embedding.partial_arrays.machine_start", lambda: "another start")
    noted = PartialArrays({path: THREE}, {}, 5, note=note)
    assert (noted.step, noted.rows) == (0, 1)
    forced.set()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"inputs": 3}'])
def test_a_damaged_note_is_no_note(tmp_path: Path, text: str) -> None:
    (tmp_path / "note.json").write_text(text)
    arrays = PartialArrays({tmp_path / "a.npy": THREE}, {}, 5, note=Note(tmp_path / "note.json", "same"))
    assert (arrays.step, arrays.rows, arrays.whole) == (0, 0, False)
