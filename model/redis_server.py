"""Where Redis is: the one that PINSAGE_REDIS_URL names, or a private one that we start and stop ourselves.

The private server belongs to a home folder and to whoever holds the lock file in it. The server inherits the lock, so
the lock is free only when the owner and its server are both gone, and two servers never share a data folder. Processes
that come later attach to the socket; when the owner goes, one of them takes the lock and starts the server again on the
same socket and data. A server does not outlive its owner, even when the owner is killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import redis

from model.errors import UserError
from model.redis_clients import sync_client, without_password
from model.redis_programs import Program, check_data, find_program

logger = logging.getLogger(__name__)

URL_VARIABLE = "PINSAGE_REDIS_URL"
OLDEST = (6, 2)
LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107
PAUSE = 0.02  # seconds between two looks at the server while it starts
REST = 0.2  # seconds between two looks afterwards
RESTART_PAUSE = 1.0
START_SECONDS = 120.0  # a large file takes a while to load
STOP_SECONDS = 15.0
MAX_LOG = 10 * 2**20  # bytes

# Runs between fork and the server: asks the kernel to end the server with its parent. It is a program of its own
# because preexec_fn may deadlock in a process with threads.
_LAUNCH = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the owner is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class RedisSource:
    """An open way to Redis: `address` is its URL. Close it, or use it as a context manager."""

    def __init__(self, address: str, keeper: _Keeper | None = None) -> None:
        self.address = address
        self._keeper = keeper

    @property
    def is_private(self) -> bool:
        """Whether this is the home folder's own server."""
        return self._keeper is not None

    @property
    def is_owner(self) -> bool:
        """Whether the server ends with this process."""
        return self._keeper is not None and self._keeper.is_owner

    def __str__(self) -> str:
        return without_password(self.address)

    def close(self) -> None:
        """Stop the private server when it is ours."""
        if self._keeper is not None:
            self._keeper.close()

    def __enter__(self) -> RedisSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_redis(home: Path, environ: Mapping[str, str] = os.environ) -> RedisSource:
    """Find or start Redis; UserError says what to do when there is none, or it is too old, or cannot be reached."""
    url = environ.get(URL_VARIABLE)
    if url:
        given = RedisSource(url)
        _check_server(given)
        return given
    keeper = _Keeper(home.absolute() / "redis", find_program(environ))
    keeper.open()
    source = RedisSource(keeper.address, keeper)
    try:
        _check_server(source)
    except BaseException:
        source.close()
        raise
    return source


def _check_server(source: RedisSource) -> None:
    """UserError unless a server of a version that we know answers."""
    shown = str(source)
    try:
        with sync_client(source, timeout=5.0) as client:
            version = str(client.info("server")["redis_version"])
    except (redis.RedisError, OSError, ValueError) as error:
        reason = str(error).replace(source.address, shown)
        raise UserError(f"cannot reach Redis at {shown}: {reason}") from None
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise UserError(f"Redis at {shown} is version {version}; 6.2 or later is needed")


class _Keeper:
    """A thread that keeps the private server running: starts it as soon as the lock is free, again when it died.

    One thread does all of it because the kernel ends the server with the *thread* that started it.
    """

    def __init__(self, folder: Path, program: Program) -> None:
        self.folder = folder
        self.program = program
        self.socket = _socket_path(folder)
        self.address = f"unix://{quote(str(self.socket))}"
        self.is_owner = False
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="redis-keeper", daemon=True)

    def open(self) -> None:
        """Start the thread and wait until the server answers; UserError when it does not."""
        _make_private(self.folder)
        _make_private(self.socket.parent)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._ready.wait(PAUSE):
            if self._failure is None and time.monotonic() < deadline:
                continue
            self.close()
            reason = self._failure or f"no answer within {START_SECONDS:.0f} s"
            raise UserError(f"the private Redis in {self.folder} did not start: {reason}")

    def close(self) -> None:
        """End the thread, and the server when it is ours."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not self._stop.is_set():
                self._look(lock)
                self._stop.wait(REST if self._ready.is_set() else PAUSE)
            self._end_server()
        except (OSError, UserError) as error:
            if self._ready.is_set():  # nobody waits for the failure any more
                logger.error("the private Redis cannot be started again: %s", error)
            self._failure = str(error)
        finally:
            self.is_owner = False
            os.close(lock)

    def _look(self, lock: int) -> None:
        """Take the lock when it is free, start the server when it is ours and not running."""
        if not self.is_owner:
            self.is_owner = _try_lock(lock)
        if self.is_owner and (self._process is None or self._process.poll() is not None):
            if self._starts and not self._ready.is_set():
                self._failure = f"the server ended at once; see {self._log}:\n{_last_lines(self._log)}"
                self._stop.set()
                return
            if self._starts:
                self._stop.wait(RESTART_PAUSE)
            self._process = self._start(lock)
            self._starts += 1
        if not self._ready.is_set() and _answers(RedisSource(self.address)):
            self._ready.set()

    @property
    def _log(self) -> Path:
        return self.folder / "redis.log"

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        check_data(self.folder, self.program)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "databases": "1",
            "logfile": str(self._log),
            "daemonize": "no",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        if self._log.exists() and self._log.stat().st_size > MAX_LOG:
            self._log.replace(self._log.with_suffix(".old.log"))
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*launch, str(self.program.path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for us: we still write while we shut down
            )

    def _end_server(self) -> None:
        """SIGTERM makes Redis write out its file and go."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.socket.unlink(missing_ok=True)


def _socket_path(folder: Path) -> Path:
    """In the folder; in a short one of the same name for everybody where the path would be too long."""
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pinsage-{os.getuid()}-{name}" / "redis.sock"


def _make_private(folder: Path) -> None:
    """A folder that only we can enter; UserError when somebody else made it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid():
        raise UserError(f"{folder} is a link or belongs to another user; Redis will not be started there")
    folder.chmod(0o700)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(source: RedisSource) -> bool:
    """Whether the server has loaded its data and answers."""
    try:
        with sync_client(source, timeout=1.0) as client:
            return bool(client.ping())
    except redis.RedisError:  # not there yet, or LOADING
        return False


def _last_lines(path: Path, num_lines: int = 5) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-num_lines:])
    except OSError:
        return ""
