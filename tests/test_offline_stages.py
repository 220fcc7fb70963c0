"""Stages skip what is done and unchanged, and run again what is not."""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted import SMALL, write_planted

from model.config import NetworkConfig
from model.errors import PinsageError, UserError
from model.features import FeatureEncoder
from model.network import PinSage, save_network
from offline.config import RunConfig, load_config
from offline.export import export_embeddings
from offline.progress import Report
from offline.run_folder import RunFolder
from offline.stages import STAGES, Reuse, read_config, run_stages, stage_inputs


def make_config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*SMALL, "train.epochs=2", *assignments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    folder = tmp_path_factory.mktemp("stages")
    data, run = write_planted(folder / "data"), RunFolder(folder / "run")
    assert list(run_stages(data, run, make_config())) == list(STAGES)
    return data, run


def test_a_finished_run_has_nothing_to_do(finished: tuple[Path, RunFolder]) -> None:
    data, run = finished
    assert run_stages(data, run, make_config()) == {}


@pytest.mark.parametrize(
    ("assignment", "again"),
    [
        ("walks.num_walks=41", STAGES),
        ("encoder.text_dim=9", STAGES),
        ("train.margin=0.3", STAGES[1:]),
        ("network.embed_dim=17", STAGES[1:]),
        ("index.m=8", STAGES[3:]),
        ("embed.chunk=64", ()),
    ],
)
def test_a_changed_setting_runs_again_what_depends_on_it(
    finished: tuple[Path, RunFolder], assignment: str, again: tuple[str, ...]
) -> None:
    data, _ = finished
    before = {stage: stage_inputs(stage, data, make_config()) for stage in STAGES}
    after = {stage: stage_inputs(stage, data, make_config(assignment)) for stage in STAGES}
    assert tuple(stage for stage in STAGES if before[stage] != after[stage]) == again


def test_changed_data_runs_everything_again(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data")
    before = stage_inputs("prepare", data, make_config())
    with (data / "edges.csv").open("a") as file:
        file.write("amber-0,basil-board-0\n")
    assert stage_inputs("prepare", data, make_config()) != before


def test_a_stage_without_the_one_before_says_which_is_missing(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data")
    with pytest.raises(UserError, match="embed needs prepare"):
        run_stages(data, RunFolder(tmp_path / "run"), make_config(), stages=["embed"])


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    data, run = write_planted(tmp_path / "data"), RunFolder(tmp_path / "run")
    run.path.mkdir()
    with (run.path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another"):
            run_stages(data, run, make_config())


def test_no_data_set_and_no_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: no such data set folder"):
        run_stages(tmp_path / "absent", RunFolder(tmp_path / "run"), make_config())
    with pytest.raises(UserError, match=r"no run here; make one with"):
        read_config(RunFolder(tmp_path / "nothing"))


def test_embeddings_are_unit_rows_of_all_pins(finished: tuple[Path, RunFolder]) -> None:
    _, run = finished
    vectors_PD, ids = np.load(run.embeddings), run.pin_ids.read_text().splitlines()
    assert vectors_PD.shape == (len(ids), 16)
    assert vectors_PD.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors_PD, axis=1), 1, atol=1e-5)


def test_a_reused_release_brings_its_encoder_and_weights(finished: tuple[Path, RunFolder], tmp_path: Path) -> None:
    data, run = finished
    release = tmp_path / "release"
    release.mkdir()
    (release / "encoder").symlink_to(run.encoder)
    for name in ("weights.safetensors", "network.json"):
        (release / name).symlink_to(run.train / name)
    again = RunFolder(tmp_path / "again")
    run_stages(data, again, make_config(), stages=["prepare", "train", "embed"], reuse=Reuse(release))
    np.testing.assert_allclose(np.load(again.embeddings), np.load(run.embeddings), atol=1e-5)


def collapsed_training(
    dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, inputs: str, report: Report
) -> None:
    """Leaves a network that gives one and the same vector to every pin: nothing of a pin reaches the head."""
    num_features = FeatureEncoder.load(run.encoder).num_features
    network = PinSage(NetworkConfig(num_features, hidden_dim=4, embed_dim=4, num_layers=0, residual=False))
    network.head["G1"].weight.data.zero_()
    network.head["G1"].bias.data.fill_(1)
    save_network(run.train, network)


def test_a_run_that_collapses_fails_and_says_what_to_do(tmp_path: Path) -> None:
    data, run = write_planted(tmp_path / "data"), RunFolder(tmp_path / "run")
    with pytest.raises(PinsageError, match=r"mean cosine of 1\.000, 100% of them.*train\.learning_rate") as caught:
        run_stages(data, run, make_config(), runners={"train": collapsed_training})
    assert str(run.path) in str(caught.value)
    assert run.read_stamp("embed") is None
    assert run.read_stamp("train") is not None


def test_export_writes_what_other_programs_read(finished: tuple[Path, RunFolder], tmp_path: Path) -> None:
    _, run = finished
    export_embeddings(run, tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.load(run.embeddings))
    assert (tmp_path / "out.txt").read_text() == run.pin_ids.read_text()
    export_embeddings(run, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["pin_id"].to_pylist() == run.pin_ids.read_text().splitlines()
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), np.load(run.embeddings))


def test_export_refuses_other_endings_and_unfinished_runs(finished: tuple[Path, RunFolder], tmp_path: Path) -> None:
    _, run = finished
    with pytest.raises(UserError, match=r"not \.csv"):
        export_embeddings(run, tmp_path / "out.csv")
    with pytest.raises(UserError, match="pinsage embed"):
        export_embeddings(RunFolder(tmp_path), tmp_path / "out.npy")
