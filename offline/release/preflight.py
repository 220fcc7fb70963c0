"""Whether there is room for a reindex, asked before it starts: memory here, disk in the home folder, memory in Redis.

A reindex that runs out of memory is killed by the kernel, perhaps with the service beside it; one that fills the disk
also stops Redis's log. So what it will need is estimated, generously, from what the release before it takes; the shares
were measured at 19,400 and 97,000 pins (docs/operations.md).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from model import keyspace
from model.errors import PinsageError
from model.jobs import Mode
from model.release import Release

BASE_MEMORY: dict[Mode, int] = {"index": 450 << 20, "embed": 550 << 20, "train": 2000 << 20}
MEMORY_SHARE: dict[Mode, float] = {"index": 0.35, "embed": 0.4, "train": 1.0}  # of the new release's size
DISK_SHARE: dict[Mode, float] = {"index": 2.5, "embed": 3.0, "train": 3.0}  # likewise: run, data set and release
CHANGE_BYTES = 4_000  # of a change in memory: a record, its rows
REDIS_OVERHEAD = 120  # bytes of a vector in Redis beside its numbers and its id
CGROUPS = Path("/sys/fs/cgroup")


class Names(NamedTuple):
    """What a version of control groups calls its files, and the part of `memory.stat` that is given up on demand."""

    folder: str
    limit: str
    used: str
    cached: str


VERSION_1 = Names("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = Names("", "memory.max", "memory.current", "inactive_file")


class Room(NamedTuple):
    """Bytes of something that are wanted, and that are there; None where nobody can say."""

    what: str
    needed: int
    available: int | None


def check_room(home: Path, redis: Redis, release: Release, mode: Mode) -> None:
    """Raise PinsageError naming all that there is too little of, with what is needed and what is there."""
    short = [
        f"{what}: about {_shown(needed)} needed, {_shown(available)} there"
        for what, needed, available in _rooms(home, redis, release, mode)
        if available is not None and available < needed
    ]
    if short:
        raise PinsageError(f"no room for a reindex of mode {mode}; {'; '.join(short)}")


def _rooms(home: Path, redis: Redis, release: Release, mode: Mode) -> list[Room]:
    manifest = release.manifest
    num_changes = redis.zcount(keyspace.LOG, manifest.seq + 1, "+inf")
    growth = (manifest.num_pins + num_changes) / manifest.num_pins
    size = growth * sum(file.bytes for file in manifest.files.values())
    vectors = growth * manifest.num_pins * (4 * manifest.embed_dim + REDIS_OVERHEAD)
    memory = BASE_MEMORY[mode] + MEMORY_SHARE[mode] * size + CHANGE_BYTES * num_changes
    return [
        Room("memory", int(memory), available_memory()),
        Room(f"disk at {home}", int(DISK_SHARE[mode] * size), shutil.disk_usage(home).free),
        Room("memory of Redis", int(vectors), _redis_memory(redis)),
    ]


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def available_memory(proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> int | None:
    """Bytes that this process may still take, by the machine and by its control groups; None where unknown."""
    found = [_of_machine(proc / "meminfo"), *_of_groups(proc / "self" / "cgroup", cgroups)]
    return min((value for value in found if value is not None), default=None)


def _of_machine(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _of_groups(membership: Path, root: Path) -> list[int | None]:
    """What our control group and those above it leave, of version 2 and of version 1."""
    found: list[int | None] = []
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        version = VERSION_2 if controllers == "" else VERSION_1 if "memory" in controllers.split(",") else None
        if version is not None:
            top = root / version.folder
            own = Path(os.path.normpath(top / path.lstrip("/")))
            # In a container the path may be that of the host, which is not there: then the top is our own group.
            folders = [own, *own.parents] if own.is_dir() else [top]
            found += [_of_group(each, version) for each in folders if each == top or top in each.parents]
    return found


def _of_group(folder: Path, names: Names) -> int | None:
    limit = "".join(_lines(folder / names.limit)).strip()
    if not limit.isdigit():
        return None
    used = int("".join(_lines(folder / names.used)) or 0)
    cached = [line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith(f"{names.cached} ")]
    return max(0, int(limit) - used + int(cached[0] if cached else 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _redis_memory(redis: Redis) -> int | None:
    """What Redis may still take; None where it has no limit of its own."""
    info = redis.info("memory")
    limit = int(info.get("maxmemory", 0))
    return max(0, limit - int(info["used_memory"])) if limit else None
