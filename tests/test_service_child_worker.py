"""The worker that the service keeps running beside it: started again when it dies, gone when the service is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service.online import child_worker
from service.online.child_worker import ChildWorker, worker_command

PYTHON = [sys.executable, "-I", "-S", "-c"]
SLEEPER = [*PYTHON, "import time; time.sleep(600)"]
STUBBORN = [*PYTHON, "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"]


def child(tmp_path: Path, command: list[str], **environ: str) -> ChildWorker:
    return ChildWorker(command, log=tmp_path / "logs" / "worker.log", environ={**os.environ, **environ})


async def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def test_worker_runs_and_is_gone_after_stop(tmp_path: Path) -> None:
    async def check() -> None:
        worker = child(tmp_path, SLEEPER)
        worker.start()
        await wait_for(lambda: worker.pid)
        pid = worker.pid
        assert pid is not None
        assert psutil.pid_exists(pid)
        await worker.stop()
        assert not psutil.pid_exists(pid)
        assert (worker.pid, worker.problem) == (None, None)

    asyncio.run(check())


def test_worker_is_started_again_when_it_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_worker, "FIRST_PAUSE", 0.01)

    async def check() -> None:
        worker = child(tmp_path, SLEEPER)
        worker.start()
        await wait_for(lambda: worker.pid)
        first = worker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await wait_for(lambda: worker.pid not in (None, first))
        await worker.stop()

    asyncio.run(check())


def test_worker_that_cannot_work_here_is_not_tried_again(tmp_path: Path) -> None:
    """Exit code 2 is a user's mistake, such as libraries that are not installed."""

    async def check() -> None:
        worker = child(tmp_path, [*PYTHON, "import sys; print('no torch', file=sys.stderr); sys.exit(2)"])
        worker.start()
        await wait_for(lambda: worker.problem)
        assert "cannot run here" in str(worker.problem)
        assert "no torch" in (tmp_path / "logs" / "worker.log").read_text()
        await worker.stop()

    asyncio.run(check())


def test_command_that_is_not_there_ends_in_a_problem_not_a_crash(tmp_path: Path) -> None:
    async def check() -> None:
        worker = child(tmp_path, [str(tmp_path / "nothing")])
        worker.start()
        await wait_for(lambda: worker.problem)
        await worker.stop()

    asyncio.run(check())


def test_worker_that_ignores_the_request_is_made_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_worker, "STOP_SECONDS", 0.3)

    async def check() -> None:
        worker = child(tmp_path, STUBBORN)
        worker.start()
        await wait_for(lambda: worker.pid and (tmp_path / "logs" / "worker.log").read_text())
        pid = worker.pid
        assert pid is not None
        await worker.stop()
        assert not psutil.pid_exists(pid)

    asyncio.run(check())


def test_worker_does_not_get_the_keys(tmp_path: Path) -> None:
    async def check() -> None:
        show = [*PYTHON, "import os, sys; print(sorted(os.environ), flush=True); sys.exit(2)"]
        worker = child(tmp_path, show, PINSAGE_KEYS="a:admin:hunter2", PINSAGE_REDIS_URL="redis://x")
        worker.start()
        await wait_for(lambda: worker.problem)
        await worker.stop()

    asyncio.run(check())
    shown = (tmp_path / "logs" / "worker.log").read_text()
    assert "PINSAGE_REDIS_URL" in shown
    assert "PINSAGE_KEYS" not in shown


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not end a child with its parent")
def test_worker_does_not_outlive_a_service_that_is_killed(tmp_path: Path) -> None:
    service = f"""
import asyncio, os, sys
from pathlib import Path
from service.online.child_worker import ChildWorker

async def main():
    worker = ChildWorker({SLEEPER!r}, log=Path({str(tmp_path)!r}) / "worker.log", environ=os.environ)
    worker.start()
    while worker.pid is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    print(worker.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", service], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
        process.kill()
        deadline = time.monotonic() + 20
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the worker outlived the service"
            time.sleep(0.05)


def test_long_logs_are_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_worker, "MAX_LOG", 10)
    log = tmp_path / "logs" / "worker.log"
    log.parent.mkdir()
    log.write_text("x" * 11)

    async def check() -> None:
        worker = child(tmp_path, [*PYTHON, "import sys; sys.exit(2)"])
        worker.start()
        await wait_for(lambda: worker.problem)
        await worker.stop()

    asyncio.run(check())
    assert (log.read_text(), log.with_suffix(".old.log").read_text()) == ("", "x" * 11)


def test_the_command_is_pinsage_worker(tmp_path: Path) -> None:
    command = worker_command(tmp_path)
    assert command is not None
    assert Path(command[0]).name == "pinsage"
    assert command[1:] == ["worker", "--home", str(tmp_path)]
