"""The demo: a generated world, all stages on it, published into a home of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from model.release import current
from offline.config import load_config
from offline.release.publish import publish_run
from offline.run_folder import RunFolder, fingerprint
from offline.stages import ShowProgress, run_stages
from offline.world.synthetic import generate_world

SEED = 1
# A small world needs a small network; this is what keeps the demo under a few minutes on two cores.
SETTINGS = (
    "network.hidden_dim=256",
    "network.embed_dim=128",
    "walks.num_neighbors=20",
    "encoder.text_dim=64",
    "encoder.annotation_dim=32",
    "encoder.board_dim=64",
    "train.epochs=12",
    "train.patience=3",
    "train.max_minutes=1",
)


def build_demo(folder: Path, num_pins: int, progress: ShowProgress) -> Path:
    """Make what is missing of the demo in `folder` and return its home; a second call has little to do."""
    world, run, home = folder / "world", RunFolder(folder / "run"), folder / "home"
    recipe = folder / "recipe.txt"
    wanted = fingerprint("world", num_pins, SEED)
    if not recipe.exists() or recipe.read_text() != wanted:
        shutil.rmtree(world, ignore_errors=True)
        with progress("generate") as report:
            generate_world(world, num_pins=num_pins, seed=SEED, images=True, progress=report)
        recipe.write_text(wanted)
    ran = run_stages(world, run, load_config(assignments=SETTINGS), progress=progress)
    if ran or current(home / "releases") is None:
        with progress("publish") as report:
            publish_run(run, home, progress=report)
    return home
