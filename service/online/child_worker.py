"""Keeps a `pinsage worker` running beside the service, for machines without one of their own.

It is another process because reindexing is heavy and needs libraries that serving does not. It runs at low priority, is
started again when it dies, and never outlives us: we stop it when we stop, and the kernel does when we are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

USER_MISTAKE = 2  # exit code of a command that cannot work as it is called: trying again would not help
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
STOP_SECONDS = 10.0
MAX_LOG = 10 * 2**20

# Asks the kernel to end the program with its parent; a program of its own, since preexec_fn may deadlock.
_LAUNCH = """
import ctypes, os, sys
os.nice(10)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the service is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

logger = logging.getLogger("pinsage.worker")


def worker_command(home: Path) -> list[str] | None:
    """The command line of a worker; None where `pinsage` is not installed as a command."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which("pinsage", path=places)
    return None if program is None else [program, "worker", "--home", str(home)]


class ChildWorker:
    """Runs a command again and again until stopped; `problem` says why there is none at the moment."""

    def __init__(self, command: Sequence[str], *, log: Path, environ: Mapping[str, str]) -> None:
        self._command, self._log = list(command), log
        self._environ = {name: value for name, value in environ.items() if name != "PINSAGE_KEYS"}
        self._task: asyncio.Task[None] | None = None
        self.pid: int | None = None
        self.problem: str | None = None

    def start(self) -> None:
        """Start the first one, aside."""
        self._task = asyncio.create_task(self._keep_running(), name="child-worker")

    async def stop(self) -> None:
        """End the worker; returns when it is gone."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_running(self) -> None:
        pause = FIRST_PAUSE
        while True:
            started = time.monotonic()
            try:
                code = await self._run_once()
            except OSError as error:
                self.problem = f"cannot start a worker: {error}"
                logger.error(self.problem)
                return
            if code == USER_MISTAKE:
                self.problem = f"the worker cannot run here; see {self._log}"
                logger.error(self.problem)
                return
            pause = FIRST_PAUSE if time.monotonic() - started > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            self.problem = f"the worker ended with code {code}; the next one starts in {pause:.0f} s"
            logger.warning(self.problem)
            await asyncio.sleep(pause)

    async def _run_once(self) -> int:
        """Start one and wait for its end; ends it when we are cancelled."""
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
        with _open_log(self._log) as log:
            process = await asyncio.create_subprocess_exec(
                *launch,
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,  # Ctrl-C is for us: we end it in our own time
            )
        self.pid, self.problem = process.pid, None
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            self.pid = None


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the process and its children to end, then make them."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)
            return


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")
