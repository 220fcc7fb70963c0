"""Progress of long work: bars on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Report = Callable[[str, float], None]
"""(what is being done, share of the stage that is done, 0 to 1)"""

LINE_EVERY_SECONDS = 5.0


def silent(text: str, share: float) -> None:
    """A Report that says nothing."""


@contextmanager
def show_progress(stage: str, *, as_json: bool = False) -> Iterator[Report]:
    """A Report for one stage that suits where standard error goes."""
    started = time.monotonic()
    console = Console(stderr=True)
    if as_json:
        yield lambda text, share: _json_line({"stage": stage, "phase": text, "progress": round(share, 4)})
        _json_line({"stage": stage, "seconds": round(time.monotonic() - started, 2)})
    elif console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(stage, total=1.0, text="")
            yield lambda text, share: bar.update(task, completed=share, text=text)
            bar.update(task, completed=1.0, text="done")
    else:
        yield _Lines(stage)
        print(f"{stage}: done in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


class _Lines:
    """A line when a phase ends or some seconds have passed since the last one."""

    def __init__(self, stage: str) -> None:
        self._stage, self._said_at, self._phase = stage, 0.0, ""

    def __call__(self, text: str, share: float) -> None:
        now = time.monotonic()
        if text != self._phase or now - self._said_at >= LINE_EVERY_SECONDS:
            self._phase, self._said_at = text, now
            print(f"{self._stage}: {share:4.0%} {text}", file=sys.stderr, flush=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description:<9}"),
        BarColumn(30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[text]}"),
        console=console,
    )


def _json_line(fields: dict[str, object]) -> None:
    print(json.dumps(fields), flush=True)
