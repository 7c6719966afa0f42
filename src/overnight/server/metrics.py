"""What one server process counts about itself and the work in it, in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from overnight.domain.values import Usage
from overnight.ports.meter import Relayed

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_TURNS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# When each counter was born would double the page.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Meters:
    """Counters of one server process. A stream counts as answered when it begins: how long it lasts means nothing."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "overnight_http_requests", "Requests answered", ["method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "overnight_http_request_seconds", "Time to answer requests; of streams, until they begin",
            buckets=_FAST, registry=registry,
        )  # fmt: skip
        self._opened = Counter("overnight_streams_opened", "Streams opened", registry=registry)
        self._dropped = Counter(
            "overnight_streams_dropped", "Readers dropped because they did not keep up", registry=registry
        )
        self._replaced = Counter(
            "overnight_connections_replaced", "Connections whose client connected anew", registry=registry
        )
        self._refused = Counter(
            "overnight_connections_refused", "Connections refused because of a limit", registry=registry
        )
        self._bytes = Counter("overnight_stream_bytes", "Bytes of frames sent", registry=registry)
        self._delivery = Histogram(
            "overnight_delivery_seconds", "From when events are known here to when a reader has been sent them",
            buckets=_FAST, registry=registry,
        )  # fmt: skip
        self._writes = Histogram(
            "overnight_write_seconds", "Time until what the holder of a run writes is durable",
            buckets=_FAST, registry=registry,
        )  # fmt: skip
        self._turns = Histogram(
            "overnight_turn_seconds", "Length of turns that ended", ["backend", "outcome"],
            buckets=_TURNS, registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "overnight_tokens", "Tokens used; input includes cached, output includes reasoning",
            ["backend", "kind"], registry=registry,
        )  # fmt: skip
        self._relayed = Counter(
            "overnight_notices", "Notices between servers: published (taken by Valkey or Postgres), failed (refused, "
            "or lost on the way), dropped (never sent), heard, missed; and connections that came back (reconnected)",
            ["what"], registry=registry,
        )  # fmt: skip
        self._relay_connected = Gauge(
            "overnight_notifier_connected",
            "Whether notices between servers are carried now",
            ["carrier"],
            registry=registry,
        )
        self._cost = Counter("overnight_cost_usd", "Cost where it is known", ["backend"], registry=registry)
        self.streams_dropped = 0

    def request(self, method: str, status: int, seconds: float) -> None:
        """One request has been answered (status 0: the client left before)."""
        self._requests.labels(method if method in _METHODS else "other", str(status)).inc()
        self._seconds.observe(seconds)

    def stream_opened(self) -> None:
        """A client has attached."""
        self._opened.inc()

    def stream_dropped(self) -> None:
        """A reader did not keep up."""
        self.streams_dropped += 1
        self._dropped.inc()

    def connection_replaced(self) -> None:
        """A client has taken the place of an earlier connection of its own."""
        self._replaced.inc()

    def connection_refused(self) -> None:
        """A limit of connections was reached."""
        self._refused.inc()

    def sent(self, size: int) -> None:
        """So many bytes of frames have been sent."""
        self._bytes.inc(size)

    def delivered(self, seconds: float) -> None:
        """A reader has been sent events, so long after they were known here."""
        self._delivery.observe(seconds)

    def written(self, seconds: float) -> None:
        """As `ports.meter.Meter` promises."""
        self._writes.observe(seconds)

    def relayed(self, what: Relayed, count: int) -> None:
        """As `ports.meter.RelayMeter` promises."""
        self._relayed.labels(what).inc(count)

    def relay_connected(self, carrier: str, connected: bool) -> None:
        """As `ports.meter.RelayMeter` promises."""
        self._relay_connected.labels(carrier).set(connected)

    def turn_settled(self, backend: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        """As `ports.meter.Meter` promises."""
        self._turns.labels(backend, outcome).observe(seconds)
        if usage is None:
            return
        for kind in ("input", "cached", "output", "reasoning"):
            self._tokens.labels(backend, kind).inc(max(0, getattr(usage, kind)))
        if usage.cost_usd:
            self._cost.labels(backend).inc(max(0.0, usage.cost_usd))

    def page(self, gauges: Iterable[Reading]) -> bytes:
        """All of it, with how things stand at this moment."""
        now = CollectorRegistry()
        for reading in gauges:
            reading.put(now)
        return generate_latest(self._registry) + generate_latest(now)


class Reading:
    """How something stands at this moment: one value, or one for each set of label values."""

    def __init__(
        self,
        name: str,
        help: str,
        values: float | Mapping[tuple[str, ...], float],
        labels: tuple[str, ...] = (),
    ) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self._values = values if isinstance(values, Mapping) else {(): values}

    def put(self, registry: CollectorRegistry) -> None:
        """Make it part of a page."""
        gauge = Gauge(self._name, self._help, self._labels, registry=registry)
        for labels, value in self._values.items():
            (gauge.labels(*labels) if labels else gauge).set(value)
