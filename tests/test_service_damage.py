"""Damaged releases are rejected with an error that names the file, or answer as if nothing had happened.

Everything that opens one runs in processes of its own: hnswlib ends its process when it believes a damaged file.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from live_service import WORLD, has, serves, serving, until
from service_fixtures import make_release

from model.redis_server import RedisSource
from model.release import current, list_releases, set_current
from service.live.live import Live

PROGRAM = Path(__file__).with_name("damage.py")
BATCH = 25


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two homes with releases of the same shapes."""
    found = []
    for seed in (0, 1):
        found.append(tmp_path_factory.mktemp(f"home{seed}"))
        make_release(found[-1] / "releases", WORLD, seed=seed)
    return found[0], found[1]


def try_out(homes: tuple[Path, Path], scratch: Path, numbers: range) -> list[dict[str, Any]]:
    words = [sys.executable, str(PROGRAM), *map(str, (*homes, scratch, *numbers))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"damage {numbers[len(lines)]} ended the process with {done.returncode}: {done.stderr}"
    return lines


def faults_of(result: dict[str, Any]) -> str | None:
    """What is wrong with the way in which a damage was met."""
    if result["outcome"] == "rejected":
        folder, _, name = result["file"].rpartition("/")
        named = name in result["error"] or (folder and folder in result["error"]) or "swap" in result["kind"]
        return None if named else "the error does not name the file"
    if result["outcome"] == "same" or (result["sealed"] and result["outcome"] == "different"):
        return None
    return str(result["outcome"])


@pytest.mark.parametrize("num_damages", [25, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_random_damages_are_rejected_or_repaired(homes: tuple[Path, Path], tmp_path: Path, num_damages: int) -> None:
    first = random.randrange(10**6)
    print(f"damages {first} to {first + num_damages - 1}")
    results = []
    for start in range(first, first + num_damages, BATCH):
        results += try_out(homes, tmp_path / "scratch", range(start, min(start + BATCH, first + num_damages)))
    print(Counter(result["outcome"] for result in results))
    faults = [f"{fault}: {result}" for result in results if (fault := faults_of(result))]
    assert len(results) == num_damages
    assert faults == []


def test_a_service_that_starts_on_a_damaged_release_says_so_and_takes_the_next(
    homes: tuple[Path, Path], home: Path, redis_source: RedisSource
) -> None:
    shutil.copytree(homes[0] / "releases", home / "releases")
    release_id = current(home / "releases")
    assert release_id is not None
    path = home / "releases" / release_id / "messages_1.npy"
    path.write_bytes(path.read_bytes()[:-9])

    async def work() -> None:
        async with serving(home, redis_source) as live:
            ready, reasons = live.ready()
            assert not ready
            assert "messages_1.npy" in reasons[0]
            good = await asyncio.to_thread(make_release, home / "releases", WORLD)
            await until(lambda: serves(live, good.id))
            assert live.ready() == (True, [])
            await until(lambda: says(live, None))

    asyncio.run(work())


@pytest.mark.parametrize("text", ["", "\0" * 26, "r20200101-000000-0000\n", "../../etc/passwd"])
def test_a_damaged_pointer_leaves_what_is_served(
    homes: tuple[Path, Path], home: Path, redis_source: RedisSource, text: str
) -> None:
    shutil.copytree(homes[0] / "releases", home / "releases")
    root = home / "releases"
    [manifest] = list_releases(root)

    async def work() -> None:
        async with serving(home, redis_source) as live:
            assert live.ready() == (True, [])
            (root / "CURRENT").write_text(text)
            await until(lambda: says(live, "r20200101-000000-0000" if text.startswith("r2") else "CURRENT"))
            assert live.ready() == (True, [])
            assert await has(live, "p1")
            set_current(root, manifest.id)
            await until(lambda: says(live, None))

    asyncio.run(work())


async def says(live: Live, trouble: str | None) -> bool:
    found = live.status()["trouble"]
    return found is None if trouble is None else trouble in (found or "")
