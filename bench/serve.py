"""How fast the service answers: throughput against a route that does nothing, latencies with writes beside, what a PUT
takes, and how soon a new pin is found here and on a second replica.

A real `pinsage serve` on a generated world, trained for one epoch; the load comes from a process of its own, which says
how much of its processor it used (at one it would be the bottleneck). Latencies count from when a request was due, so a
slow answer is not hidden by the requests that waited for it. Compare the ratios: both sides of each are of one run.

python bench/serve.py                        100,000 pins: makes and trains the world first, which takes long
python bench/serve.py --home HOME            on the current release of a home, which stays as it is
python bench/serve.py --small                800 pins, to see that it works
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
from walks import processor

from model.exact import exact_neighbors
from model.release import current, open_release

HOST = "127.0.0.1"
SAMPLE = 500  # pins whose answers are compared, and whose contents are put
ASKED = 5_000  # pins that are asked about: their lists hold most of 100,000


def main() -> None:
    """Start two services on the release, measure, and end with the line of JSON."""
    options = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        home.mkdir()
        releases = (options.home or make_home(options, Path(scratch))) / "releases"
        (home / "releases").symlink_to(releases.resolve())  # Redis is ours, the releases are theirs
        with server(home) as one:
            result = measure(options, releases, home, one)
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=100_000, help="pins of the world")
    parser.add_argument("--home", type=Path, help="a home with a published release, instead of a new world")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of the throughputs, which take turns; the medians count")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.5, help="of the peak, at which latencies are measured")
    parser.add_argument("--writes", type=float, default=50.0, help="PUTs a second beside the reads")
    parser.add_argument("--puts", type=int, default=1000, help="pins that are put and asked for at once")
    parser.add_argument("--small", action="store_true", help="800 pins, one second each")
    options = parser.parse_args()
    if options.small:
        options.pins, options.seconds, options.rounds, options.puts = 800, 1.0, 1, 50
    return options


# --- what is measured ---


def measure(options: argparse.Namespace, releases: Path, home: Path, one: Server) -> dict[str, object]:
    """All measurements, printed as they come; what the line of JSON says."""
    release = open_release(releases, current(releases) or "", verify=False)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(release.pin_ids), min(SAMPLE, len(release.pin_ids)), replace=False))
    ids = [release.pin_ids.id_of(row) for row in rows]
    asked = rng.choice(len(release.pin_ids), min(ASKED, len(release.pin_ids)), replace=False).tolist()
    with httpx.Client(base_url=one.url, timeout=60) as http:
        contents = [http.get(f"/v1/pins/{pin}").json() for pin in ids]
        found = recall(http, release, rows)
        show(f"{len(release.pin_ids):,} pins, {release.manifest.embed_dim} dimensions", f"recall@20 {found:.4f}")
        reads = [get(f"/v1/pins/{release.pin_ids.id_of(row)}/related") for row in asked]
        puts = [put(number, contents) for number in range(int(options.writes * options.seconds) + 1)]
        peak = throughputs(options, one, reads)
        beside = load(
            one,
            options.seconds,
            reads=stream(reads, peak["related_per_s"] * options.share),
            writes=stream(puts, options.writes),
        )
        show_latencies(f"{options.share:.0%} of the peak, with writes beside", beside)
        alone = load(one, options.seconds, reads=stream(reads, peak["related_per_s"] * options.share))
        show_latencies(f"{options.share:.0%} of the peak, nothing beside", alone)
        seen = put_and_find(one, http, contents, options.puts)
        with server(home) as two:
            visible = visibility(http, two, contents, options.puts // 4)
    return {
        "bench": "serve",
        "figure": peak["related_per_s"],
        "unit": "related by pin a second, one process",
        "ratio": peak["related_to_noop"],
        "ratio_is": "throughput of related by pin over that of a route that does nothing",
        **peak,
        "share_of_peak": options.share,
        "reads_with_writes": beside,
        "reads_alone": alone,
        **seen,
        **visible,
        "recall_at_20": round(found, 4),
        "num_pins": len(release.pin_ids),
        "embed_dim": release.manifest.embed_dim,
        "ef": release.manifest.ef,
        "connections": options.connections,
        "hardware": f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }


def recall(http: httpx.Client, release, rows: np.ndarray) -> float:
    """Share of the true 20 nearest that the service answers with."""
    exact = exact_neighbors(release.embeddings_PD, np.asarray(release.embeddings_PD[rows], np.float32), 21)
    shares = []
    for row, near, scores in zip(rows.tolist(), exact.rows_QK.tolist(), exact.scores_QK, strict=True):
        items = http.get(f"/v1/pins/{release.pin_ids.id_of(row)}/related?limit=20").json()["items"]
        worst = [score for other, score in zip(near, scores, strict=True) if other != row][:20][-1]
        shares.append(np.mean([item["score"] >= worst - 1e-5 for item in items]))  # equally near is equally good
    return float(np.mean(shares))


def throughputs(options: argparse.Namespace, one: Server, reads: list[str]) -> dict[str, float]:
    """As fast as it goes: a route that does nothing, and related by pin, in turns."""
    ways = {"noop": [get("/livez")], "related": reads}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    busiest = 0.0
    for _ in range(options.rounds):
        for name, requests in ways.items():
            before = one.cpu_seconds()
            done = client(one, "closed", options.seconds, options.connections, {name: stream(requests, 0)})
            rates[name].append(done[name]["per_s"])
            costs[name].append((one.cpu_seconds() - before) / done[name]["count"] * 1e6)
            busiest = max(busiest, done["client"]["busy"])
    rate = {name: float(np.median(some)) for name, some in rates.items()}
    cost = {name: float(np.median(some)) for name, some in costs.items()}
    for name in ways:
        show(name, f"{rate[name]:9,.0f} requests/s{cost[name]:8.0f} us of processor each")
    show("related / noop", f"{rate['related'] / rate['noop']:.2f} of its throughput; the client was {busiest:.0%} busy")
    return {
        **{f"{name}_per_s": round(rate[name], 1) for name in ways},
        **{f"{name}_cpu_us": round(cost[name], 1) for name in ways},
        "related_to_noop": round(rate["related"] / rate["noop"], 3),
        "noop_to_related_cpu": round(cost["noop"] / cost["related"], 3),
        "client_busy": round(busiest, 2),
    }


def load(one: Server, seconds: float, **streams: dict[str, object]) -> dict[str, object]:
    """Latencies in milliseconds at given rates."""
    return client(one, "open", seconds, 64, streams)


def put_and_find(one: Server, http: httpx.Client, contents: list[dict], count: int) -> dict[str, object]:
    """Put pins one after the other; each must be found at once by its own content, and answer for itself."""
    found, times = 0, []
    plain = HTTPConnection(urlsplit(one.url).netloc)  # httpx would add most of a millisecond of its own
    for number in range(count):
        content = content_of(contents[number % len(contents)])
        body = json.dumps(content).encode()
        started = time.perf_counter()
        plain.request("PUT", f"/v1/pins/found-{number}", body)
        answer = plain.getresponse()
        answer.read()
        times.append((time.perf_counter() - started) * 1e3)
        if answer.status != 201:
            sys.exit(f"PUT: {answer.status} {answer.reason}")
        same = {name: content[name] for name in ("title", "annotations", "boards") if name in content}
        near = http.post("/v1/related", json={"queries": [same], "limit": 100}).json()["results"][0]["items"]
        own = http.get(f"/v1/pins/found-{number}/related").json()["items"]
        is_near = f"found-{number}" in [item["pin_id"] for item in near] or near[-1]["score"] > 1 - 1e-6  # its doubles
        found += is_near and bool(own)
    median, tail = np.quantile(times, [0.5, 0.99])
    show("put, one after the other", f"{median:9.2f} ms median{tail:9.2f} ms p99; found at once {found:,} of {count:,}")
    return {"put_ms": {"p50": round(median, 2), "p99": round(tail, 2)}, "found": found, "put": count}


def visibility(http: httpx.Client, two: Server, contents: list[dict], count: int) -> dict[str, object]:
    """Milliseconds from the answer to a PUT here to the first answer that knows the pin there."""
    lags = []
    with httpx.Client(base_url=two.url, timeout=60) as other:
        for number in range(count):
            http.put(f"/v1/pins/far-{number}", json=content_of(contents[number % len(contents)])).raise_for_status()
            started = time.perf_counter()
            while other.get(f"/v1/pins/far-{number}").status_code != 200:
                pass
            lags.append((time.perf_counter() - started) * 1e3)
    median, tail = np.quantile(lags, [0.5, 0.99])
    show("seen by the other replica", f"{median:9.2f} ms median{tail:9.2f} ms p99")
    return {"replica_ms": {"p50": round(median, 2), "p99": round(tail, 2), "max": round(max(lags), 2)}}


# --- requests ---


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n"


def put(number: int, contents: list[dict]) -> str:
    body = json.dumps(content_of(contents[number % len(contents)]))
    head = f"PUT /v1/pins/new-{number} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n{body}"


def content_of(pin: dict) -> dict:
    """What a client would send of a pin that is like this one."""
    names = ("title", "annotations", "description", "category", "language", "boards")
    return {name: pin[name][:64] if name == "boards" else pin[name] for name in names if pin.get(name)}


def stream(requests: list[str], rate: float) -> dict[str, object]:
    return {"requests": requests, "rate": rate}


# --- the server ---


class Server:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url, self._process = url, psutil.Process(process.pid)

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def server(home: Path) -> Iterator[Server]:
    """`pinsage serve` on a free port; ready when it is given out."""
    given = {"PINSAGE_WORKER": "none", "PINSAGE_DRAIN_SECONDS": "0"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PINSAGE_")}
    command = [Path(sys.executable).with_name("pinsage"), "serve", "--home", home, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**clean, **given}) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)), None)
            assert found, "the server did not start"
            while httpx.get(f"{found[0]}/readyz", timeout=60).status_code != 200:
                time.sleep(0.1)
            yield Server(process, found[0])
        finally:
            process.terminate()


def make_home(options: argparse.Namespace, scratch: Path) -> Path:
    """A home with a release of a generated world: one epoch, 128 dimensions."""
    world, run, home = scratch / "world", scratch / "run", scratch / "made"
    settings = ["train.epochs=1", "network.embed_dim=128"]
    if options.small:
        settings += ["network.hidden_dim=64", "train.batch_size=128"]
    for command in (
        ["generate", world, "--pins", options.pins, "--no-images"],
        ["prepare", world, "--run", run, *(part for each in settings for part in ("--set", each))],
        ["train", run],
        ["embed", run],
        ["index", run],
        ["publish", run, "--home", home],
    ):
        subprocess.run([Path(sys.executable).with_name("pinsage"), *map(str, command)], check=True, stdout=sys.stderr)
    return home


# --- the load ---


def client(one: Server, kind: str, seconds: float, connections: int, streams: dict[str, object]) -> dict:
    """Carry out a load in a process of its own; see parts/http_load.py."""
    plan = {"url": one.url, "kind": kind, "seconds": seconds, "connections": connections, "streams": streams}
    command = [sys.executable, Path(__file__).parent / "parts" / "http_load.py"]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    wrong = {status for name in streams for status in result[name]["statuses"] if not status.startswith("2")}
    if wrong:
        print(f"answers other than 2xx: {result}", file=sys.stderr)
    return result


def show(name: str, text: str) -> None:
    print(f"{name:38s}{text}", flush=True)


def show_latencies(title: str, result: dict) -> None:
    for name, seen in result.items():
        if name != "client":
            rate = f"{seen['per_s']:7,.0f}/s"
            show(f"{title}: {name}"[:50], f"{rate}{seen['p50']:9.2f} ms median{seen['p99']:9.2f} ms p99")


if __name__ == "__main__":
    main()
