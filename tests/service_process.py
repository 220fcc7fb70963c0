"""A service and a Redis as processes of their own, to be killed, frozen and started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import redis
from live_service import PATIENCE

from model.redis_clients import sync_client
from model.redis_programs import find_program
from model.redis_server import URL_VARIABLE, RedisSource, _socket_path

PINSAGE = (str(Path(sys.executable).with_name("pinsage")),)


class RedisProcess:
    """A Redis with an append-only file that a test may kill; `fsync` is its appendfsync."""

    def __init__(self, folder: Path, fsync: str = "always") -> None:
        self.folder = folder
        self.source = RedisSource(f"unix://{folder}/redis.sock")
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what it left; returns when it answers."""
        self.folder.mkdir(exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.folder / "redis.sock"),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "logfile": str(self.folder / "redis.log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([str(find_program(os.environ).path), *words], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < deadline

    def answers(self) -> bool:
        with sync_client(self.source, timeout=1.0) as client, suppress(redis.RedisError):
            return bool(client.ping())
        time.sleep(0.01)
        return False

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does not answer, though its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RedisProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class ServiceProcess:
    """`pinsage serve` on a home and a free port; with its private Redis where none is given."""

    def __init__(
        self, home: Path, redis: RedisProcess | None = None, *, command: Sequence[str] = PINSAGE, **settings: object
    ) -> None:
        self.home, self.url = home, ""
        self.source = redis.source if redis else RedisSource(f"unix://{_socket_path(home / 'redis')}")
        given = {"port": 0, "worker": "none", "drain_seconds": 0, **settings}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PINSAGE_")}
        self._environ = {**clean, **{f"PINSAGE_{name.upper()}": str(value) for name, value in given.items()}}
        if redis:
            self._environ[URL_VARIABLE] = redis.source.address
        self._command = [*command, "serve", "--home", str(home)]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Start it; the seconds until it is ready."""
        if self.process is not None:
            self.kill()  # of one that has ended, this lets go
        started = time.monotonic()
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, env=self._environ, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://[^ ]+", line)
        assert found, line
        self.url = found[0]
        self.wait_until_ready()
        return time.monotonic() - started

    def wait_until_ready(self) -> None:
        """Until it is ready and has Redis."""
        deadline = time.monotonic() + PATIENCE
        with httpx.Client(base_url=self.url) as http:
            while not (http.get("/readyz").status_code == 200 and http.get("/v1/status").json()["store_available"]):
                assert time.monotonic() < deadline, http.get("/v1/status").text
                time.sleep(0.02)

    def end(self) -> None:
        """SIGTERM, and wait until it has gone by itself."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0

    def kill(self) -> None:
        """kill -9, with all that it started."""
        assert self.process is not None
        assert self.process.stdout is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def copy_home(home: Path, to: Path) -> Path:
    """A home with the same releases and nothing in Redis."""
    shutil.copytree(home / "releases", to / "releases")
    return to
