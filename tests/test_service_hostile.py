"""What an enemy sends, over raw sockets to a real server process: refused as a problem, in bounded memory and time,
while others are served. More bodies and every call of the API: test_service_fuzz.py."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from http_service import kind_of
from server_process import Server, serving
from service_fixtures import VISUAL_DIM, make_release

PLENTY = 10 * 2**20  # bytes that any of this may take
BODY_SECONDS = 1.0
NESTED = b"[" * 100_000
SURROGATE, NUL = b'"\\ud800"', b'"a\\u0000b"'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """A service that has answered calls of all kinds, so that what they need once is in memory."""
    with serving(home, drain_seconds=0, body_seconds=BODY_SECONDS) as server:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for _ in range(20):
                assert http.get("/v1/pins/p1/related").status_code == 200
                http.put("/v1/pins/warm", json={"title": "word1", "boards": ["b1"], "visual": [0.5] * VISUAL_DIM})
                http.put("/v1/pins/warm", content=b'{"title": "' + b"a" * 10**6 + b'"}')
                http.post("/v1/users/u1/events", json={"type": "save", "pin_id": "p1"})
                http.get("/v1/search?q=word1")
        yield server


@pytest.fixture
def in_bounds(server: Server) -> Iterator[Server]:
    """The server; afterwards it must live, be free, and must not have taken more memory than PLENTY meanwhile."""
    before = server.forget_peak()
    yield server
    assert server.peak() - before <= PLENTY
    assert httpx.get(f"{server.url}/v1/pins/p1/related", timeout=60).status_code == 200


def ask(server: Server, request: bytes, *, more: bytes = b"", times: int = 1) -> httpx.Response:
    """Send bytes, then `more` so many times or until nobody listens; the answer, which must be whole."""
    with server.connect() as connection:
        try:
            connection.sendall(request)
            for _ in range(times):
                connection.sendall(more)
        except ConnectionError:
            pass  # refused before we were done; the answer is here already
        return read_answer(connection)


def read_answer(connection: socket.socket) -> httpx.Response:
    """One answer with a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])  # type: ignore[misc]
    while "content-length" in headers and len(body) < int(headers["content-length"]):
        body += receive(connection)
    while headers.get("transfer-encoding") == "chunked" and not body.endswith(b"0\r\n\r\n"):
        body += receive(connection)
    if headers.pop("transfer-encoding", None):
        body = b"".join(re.findall(rb"[0-9a-f]+\r\n(.+?)\r\n", body))
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "closed without an answer"
    return data


def request(method: str, path: str | bytes, *headers: str, body: bytes = b"") -> bytes:
    path = path.encode() if isinstance(path, str) else path
    names = [line.split(":")[0].lower() for line in headers]
    length = [f"content-length: {len(body)}"] if body and not {"content-length", "transfer-encoding"} & {*names} else []
    host = [] if "host" in names else ["host: 127.0.0.1"]
    return (
        b"%s %s HTTP/1.1\r\n" % (method.encode(), path)
        + "".join(f"{line}\r\n" for line in (*host, *length, *headers)).encode("latin-1")
        + b"\r\n"
        + body
    )


def refused(answer: httpx.Response, *statuses: int) -> str:
    """The kind of the problem that the answer must be."""
    assert answer.status_code in (statuses or range(400, 500)), (answer.status_code, answer.content[:300])
    return kind_of(answer)


# --- what stands in a body ---


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"NaN"', '"1e999"', "1" * 5000, "1e300"])
def test_numbers_that_are_none(in_bounds: Server, number: str) -> None:
    body = f'{{"title": "a", "visual": [{", ".join([number] * VISUAL_DIM)}]}}'.encode()
    refused(ask(in_bounds, request("PUT", "/v1/pins/bad", body=body)), 400, 422)
    refused(ask(in_bounds, request("POST", "/v1/related", body=b'{"queries": [%s]}' % body)), 400, 422)
    event = f'{{"type": "save", "pin_id": "p1", "timestamp": {number}}}'.encode()
    refused(ask(in_bounds, request("POST", "/v1/users/u1/events", body=event)), 400, 422)
    assert refused(ask(in_bounds, request("GET", "/v1/pins/bad"))) == "unknown-pin", "and nothing was stored"


@pytest.mark.parametrize("text", [SURROGATE, NUL, b'""', b'"a b"', b'"' + b"a" * 10**6 + b'"', b'"\xff"', b'"a\x00"'])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/pins/bad", b'{"boards": [%s]}'),
        ("POST", "/v1/related", b'{"queries": [%s]}'),
        ("POST", "/v1/boards/b1/pins", b'{"pin_id": %s}'),
        ("POST", "/v1/users/u1/events", b'{"type": "save", "pin_id": %s}'),
        ("POST", "/v1/admin/reindex", b'{"mode": %s}'),
    ],
)
def test_ids_that_are_none(in_bounds: Server, method: str, path: str, body: bytes, text: bytes) -> None:
    refused(ask(in_bounds, request(method, path, body=body % text)), 400, 422)


