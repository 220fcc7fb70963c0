"""`pinsage serve` as a process of its own, for tests: over TCP, with a private Redis."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

COMMAND = "from pathlib import Path; import sys; from service.serve import serve; serve(Path(sys.argv[1]))"


class Server:
    """A running service: its process and address."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, *signals: int, pause: float = 0.0) -> int:
        """Send signals; the exit code."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(pause)
        return self.process.wait(30)

    def connect(self, seconds: float = 30) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def forget_peak(self) -> int:
        """Begin a new peak of resident memory; what is resident now, in bytes."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.peak()

    def peak(self) -> int:
        """The most memory that was resident since, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


@contextmanager
def serving(home: Path, *, stderr: int | None = None, **settings: object) -> Iterator[Server]:
    """A service on a free port with a private Redis; killed when the test forgets to stop it."""
    given = {f"PINSAGE_{name.upper()}": str(value) for name, value in {"port": 0, "worker": "none", **settings}.items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PINSAGE_")}
    command = [sys.executable, "-c", COMMAND, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**clean, **given}) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line
            yield Server(process, found[0])
        finally:
            process.send_signal(signal.SIGKILL)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether these processes end soon."""
    return not psutil.wait_procs(processes, timeout=20)[1]
