"""What every stage costs in time and memory, from a generated world to a published release, at several sizes.

python bench/scale.py                                   10,000 and 100,000 pins: about half an hour
python bench/scale.py --pins 1000000 --out runs.json    a million: an hour or more, 25 GB of disk
python bench/scale.py --pins 11000000 --until embed --out runs.json
python bench/scale.py --small                           1,000 and 2,000 pins, to see that it works

Every stage is a command of its own. Memory is looked at ten times a second: all that is resident, which includes pages
of mapped files that the system may take back at any time, and what is the process's own (anonymous).
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from walks import processor

MIB = 1 << 20
PINSAGE = [sys.executable, "-c", "from offline.cli import main; main()"]
STAGES = ("generate", "prepare", "train", "embed", "index", "publish")


def main() -> None:
    options = arguments()
    runs = [measure(options, num_pins) for num_pins in options.pins]
    for run in runs:
        show(run)
    said = result(options, runs)
    if options.out:
        merge(options.out, said)
    print(json.dumps(said))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, nargs="+", default=[10_000, 100_000], help="sizes, smallest first")
    parser.add_argument("--until", choices=STAGES[1:], default=STAGES[-1], help="the last stage")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of the train stage")
    parser.add_argument("--set", nargs="*", default=[], help="more settings, section.key=value")
    parser.add_argument("--folder", type=Path, help="where to work, on a disk with room; a temporary one if not given")
    parser.add_argument("--out", type=Path, help="JSON file to put the runs into, beside those of other sizes")
    parser.add_argument("--keep", action="store_true", help="leave what was written in the folder, as pins-SIZE")
    parser.add_argument("--small", action="store_true", help="1,000 and 2,000 pins, a narrow network")
    options = parser.parse_args()
    if options.small:
        options.pins = [1_000, 2_000]
        options.set += ["network.hidden_dim=32", "network.embed_dim=16", "encoder.annotation_dim=0"]
    return options


@contextlib.contextmanager
def workplace(options: argparse.Namespace, num_pins: int) -> Iterator[Path]:
    """A folder for one size; gone afterwards unless it is to be kept."""
    if options.keep:
        folder = (options.folder or Path()) / f"pins-{num_pins}"
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        yield Path(name)


def measure(options: argparse.Namespace, num_pins: int) -> dict[str, object]:
    """All stages at one size."""
    with workplace(options, num_pins) as folder:
        world, run, home = folder / "world", folder / "run", folder / "home"
        settings = [f"train.epochs={options.epochs}", "train.max_minutes=100000", *options.set]
        assignments = [word for assignment in settings for word in ("--set", assignment)]
        commands = {
            "generate": ["generate", str(world), "--pins", str(num_pins), "--no-images"],
            "prepare": ["prepare", str(world), "--run", str(run), *assignments],
            **{stage: [stage, str(run)] for stage in ("train", "embed", "index")},
            "publish": ["publish", str(run), "--home", str(home)],
        }
        stages = {stage: watch(commands[stage]) for stage in STAGES[: STAGES.index(options.until) + 1]}
        about = json.loads((run / "prepare" / "summary.json").read_text())
        return {
            "pins": num_pins,
            "pins_in_run": about["pins"],
            "edges": about["edges"],
            "boards": about["boards"],
            "train_pairs": about["pairs"]["train"],
            "settings": options.set,
            "index": index_of(home),
            "disk_mib": {path.name: size_of(path) for path in (world, run, home) if path.exists()},
            "stages": stages,
        }


def index_of(home: Path) -> dict[str, object]:
    """How the published index was built, and what it finds; nothing where none was published."""
    for manifest in home.glob("releases/r*/manifest.json"):
        about = json.loads(manifest.read_text())
        return {name: about[name] for name in ("m", "ef_construction", "ef")} | about["quality"]
    return {}


def watch(command: list[str]) -> dict[str, float]:
    """Seconds on the clock and of processor, and the most memory in MiB, of one command."""
    print("pinsage", *command, file=sys.stderr, flush=True)
    started, anonymous, resident = time.monotonic(), 0, 0
    with subprocess.Popen([*PINSAGE, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        os.set_blocking(child.stderr.fileno(), False)  # type: ignore[union-attr]
        said = b""
        while (ended := os.wait4(child.pid, os.WNOHANG))[0] == 0:
            said = (said + (child.stderr.read() or b""))[-2000:]  # type: ignore[union-attr]
            memory = memory_of(child.pid)
            anonymous, resident = max(anonymous, memory[0]), max(resident, memory[1])
            time.sleep(0.1)
        said += child.stderr.read() or b""  # type: ignore[union-attr]
        child.returncode = os.waitstatus_to_exitcode(ended[1])
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: {said.decode(errors='replace')}")
    return {
        "seconds": round(time.monotonic() - started, 1),
        "processor_seconds": round(ended[2].ru_utime + ended[2].ru_stime, 1),
        "anonymous_mib": anonymous // 1024,
        "resident_mib": resident // 1024,
    }


def memory_of(pid: int) -> tuple[int, int]:
    """KiB that are the process's own, and the most that was resident so far."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    found = dict(re.findall(r"^(RssAnon|VmHWM):\s+(\d+) kB", status, re.MULTILINE))
    return int(found.get("RssAnon", 0)), int(found.get("VmHWM", 0))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // MIB


def show(run: dict) -> None:
    print(f"{run['pins']:,} pins, {run['edges']:,} edges, {run['train_pairs']:,} training pairs; MiB {run['disk_mib']}")
    for stage, cost in run["stages"].items():
        print(
            f"  {stage:10s}{cost['seconds']:10.1f} s{cost['processor_seconds']:10.1f} s of processor"
            f"{cost['anonymous_mib']:8,} MiB own{cost['resident_mib']:8,} MiB resident"
        )


def result(options: argparse.Namespace, runs: list[dict]) -> dict[str, object]:
    per_pin = [sum(cost["processor_seconds"] for cost in run["stages"].values()) / run["pins"] for run in runs]
    return {
        "bench": "scale",
        "figure": round(per_pin[-1] * 1e6, 1),
        "unit": "processor seconds a million pins, all stages, at the largest size",
        "ratio": round(per_pin[-1] / per_pin[0], 3),
        "ratio_is": "processor time a pin at the largest size / at the smallest",
        "epochs": options.epochs,
        "runs": runs,
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()},
    }


def merge(path: Path, said: dict[str, object]) -> None:
    """Put the runs into a file, in place of earlier ones of the same sizes."""
    before = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = {run["pins"]: run for run in [*before, *said["runs"]]}  # type: ignore[misc]
    path.write_text(json.dumps({**said, "runs": [runs[pins] for pins in sorted(runs)]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