@pytest.mark.parametrize("body", [NESTED, NESTED + b"]" * 100_000, b'{"title":' * 100_000, b'{"title": %s}' % NESTED])
@pytest.mark.parametrize("path", ["/v1/related", "/v1/users/u1/events", "/v1/boards/b1/pins", "/v1/admin/reindex"])
def test_endless_nesting(in_bounds: Server, path: str, body: bytes) -> None:
    assert refused(ask(in_bounds, request("POST", path, body=body)), 400) == "malformed-body"


# --- how much there is of it ---


@pytest.mark.parametrize("megabytes", [2, 60])
def test_long_bodies(in_bounds: Server, megabytes: int) -> None:
    head = request("PUT", "/v1/pins/bad", f"content-length: {megabytes * 2**20}")
    answer = ask(in_bounds, head, more=b"x" * 2**20, times=megabytes)
    assert refused(answer, 413) == "body-too-large"


def test_a_long_body_in_chunks(in_bounds: Server) -> None:
    head = request("PUT", "/v1/pins/bad", "transfer-encoding: chunked")
    answer = ask(in_bounds, head, more=b"100000\r\n" + b"x" * 2**20 + b"\r\n", times=60)
    assert refused(answer, 413) == "body-too-large"


def test_a_body_in_tiny_chunks(in_bounds: Server) -> None:
    head = request("PUT", "/v1/pins/bad", "transfer-encoding: chunked")
    answer = ask(in_bounds, head, more=b"1\r\nx\r\n" * 10_000, times=120)
    refused(answer, 408, 413)


@pytest.mark.parametrize("path", ["/v1/pins/%s", "/v1/users/%s/homefeed", "/v1/search?q=%s", "/%s"])
@pytest.mark.parametrize("length", [60_000, 10**6, 20 * 10**6])
def test_an_endless_address(in_bounds: Server, path: str, length: int) -> None:
    answer = ask(in_bounds, request("GET", path % ("a" * length)))
    assert refused(answer) == "uri-too-long"


def test_an_endless_header(in_bounds: Server) -> None:
    begun = b"GET /v1/pins/p1 HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: "
    assert refused(ask(in_bounds, begun, more=b"a" * 2**20, times=60), 431) == "headers-too-large"


def test_endless_headers(in_bounds: Server) -> None:
    begun = b"GET /v1/pins/p1 HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    assert refused(ask(in_bounds, begun, more=b"x-a: b\r\n" * 100_000, times=40), 431) == "headers-too-large"


def test_headers_of_a_usual_length_are_taken(server: Server) -> None:
    cookies = [f"x-{i}: {'a' * 1000}" for i in range(60)]
    assert ask(server, request("GET", "/v1/pins/p1", *cookies)).status_code == 200


@pytest.mark.parametrize("k", ["10000000000000000000000", "1e22", "9" * 5000, "-1", "0", "501", "NaN", "0x10", ""])
def test_no_k_is_too_large_to_be_refused(in_bounds: Server, k: str) -> None:
    for path in ("/v1/pins/p1/related", "/v1/users/u1/homefeed"):
        refused(ask(in_bounds, request("GET", f"{path}?limit={k}")), 422)
    if k.strip("-").isdigit():
        refused(ask(in_bounds, request("POST", "/v1/related", body=f'{{"queries": ["p1"], "limit": {k}}}'.encode())))


# --- addresses and heads that mean two things ---


@pytest.mark.parametrize(
    "path",
    [
        "/v1/pins/..%2f..%2fetc%2fpasswd", "/v1/pins/%2e%2e/related", "/console/..%2f..%2fapp.py",
        "/console/%2e%2e/app.py",
        "/console//etc/passwd", "/console/%00", "/v1/pins/a%00b", "/v1/pins/%", "/v1/pins/%zz", "/v1/pins/%ff%fe",
        "/v1/pins/%ed%a0%80", "//v1/pins/p1", "/v1//pins/p1", "/V1/pins/p1", "/v1/pins/p1/", "/v1/pins/p1/related/..",
        "/v1/pins/p1;x=1", "/docs%2f..%2fv1/status", "/v1/pins/a%0d%0aset-cookie:x", "/v1/users/%20/homefeed", "*",
        "/console/..\\..\\app.py", "/images/../pins.arrow", "/v1/admin/jobs/..%2f..%2fpins",
    ],
)  # fmt: skip
def test_path_tricks(in_bounds: Server, path: str) -> None:
    answer = ask(in_bounds, request("GET", path))
    refused(answer)
    assert b"passwd" not in answer.content
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/v1/pins/p1", "host: a", "host: b"),
        request("GET", "/v1/pins/p1", "authorization: Bearer a", "Authorization: Bearer b"),
        request("GET", "/v1/pins/p1", "x-api-key: a", "X-API-Key: b"),
        request("POST", "/v1/admin/reindex", "idempotency-key: a", "idempotency-key: b"),
        request("GET", "/v1/pins/p1", "origin: http://127.0.0.1", "origin: http://evil.example"),
        request("PUT", "/v1/pins/bad", "content-length: 5", "content-length: 6", body=b"hello"),
        request("PUT", "/v1/pins/bad", "content-length: 5", "transfer-encoding: chunked", body=b"0\r\n\r\n"),
        request("PUT", "/v1/pins/bad", "transfer-encoding: chunked", "transfer-encoding: identity", body=b"0\r\n\r\n"),
        request("PUT", "/v1/pins/bad", "content-length: -5", body=b"hello"),
        request("PUT", "/v1/pins/bad", "content-length: 5, 5", body=b"hello"),
        request("PUT", "/v1/pins/bad", "content-length: 99999999999999999999999", body=b"hello"),
        request("PUT", "/v1/pins/bad", "transfer-encoding: chunked", body=b"zz\r\nhello\r\n"),
        b"GET /v1/pins/p1 HTTP/1.1\nhost : 127.0.0.1\n\n",
        b"GET /v1/pins/p1 HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: b\x00c\r\n\r\n",
        b"GET /v1/pins/p1 HTTP/1.1\r\nhost: 127.0.0.1\r\n folded: yes\r\n\r\n",
        b"GET /v1/pins/p1 HTTP/9.9\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /v1/pins/p 1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n",
        b"FROBNICATE /v1/pins/p1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"\x00\x01\x02\x03\r\n\r\n",
    ],
    ids=lambda sent: sent.decode("latin-1").splitlines()[0][:30],
)  # fmt: skip
def test_heads_that_nobody_means(in_bounds: Server, sent: bytes) -> None:
    refused(ask(in_bounds, sent))


