"""A disk that fills up while a command writes: a small file system of our own, in a namespace of our own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planted import SMALL, write_planted

MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'


def on_a_small_disk(num_kib: int, folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run pinsage where `folder` is an empty file system of that size."""
    folder.mkdir(exist_ok=True)
    pinsage = [sys.executable, "-c", "from offline.cli import main; main()", *command]
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", f"{num_kib}k", str(folder)]
    return subprocess.run([*unshared, *pinsage], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full-disk")
    if shutil.which("unshare") is None or on_a_small_disk(64, folder / "try", ["--version"]).returncode:
        pytest.skip("file systems cannot be mounted here")
    return write_planted(folder / "data")


def settings() -> list[str]:
    return [word for assignment in [*SMALL, "train.epochs=1"] for word in ("--set", assignment)]


@pytest.mark.parametrize(
    "num_kib", [pytest.param(12, marks=pytest.mark.slow), 40, pytest.param(64, marks=pytest.mark.slow)]
)
def test_a_disk_that_fills_up_is_an_error_that_says_where(data: Path, tmp_path: Path, num_kib: int) -> None:
    disk = tmp_path / "disk"
    ended = on_a_small_disk(num_kib, disk, ["prepare", str(data), "--run", str(disk / "run"), *settings()])
    assert ended.returncode == 1, ended
    assert "No space left on device" in ended.stderr
    assert str(disk) in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("num_kib", [*range(100, 600, 25)])
def test_every_stage_says_so(data: Path, tmp_path: Path, num_kib: int) -> None:
    disk = tmp_path / "disk"
    ended = on_a_small_disk(num_kib, disk, ["run", str(data), "--run", str(disk / "run"), *settings()])
    assert ended.returncode in (0, 1), ended
    if ended.returncode:
        assert "No space left on device" in ended.stderr
        assert str(disk) in ended.stderr
        assert "Traceback" not in ended.stderr
