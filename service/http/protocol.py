"""HTTP/1.1 on a connection: uvicorn's protocol, with bounds on what comes before our middleware sees anything.

The head of a request is bounded in bytes and in time, and so is the time that a client takes to read: otherwise one
that sends a header for ever would fill the memory, and one that asks and does not listen would keep its place. What is
no HTTP gets the same problem+json as everything else.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.http.errors import Problem
from service.http.middleware import LINGER_BYTES, LINGER_SECONDS, MAX_ADDRESS

MAX_HEAD = 2**17  # bytes of the request line and the headers; may be exceeded by what one read brings
MAX_WAITING = 16  # requests that one connection may send ahead of their answers


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A head has `patience` seconds from its first byte on, and an answer as long to be read."""

    def __init__(self, *arguments: Any, patience: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience = patience
        self._head_bytes = 0
        self._in_head = True  # between requests, too
        self._refused = False
        self._drained = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here; until its first byte it is idle as between two requests."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it all that was to happen on it."""
        self._stop_timer("_head_timer")
        self._stop_timer("_read_timer")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came: those of a head are counted, those after a refusal are read away."""
        if self._refused:
            self._drained += len(data)
            if self._drained > LINGER_BYTES:
                self.transport.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
            self._expect_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD:
            in_address = len(self.url) > MAX_ADDRESS
            limit = f"at most {MAX_ADDRESS if in_address else MAX_HEAD} bytes"
            self._refuse(Problem("uri-too-long" if in_address else "headers-too-large", limit))

    def pause_writing(self) -> None:
        """The client does not read its answer; not for ever."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(self._patience, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads on."""
        self._stop_timer("_read_timer")
        super().resume_writing()

    # --- what the parser calls ---

    def on_headers_complete(self) -> None:
        """The head is here. One too many ahead of its time ends the connection."""
        self._in_head = False
        self._stop_timer("_head_timer")
        super().on_headers_complete()
        if len(self.pipeline) > MAX_WAITING:
            raise ValueError("requests come faster than their answers")  # the parser stops and says so

    def on_message_complete(self) -> None:
        """The body is, too: what comes now is the next head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up."""
        self._refuse(Problem("malformed-request"))

    # --- ends ---

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._patience, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._expect_head()  # the answer to the request before is under way
        else:
            self._refuse(Problem("request-timeout", f"{self._patience:g} seconds"))

    def _refuse(self, problem: Problem) -> None:
        """Answer, and read away for a while: closing with unread bytes would reset the connection before the client has
        seen the answer."""
        self._stop_timer("_head_timer")
        if self.transport.is_closing():
            return
        cycle = self.cycle
        is_answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if is_answering or not self.transport.can_write_eof():
            self.transport.close()  # there is no room for a second answer in the middle of one
            return
        self._refused = True
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(_as_bytes(problem))
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _stop_timer(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)


def _as_bytes(problem: Problem) -> bytes:
    """A whole answer, after which the connection closes."""
    request_id = uuid.uuid4().hex
    response = problem.response(request_id)
    headers = [*response.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body)
