"""A new release from the current one and everything that was put online since.

index  pins that changed get new vectors, the others keep theirs; seconds to minutes
embed  all vectors anew, with the encoder and the weights of the current release
train  everything anew, also with what users saved online
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from redis import Redis

from model import keyspace
from model.changes import read_changes
from model.codecs import DamagedBytes
from model.errors import PinsageError, UserError
from model.jobs import Mode
from model.manifest import Manifest
from model.release import Release, current, open_release
from offline.config import RunConfig, parse_config
from offline.progress import Report
from offline.release.event_pairs import pairs_from_events
from offline.release.gates import check_hit_rate
from offline.release.merge import write_dataset
from offline.release.overlay import Overlay, apply_changes
from offline.release.preflight import check_room
from offline.release.publish import publish_run
from offline.run_folder import RunFolder
from offline.stages import Reuse, run_stages

logger = logging.getLogger(__name__)

PUBLISH_FROM = 0.85
STAGES_FROM = 0.1
STAGE_SPANS = {"prepare": (0.0, 0.25), "train": (0.25, 0.7), "embed": (0.7, 0.85), "index": (0.85, 1.0)}


def reindex(
    home: Path, redis: Redis, mode: Mode, report: Report, *, before_flip: Callable[[], None] = lambda: None
) -> Manifest:
    """Make a new release and put it live.

    report       told what is being done and the share of all that is done; may raise to stop
    before_flip  called just before the new release goes live; may raise to stop

    Raises UserError where there is no release to begin with, PinsageError where there is no room for another one, and
    where the result must not go live; then everything stays as it was.
    """
    root = home / "releases"
    parent = current(root)
    if parent is None:
        raise UserError(f"{root}: there is no release yet; make the first one with: pinsage publish RUN")

    def check() -> None:
        before_flip()
        if current(root) != parent:
            raise PinsageError(f"another release went live while this one was made from {parent}")

    with _work_folder(home) as folder:
        report("reading what changed", 0.0)
        release = open_release(root, parent)
        check_room(home, redis, release, mode)
        overlay, seq = read_overlay(release, redis)
        report("merging", 0.05)
        run = RunFolder(folder / "run")
        _build(overlay, run, redis, mode, folder, span(report, STAGES_FROM, PUBLISH_FROM))
        return publish_run(
            run,
            home,
            redis=redis,
            seq=seq,
            parent=parent,
            mode=mode,
            dataset=release.manifest.dataset,
            gate=partial(check_hit_rate, overlay),
            before_flip=check,
            progress=span(report, PUBLISH_FROM, 1.0),
        )


def read_overlay(release: Release, redis: Redis) -> tuple[Overlay, int]:
    """The release with all changes up to now, and the number of the last one."""
    seq = max(int(cast("bytes | None", redis.get(keyspace.SEQ)) or 0), release.manifest.seq)
    damaged: list[str] = []

    def note(key: str, error: DamagedBytes) -> None:
        damaged.append(key)
        logger.warning("left out a damaged change of %s: %s", key, error)

    changes = read_changes(redis, release.manifest.seq, up_to=seq, on_damage=note)
    return apply_changes(release, changes), seq


def _build(overlay: Overlay, run: RunFolder, redis: Redis, mode: Mode, folder: Path, report: Report) -> None:
    config = parse_config(overlay.release.config)
    if mode == "index":
        from offline.release.partial import build_partial_run

        build_partial_run(overlay, run, config, progress=report)
        return
    dataset = folder / "dataset"
    if mode == "train":
        find = _row_finder(overlay)
        write_dataset(overlay, dataset, new_pairs=pairs_from_events(redis, find, config.pairs.session_gap))
    else:
        write_dataset(overlay, dataset, empty_pairs=True)
    reuse = Reuse(overlay.release.folder) if mode == "embed" else None
    _run_all_stages(dataset, run, config, reuse, report)


def _run_all_stages(dataset: Path, run: RunFolder, config: RunConfig, reuse: Reuse | None, report: Report) -> None:
    @contextmanager
    def show(stage: str) -> Iterator[Report]:
        within = span(report, *STAGE_SPANS[stage])
        yield lambda text, share: within(f"{stage}: {text}", share)

    run_stages(dataset, run, config, reuse=reuse, progress=show)


def _row_finder(overlay: Overlay) -> Callable[[list[str]], Any]:
    """Ids -> rows now, -1 for a pin that is not there."""
    row_of_old_P = overlay.row_of_old()
    new = {record.pin_id: row for row, record in overlay.records.items()}

    def find(ids: list[str]) -> list[int]:
        old = overlay.release.pin_ids.lookup_many(ids).tolist()
        return [new.get(pin, int(row_of_old_P[row]) if row >= 0 else -1) for pin, row in zip(ids, old, strict=True)]

    return find


def span(report: Report, start: float, stop: float) -> Report:
    """A Report of a part of the work as one of the whole; it never goes back, as some parts count from 0 again."""
    furthest = start

    def part(text: str, share: float) -> None:
        nonlocal furthest
        furthest = max(furthest, start + (stop - start) * min(max(share, 0.0), 1.0))
        report(text, furthest)

    return part


@contextmanager
def _work_folder(home: Path) -> Iterator[Path]:
    """A folder for this job alone, gone afterwards; so is what a killed job left."""
    parent = home / "reindex"
    shutil.rmtree(parent, ignore_errors=True)
    folder = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
