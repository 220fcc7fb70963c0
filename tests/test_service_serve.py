"""`pinsage serve` as a process of its own over TCP: start, limits on the wire, and every way to stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from model.errors import UserError
from service.serve import serve
from tests.http_service import ids_of, kind_of
from tests.server_process import Server, gone, serving
from tests.service_fixtures import make_release


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """One service that the tests of requests share."""
    with serving(home, drain_seconds=0) as server:
        yield server
        children = server.children()
        assert children, "no private Redis"
        assert server.stop(signal.SIGTERM) == 0
        assert gone(children)


def test_a_pin_goes_in_and_is_found_over_tcp(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        put = http.put(
            "/v1/pins/new-1", content='{"title": "word1 word2", "boards": ["b1"]}', headers={"content-type": "text/x"}
        )
        assert put.status_code == 201
        assert len(ids_of(http.get("/v1/pins/new-1/related"))) == 20
        assert http.get("/readyz").status_code == 200
        assert "server" not in put.headers


def test_the_console_comes_with_a_policy(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        page = http.get("/")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for name in set(re.findall(r'(?:href|src)="([^"#:]+)"', page.text)):
            assert http.get(f"/{name}").status_code == 200, name
        assert "://" not in re.sub(r"https://…", "", page.text)


def test_two_megabytes_are_refused_and_the_answer_arrives(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        answer = http.put("/v1/pins/new-2", content=b"x" * 2**21)
        assert (answer.status_code, kind_of(answer)) == (413, "body-too-large")
        assert http.get("/livez").status_code == 200


def test_endless_chunks_are_refused_and_the_answer_arrives(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 2**16

    with httpx.Client(base_url=server.url) as http:
        answer = http.put("/v1/pins/new-2", content=chunks())
        assert (answer.status_code, kind_of(answer)) == (413, "body-too-large")


def test_huge_bodies_take_no_memory(server: Server) -> None:
    """Sixteen bodies of 8 MiB: a default app would hold them all."""
    process = psutil.Process(server.process.pid)
    with httpx.Client(base_url=server.url) as http:
        http.get("/v1/pins/p1/related")
        before = process.memory_info().rss
        for _ in range(16):
            assert http.put("/v1/pins/new-2", content=b"x" * 2**23).status_code == 413
        assert process.memory_info().rss - before < 2**24


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /%zz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /v1/pins/%ff%fe/related HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"PUT /v1/pins/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -5\r\n\r\n",
        b"PUT /v1/pins/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"PUT /v1/pins/a HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ],
    ids=range(8),
)
def test_broken_http_is_a_4xx_or_a_closed_connection(server: Server, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            connection.sendall(request_)
            answer = connection.recv(65536)
        except ConnectionError:
            answer = b""
        assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:100]
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_sigterm_says_so_first_and_finishes_what_is_in_flight(tmp_path: Path) -> None:
    """An upload that began before the signal is answered after it."""
    make_release(tmp_path / "releases")
    with serving(tmp_path, drain_seconds=1.5) as server:
        children = server.children()
        body = b'{"title": "word1 word2"}'
        head = f"PUT /v1/pins/new-1 HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow,
            httpx.Client(base_url=server.url) as http,
        ):
            slow.sendall(head + body[:5])
            assert http.get("/readyz").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            draining = http.get("/readyz")
            assert (draining.status_code, draining.json()["reasons"]) == (503, ["stopping"])
            assert http.get("/v1/pins/p1/related").status_code == 200
            time.sleep(1.6)  # the listener is closed by now
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/livez")
            slow.sendall(body[5:])
            assert slow.recv(4096).startswith(b"HTTP/1.1 201 ")
        assert server.process.wait(30) == 0
        assert gone(children)


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([signal.SIGINT], marks=pytest.mark.slow),
        pytest.param([signal.SIGINT, signal.SIGINT], marks=pytest.mark.slow),
        [signal.SIGTERM, signal.SIGTERM, signal.SIGINT],
    ],
)
def test_ctrl_c_once_or_often_leaves_nothing_behind(tmp_path: Path, signals: list[int]) -> None:
    """A request hangs; a second signal does not wait for it."""
    with serving(tmp_path, grace_seconds=60 if len(signals) > 1 else 1) as server:
        children = server.children()
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as stuck:
            stuck.sendall(b"PUT /v1/pins/a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\n\r\n{")
            time.sleep(0.2)
            assert server.stop(*signals, pause=0.3) == 0
        assert gone(children)


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    make_release(tmp_path / "releases")
    with serving(tmp_path, drain_seconds=0) as server:
        assert httpx.put(f"{server.url}/v1/pins/new-1", json={"title": "word1"}).status_code == 201
        server.stop(signal.SIGTERM)
    with serving(tmp_path, drain_seconds=0) as server:
        deadline = time.monotonic() + 20
        while httpx.get(f"{server.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline
        assert httpx.get(f"{server.url}/v1/pins/new-1").json()["title"] == "word1"
        server.stop(signal.SIGTERM)


def test_a_burst_is_answered_or_shed_never_broken(server: Server) -> None:
    limits = httpx.Limits(max_connections=100)
    with httpx.Client(base_url=server.url, limits=limits, timeout=60) as http, ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda row: http.get(f"/v1/pins/p{row}/related?limit=500"), range(200)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)


# --- refusals before anything starts ---


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PINSAGE_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("clean_environment")
def test_public_address_without_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PINSAGE_KEYS"):
        serve(tmp_path, "0.0.0.0", 0)


@pytest.mark.usefixtures("clean_environment")
def test_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen"):
        serve(tmp_path, "127.0.0.1", taken.getsockname()[1])


@pytest.mark.usefixtures("clean_environment")
def test_redis_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINSAGE_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    with pytest.raises(UserError, match="cannot reach Redis") as refused:
        serve(tmp_path, "127.0.0.1", 0)
    assert "hunter2" not in str(refused.value)


def test_reindex_by_the_child_worker_takes_live_pins_into_a_new_release(tmp_path: Path) -> None:
    """The whole way round: put, reindex over HTTP, a worker of our own, and the new release is served."""
    old = make_release(tmp_path / "releases").id
    with serving(tmp_path, worker="child", drain_seconds=0) as server, httpx.Client(base_url=server.url) as http:
        assert http.put("/v1/pins/new-1", json={"title": "word1 word2", "boards": ["b1"]}).status_code == 201
        started = http.post("/v1/admin/reindex")
        assert started.status_code == 202
        job = wait_until_over(http, started.headers["location"])
        assert (job["state"], job["error"]) == ("succeeded", None)
        deadline = time.monotonic() + 20
        while http.get("/v1/status").json()["release"] == old:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        status = http.get("/v1/status").json()
        assert (status["release"], status["index_vectors"], status["live_pins"]) == (job["release"], 301, 0)
        assert http.get("/v1/pins/new-1/related").json()["release"] == job["release"]
        children = server.children()
        assert len(children) >= 2, "the private Redis and the worker"
        assert server.stop(signal.SIGTERM) == 0
        assert gone(children)


def wait_until_over(http: httpx.Client, place: str) -> dict[str, object]:
    deadline = time.monotonic() + 120
    while True:
        job: dict[str, object] = http.get(place).json()
        if job["state"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
