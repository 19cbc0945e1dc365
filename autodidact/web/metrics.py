"""What a monitoring system reads at `GET /metrics`, as Prometheus' text format 0.0.4.

Each app has a registry of its own. Counters and gauges are read when asked for: from the
generator's `figures()`, its status, the learner's row and the places for replies. Histograms are
fed by the generator through its attribute `observe`. A generator without `figures` or `observe`
simply has none of these. HTTP responses are counted by route template (`/c/{conversation_id}`,
never the address that was asked for) and status, so that labels are bounded; nothing of what people
write is ever in a name or a label.

Names follow https://prometheus.io/docs/practices/naming/: seconds and bytes, `_total` for counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autodidact import __version__
from autodidact.types.protocols import Generator, Observable, TellsFigures
from autodidact.types.status import LearnerStatus
from autodidact.web.events import Snapshot
from autodidact.web.limits import Places

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PREFIX = "autodidact_"
LEARNER_STATES = (
    "offline", "idle", "fetching", "preparing", "training", "measuring", "publishing",
)  # fmt: skip
OTHER = "other"
"""Stands for any other state of the learner, and for addresses without a route."""

FIGURES = {
    "requests_total": "Requests for a reply that were taken on.",
    "tokens_total": "Tokens generated.",
    "prompt_tokens_total": "Prompt tokens computed.",
    "reused_tokens_total": "Prompt tokens that earlier requests had computed.",
    "cancelled_total": "Replies that were stopped before their end.",
    "refused_total": "Requests that the generator ended because their turn did not come in time.",
    "steps_total": "Passes of the model that generated tokens, one token a running reply.",
    "reloads_total": "Versions that went live.",
    "rejected_total": "Versions that did not load.",
    "reload_seconds_sum": "Seconds spent loading versions.",
    "running": "Replies in the batch.",
    "waiting": "Requests that wait for their turn.",
    "cache_bytes": "Memory of the keys and values of running replies.",
    "prefix_bytes": "Memory of the keys and values that are kept for later prompts.",
    "versions_in_memory": "Versions held ready.",
}
"""What is known of the generator's figures. Others are told too, under their name alone."""

HISTOGRAMS = {
    "first_token_seconds": (
        "From a request's arrival to its first token.",
        (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    ),
    "token_gap_seconds": (
        "Between two tokens of a reply.",
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    ),
    "reply_seconds": (
        "From a request's arrival to the end of its reply.",
        (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
    ),
    "queue_seconds": (
        "What a request waited for its turn.",
        (0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
    ),
}


class Metrics:
    """The registry of one app. `look` gives the state of things; it may block for milliseconds."""

    def __init__(self, generator: Generator, look: Callable[[], Snapshot], places: Places) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_State(generator, look, places))
        ProcessCollector(registry=self._registry)
        self._histograms = {
            name: Histogram(PREFIX + name, help_, buckets=buckets, registry=self._registry)
            for name, (help_, buckets) in HISTOGRAMS.items()
        }
        self._responses = Counter(
            PREFIX + "http_responses_total",
            "HTTP responses by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        if isinstance(generator, Observable):
            generator.observe = self.observe

    def observe(self, name: str, value: float) -> None:
        """Count one measurement. An unknown name counts nowhere: its sender, the generator's
        thread, must not fail by it."""
        if name in self._histograms:
            self._histograms[name].observe(value)

    def responded(self, route: str, status: int) -> None:
        """Count a response. `route` is a template or OTHER."""
        self._responses.labels(route, str(status)).inc()

    def render(self) -> bytes:
        """Everything, as `CONTENT_TYPE`. Blocks for as long as `look` does."""
        return generate_latest(self._registry)


class _State(Collector):
    """Reads the present state when Prometheus asks."""

    def __init__(self, generator: Generator, look: Callable[[], Snapshot], places: Places) -> None:
        self._generator = generator
        self._look = look
        self._places = places
        self._started = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        now = self._look()
        if isinstance(self._generator, TellsFigures):
            for name, value in self._generator.figures().items():
                if name != "live":
                    yield _figure(name, value)
        yield from self._server(now)
        yield from _learner(now.learner)

    def _server(self, now: Snapshot) -> Iterator[Metric]:
        model = now.model
        about = {"version": __version__, "base": model.name}
        yield InfoMetricFamily(PREFIX + "build", "This program and its base model.", about)
        for name, help_, value in (
            ("ready", "1 while a model answers.", model.state == "ready"),
            ("live_version", "The version that answers; 0 is the untouched base.", model.live),
            ("live_since_seconds", "Unix time at which it began to.", model.since),
            ("fallback", "1 where the small bundled model stands in.", model.fallback),
            ("places", "Replies that may run or wait at a time.", self._places.limit),
            ("places_taken", "Replies that run or wait now.", self._places.taken),
            ("uptime_seconds", "Since the server began.", time.monotonic() - self._started),
        ):
            if value is not None:  # no version where there are none
                yield GaugeMetricFamily(PREFIX + name, help_, value=float(value))


def _figure(name: str, value: float) -> Metric:
    help_ = FIGURES.get(name, name.replace("_", " ") + ".")
    stem, _, kind = name.rpartition("_")
    if kind in ("total", "sum"):
        return CounterMetricFamily(PREFIX + stem, help_, value=value)
    return GaugeMetricFamily(PREFIX + name, help_, value=value)


def _learner(status: LearnerStatus) -> Iterator[Metric]:
    """The learner's own words: its state (one of a fixed set), cycle and queue, where it tells."""
    state = status.state
    states = GaugeMetricFamily(
        PREFIX + "learner_state", "1 for what the learner does now.", labels=("state",)
    )
    for known in LEARNER_STATES:
        states.add_metric((known,), float(state == known))
    states.add_metric((OTHER,), float(state not in LEARNER_STATES))
    yield states
    for value, name, help_ in (
        (status.cycle, "learner_cycle", "The cycle that runs, or ran last."),
        (status.queued, "learner_queued_documents", "Documents that wait to be learned."),
    ):
        if value is not None:
            yield GaugeMetricFamily(PREFIX + name, help_, value=float(value))


class Counting:
    """ASGI middleware, the outermost: counts every response, those to refused requests too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def counted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._metrics.responded(template(scope), message["status"])
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except Exception:
            if not begun:  # answered by starlette's ServerErrorMiddleware, which is around us
                self._metrics.responded(template(scope), 500)
            raise


def template(scope: Scope) -> str:
    """The route that answers, as it was declared; OTHER where none does."""
    path = getattr(scope.get("route"), "path", None)
    if path is None and "endpoint" in scope:  # a mounted app: all that starlette leaves is its root
        path = scope.get("root_path")
    return path if isinstance(path, str) and path else OTHER
