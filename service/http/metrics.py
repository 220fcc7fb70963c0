"""What Prometheus reads at /metrics. Each app has its own registry; labels are route templates, never ids.

Durations are histograms in seconds, states are gauges that are read from the catalogue when somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, ClassVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"})

Status = Callable[[], Mapping[str, Any]]


class Metrics:
    """The numbers of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Histogram(
            "pinsage_http_request_duration_seconds",
            "Time from the first byte read to the last byte sent.",
            ["method", "route", "status"],
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._embeddings = Histogram(
            "pinsage_embedding_duration_seconds",
            "Time to embed a new or changed pin, by step.",
            ["step"],
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._shed = Counter(
            "pinsage_shed_requests", "Requests turned away to keep the others fast.", ["reason"], registry=self.registry
        )

    def watch(self, status: Status) -> None:
        """Read the state gauges from `status` at every scrape."""
        self.registry.register(_StatusCollector(status))

    def count_shed(self, reason: str) -> None:
        """A request was turned away."""
        self._shed.labels(reason).inc()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template that matched."""
        self._requests.labels(method if method in METHODS else "other", route, str(status)).observe(seconds)

    def observe_embedding(self, timings: Mapping[str, float]) -> None:
        """A pin was embedded; seconds by step."""
        for step, seconds in timings.items():
            self._embeddings.labels(step).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self.registry)


class _StatusCollector(Collector):
    """Turns the service's status into gauges; what the status does not have is left out."""

    GAUGES: ClassVar = {
        "ready": "1 when the service answers from a release.",
        "index_vectors": "Pins in the index of the release.",
        "delta_vectors": "Pins put or changed since, searched exactly.",
        "live_pins": "Pins that came after the release.",
        "max_live_pins": "Pins that may come before the next reindex.",
        "live_bytes": "Memory that what came since the release takes, about.",
        "max_live_bytes": "Memory that it may take before the next reindex.",
        "live_fill_ratio": "Share of the room for what comes in that is taken; from 1 on new pins are refused.",
        "live_boards": "Boards that came after the release.",
        "follower_lag_entries": "Changes in Redis that this process has not applied yet.",
        "changes_age_seconds": "Time since this process last heard of the change log.",
        "quarantined_entries": "Damaged changes that were left out.",
        "store_available": "1 when Redis answered the last time.",
        "release_age_seconds": "Age of the release.",
    }

    def __init__(self, status: Status) -> None:
        self._status = status

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        for name, help_text in self.GAUGES.items():
            if isinstance(status.get(name), int | float):
                yield GaugeMetricFamily(f"pinsage_{name}", help_text, value=float(status[name]))
        release = status.get("release")
        yield InfoMetricFamily(
            "pinsage_release", "The release being served.", value={"release": str(release or "none")}
        )
        yield InfoMetricFamily("pinsage_build", "The program.", value={"version": version("pinsage")})


class RequestTimer:
    """ASGI middleware: measures each request under the template of the route that answered it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, start = 500, time.perf_counter()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self.metrics.observe_request(scope["method"], route, status, time.perf_counter() - start)
