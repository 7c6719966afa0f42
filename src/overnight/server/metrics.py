"""What the server counts about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from overnight.server.samples import Histogram, Sample

_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Meters:
    """Counters of one server process. Streams are counted apart from requests, whose time would mean nothing."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds = Histogram(
            "overnight_http_request_seconds", "Time to answer requests, streams left out", _BOUNDS
        )
        self.streams_opened = 0
        self.streams_dropped = 0
        self.frames_bytes = 0

    def request(self, method: str, status: int, seconds: float) -> None:
        """One request has been answered (status 0: the client left before)."""
        self._requests[method if method in _METHODS else "other", status] += 1
        self._seconds.observe(seconds)

    def samples(self, *, open_streams: int) -> Iterable[Sample]:
        """All of it, for /metrics."""
        for (method, status), count in sorted(self._requests.items()):
            yield Sample(
                name="overnight_http_requests_total", kind="counter", help="Requests answered", value=count,
                labels={"method": method, "status": str(status)},
            )  # fmt: skip
        yield from self._seconds.samples()
        yield Sample(name="overnight_streams_open", kind="gauge", help="Open streams", value=open_streams)
        yield Sample(
            name="overnight_streams_opened_total",
            kind="counter",
            help="Streams opened",
            value=self.streams_opened,
        )
        yield Sample(
            name="overnight_streams_dropped_total", kind="counter", help="Readers dropped because they did not keep up",
            value=self.streams_dropped,
        )  # fmt: skip
        yield Sample(
            name="overnight_stream_bytes_total",
            kind="counter",
            help="Bytes of frames sent",
            value=self.frames_bytes,
        )
