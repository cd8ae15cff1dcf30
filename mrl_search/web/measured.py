"""What a server counts: requests and their times, for Prometheus."""

import time
from collections.abc import MutableMapping
from functools import lru_cache, partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mrl_search.web.guard import App, Receive, Scope, Send
from mrl_search.web.served import Served

__all__ = ["Measured"]

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # s


class Measured:
    """ASGI: counts and times the requests to `app`; `text()` is what Prometheus reads."""

    def __init__(self, app: App, served: dict[str, Served]) -> None:
        self.app, self.served = app, served
        self.registry = CollectorRegistry()
        self._series = lru_cache(maxsize=1000)(self._labelled)
        labels = ("method", "route", "status")
        self._requests = Counter(
            "mrl_search_requests", "Requests answered.", labels, registry=self.registry
        )
        self._seconds = Histogram(
            "mrl_search_request_seconds", "Seconds until the end of an answer.", ("route",),
            buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        for name, about in (("items", "Living items."), ("generation", "Of the index.")):
            gauge = Gauge(f"mrl_search_{name}", about, ("index",), registry=self.registry)
            for index, one in served.items():
                gauge.labels(index).set_function(partial(_value, one, name))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), [500]

        async def noted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            requests, seconds = self._series(scope["method"], route, status[0])
            requests.inc()
            seconds.observe(time.perf_counter() - start)

    def _labelled(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, route, str(status)), self._seconds.labels(route)

    def text(self) -> bytes:
        """All counts, in the text format of Prometheus."""
        return generate_latest(self.registry)


def _value(one: Served, name: str) -> float:
    return float(len(one.index) if name == "items" else one.index.generation)
