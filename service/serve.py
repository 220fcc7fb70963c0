"""`pinsage serve`: one process, one event loop, stopped in order.

SIGTERM: /readyz says 503 first, so that load balancers look elsewhere, while requests are still taken; then the
listener closes, what is in flight finishes within the grace time, the worker and the private Redis end. Ctrl-C skips
the first part; a second signal skips the wait for requests, and still ends the children.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from model.errors import UserError
from model.redis_server import URL_VARIABLE, open_redis
from service.http.security import check_binding, parse_keys
from service.settings import Settings, load_settings

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SWITCH_SECONDS = 0.0005  # after which Python lets another thread go on
KEEP_ALIVE = 75  # seconds; longer than load balancers keep idle connections, or they meet closed ones


def serve(home: Path | None = None, host: str | None = None, port: int | None = None) -> None:
    """Serve a home's current release until a signal comes; what is not given comes from the environment.

    Raises UserError for wrong settings, a public address without keys, a port that is taken, or when there is no Redis.
    """
    settings = load_settings(home=home, host=host, port=port)
    check_binding(settings.host, parse_keys(settings.keys.get_secret_value() if settings.keys else None))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port))
        environ = dict(os.environ)  # as it was: the worker may use more threads than we
        _limit_threads()
        if settings.redis_url is not None:
            environ[URL_VARIABLE] = settings.redis_url.get_secret_value()
        stack.callback(_restore_signals, {number: signal.getsignal(number) for number in SIGNALS})
        source = stack.enter_context(open_redis(settings.home, environ))
        _run(settings, {**environ, URL_VARIABLE: source.address}, listener)


def _run(settings: Settings, environ: dict[str, str], listener: socket.socket) -> None:
    from service.app import create_app  # imports NumPy and numba, which read the thread variables then
    from service.http.protocol import BoundedProtocol

    app = create_app(settings, environ)
    config = uvicorn.Config(
        app,
        http=partial(BoundedProtocol, patience=settings.body_seconds),  # type: ignore[arg-type]
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.grace_seconds),
    )
    # While a write computes, the event loop would wait for it up to 5 ms at a time, and it for the event loop.
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # libraries are no garbage, and looking through them again and again takes time
    server = GracefulServer(config, app.state, drain_seconds=settings.drain_seconds)
    server.run(sockets=[listener])


class GracefulServer(uvicorn.Server):
    """uvicorn that says it is leaving before it leaves, stops its children whatever happens, and does not end the
    process by raising the signal again."""

    def __init__(self, config: uvicorn.Config, state: Any, *, drain_seconds: float) -> None:
        super().__init__(config)
        self._state, self._drain_seconds = state, drain_seconds
        self._leave_at = math.inf

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals; `serve` gives them back when all is closed."""
        for number in SIGNALS:
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: leave, in order. Later ones: do not wait for requests."""
        self.force_exit = self.should_exit
        draining = sig == signal.SIGTERM and not self._state.draining and self._drain_seconds > 0
        self._state.draining = True
        if draining:
            self._leave_at = time.monotonic() + self._drain_seconds
        else:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to leave."""
        self.should_exit = self.should_exit or time.monotonic() >= self._leave_at
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where we are once we answer."""
        await super().startup(sockets)
        if sockets and self.started:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"pinsage serves at http://{shown}:{port} (console at /, API at /docs); Ctrl-C stops it", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Also when forced, what the app opened is closed."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


def _listen(host: str, port: int) -> socket.socket:
    """The socket to accept at, before anything slow starts: a port that is taken is known at once."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"cannot listen at {host} port {port}: {error.strerror or error}") from None


def _limit_threads() -> None:
    """Tell native libraries, before they are imported, to use one thread each; what the user set stays.

    Requests run side by side in threads of our own, and their products are small: a scan of 2,500 new pins took 0.7 ms
    with one thread of BLAS, and 14 ms with two on two busy processors.
    """
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")


def _restore_signals(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
