"""The command line as a user meets it: exit codes, messages, one run from files to a release."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import SMALL, write_planted


def pinsage(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from offline.cli import main; main()", *map(str, arguments)]
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=clean, check=False)


def settings() -> list[str]:
    return [word for assignment in [*SMALL, "train.epochs=2"] for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    data = write_planted(folder / "data")
    done = pinsage("run", data, "--run", folder / "run", "--no-evaluate", *settings())
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "absent", "--run", "run"], "absent: no such data set folder"),
        (["train", "absent"], "no run here; make one with: pinsage run DATASET --run absent"),
        (["evaluate", "absent"], "no run here"),
        (["evaluate", "absent", "--table", "1"], "no run here"),
        (["evaluate", "absent", "--table", "2"], "'2' is not one of '1', '3', '4'"),
        (["evaluate", "absent", "--minutes", "3"], "--minutes goes with --table"),
        (["export", "absent", "out.npy"], "pinsage embed"),
        (["import", "citeuliek", "a", "b"], "citeulike, movietweetings, csv"),
        (["import", "csv", "a", "b", "--column", "pin_id"], "want ours=theirs"),
        (["config", "show", "--set", "train.epoch=1"], "did you mean train.epochs?"),
        (["config", "show", "--preset", "papre"], "default, paper"),
        (["rollback", "r1", "--home", "absent"], "no release r1"),
        (["run", "data"], "--run"),
    ],
)
def test_a_users_mistake_ends_with_2_and_says_what_to_do(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = pinsage(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_lists_all_faults(tmp_path: Path) -> None:
    data = write_planted(tmp_path / "data")
    with (data / "edges.csv").open("a") as file:
        file.write("nobody,amber-board-0\nnowhere,amber-board-1\n")
    done = pinsage("validate", data)
    assert done.returncode == 2
    assert done.stdout.count("edges.csv") == 2
    assert "nobody" in done.stdout


def test_validate_of_a_sound_data_set_ends_with_0(finished: Path) -> None:
    assert pinsage("validate", finished / "data").returncode == 0


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    done = pinsage("run", finished / "data", "--run", finished / "run", "--no-evaluate", *settings())
    assert done.returncode == 0
    assert "nothing to do" in done.stdout


def test_progress_elsewhere_than_on_a_terminal_is_plain_lines(finished: Path, tmp_path: Path) -> None:
    done = pinsage("prepare", finished / "data", "--run", tmp_path / "run", *settings())
    assert done.returncode == 0
    assert "prepare: done in" in done.stderr
    assert "\x1b" not in done.stderr


def test_json_progress_is_one_object_a_line(finished: Path, tmp_path: Path) -> None:
    done = pinsage("prepare", finished / "data", "--run", tmp_path / "run", "--json", *settings())
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["stage"] == "prepare"
    assert lines[-1]["seconds"] > 0


def test_a_run_is_evaluated_exported_published_and_listed(finished: Path, tmp_path: Path) -> None:
    evaluated = pinsage("evaluate", finished / "run", "--no-report", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert (finished / "run" / "metrics.json").exists()
    exported = pinsage("export", finished / "run", tmp_path / "vectors.npy")
    assert exported.returncode == 0
    assert len(np.load(tmp_path / "vectors.npy")) == len((tmp_path / "vectors.txt").read_text().splitlines())
    published = pinsage("publish", finished / "run", "--home", tmp_path / "home", "--json")
    assert published.returncode == 0, published.stderr
    release = json.loads(published.stdout.splitlines()[-1])["release"]
    listed = pinsage("releases", "--json", PINSAGE_HOME=str(tmp_path / "home"))
    assert json.loads(listed.stdout) == {"release": release, "current": True, "pins": 120}


@pytest.mark.slow
def test_a_table_of_the_paper_is_measured(finished: Path) -> None:
    zero = pinsage("evaluate", finished / "run", "--table", "4", "--minutes", "0")
    assert (zero.returncode, "more than zero minutes" in zero.stderr) == (2, True)
    measured = pinsage("evaluate", finished / "run", "--table", "4", "--minutes", "0.001")
    assert measured.returncode == 0, measured.stderr
    assert "table 4 (120 candidates), with 95 % intervals" in measured.stdout
    again = pinsage("evaluate", finished / "run", "--table", "4", "--minutes", "0.001", "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == json.loads((finished / "run" / "table4.json").read_text())


def test_publishing_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    done = pinsage("publish", tmp_path / "run", "--home", tmp_path / "home")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_names_every_command() -> None:
    text = pinsage("--help").stdout
    for name in ("demo", "generate", "import", "validate", "run", "prepare", "train", "embed", "index", "evaluate"):
        assert name in text
    for name in ("export", "publish", "worker", "serve", "releases", "rollback", "config"):
        assert name in text


def test_the_version_is_the_packages() -> None:
    assert pinsage("--version").stdout.startswith("pinsage 0.")