def test_what_follows_a_refused_request_is_not_taken_for_one(in_bounds: Server) -> None:
    """A request hidden behind a head that two readers might cut differently."""
    hidden = request("PUT", "/v1/pins/smuggled", body=b'{"title": "word1"}')
    refused(ask(in_bounds, request("PUT", "/v1/pins/a", "content-length: 0", "transfer-encoding: chunked") + hidden))
    assert refused(ask(in_bounds, request("GET", "/v1/pins/smuggled"))) == "unknown-pin"


def test_heads_of_a_websocket_get_a_plain_answer(in_bounds: Server) -> None:
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eA==")
    assert ask(in_bounds, request("GET", "/v1/pins/p1", *upgrade)).status_code == 200


# --- those who take their time ---


def test_slow_bodies_and_heads_are_given_up_while_others_are_served(in_bounds: Server) -> None:
    """A hundred connections that send a byte now and then, half of them in a head, half in a body."""
    stop = threading.Event()
    begun = [
        b"GET /v1/pins/p1 HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ",
        request("PUT", "/v1/pins/bad", "content-length: 999"),
    ]
    with ExitStack() as stack:
        slow = [stack.enter_context(in_bounds.connect()) for _ in range(100)]
        for number, connection in enumerate(slow):
            connection.sendall(begun[number % 2])

        def drip() -> None:
            while not stop.wait(BODY_SECONDS / 5):
                for connection in slow:
                    try:
                        connection.send(b"x")
                    except OSError:
                        continue

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            for _ in range(20):
                assert httpx.get(f"{in_bounds.url}/v1/pins/p1/related", timeout=60).status_code == 200
            for connection in slow:
                assert refused(read_answer(connection), 408) == "request-timeout"
        finally:
            stop.set()
            thread.join()


def test_clients_that_ask_and_do_not_read_keep_no_places(home: Path) -> None:
    """Each asks often for megabytes: an answer waits for those before it to be read. There are two places."""
    everything = json.dumps({"queries": ["p1"] * 100, "limit": 500}).encode()
    with (
        serving(home, body_seconds=BODY_SECONDS, max_inflight=2) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
        ExitStack() as stack,
    ):
        for _ in range(4):
            connection = stack.enter_context(server.connect())
            connection.sendall(request("POST", "/v1/related", body=everything) * 8)
        wait_for(lambda: http.get("/v1/pins/p1").status_code == 503)
        wait_for(lambda: {http.get("/v1/pins/p1").status_code for _ in range(50)} == {200})


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thousand_requests_ahead_of_their_answers_end_the_connection(in_bounds: Server) -> None:
    with in_bounds.connect() as connection:
        connection.sendall(request("GET", "/v1/pins/p1/related?limit=500") * 1000)
        received = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert received.count(b"HTTP/1.1 200") < 20


def test_many_connections_that_say_nothing(in_bounds: Server) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(in_bounds.connect())
        assert httpx.get(f"{in_bounds.url}/v1/pins/p1/related", timeout=60).status_code == 200


def test_a_connection_is_used_again_after_a_refusal_of_what_it_carried(server: Server) -> None:
    """Only what makes the rest of a connection unreadable closes it."""
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(request("PUT", "/v1/pins/bad", body=b'{"title": NaN}'))
            assert refused(read_answer(connection), 400) == "malformed-body"
        connection.sendall(request("GET", "/v1/pins/p1"))
        assert json.loads(read_answer(connection).content)["pin_id"] == "p1"
