"""What is said to Valkey, packed by hand: these few commands are sent thousands of times a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from overnight.domain.event import Recorded
from overnight.ports.notifier import STREAM

MOST_BODY: Final = 256 * 1024
"""A longer event goes without its body: readers take it from the log."""
FINAL_TTL_S: Final = 60
"""How long the stream of a run that has ended is kept."""
BY_LENGTH: Final = 8
"""Every process that sends marks what it sends with so many characters of its own."""
MOST_TOPICS: Final = 1000


def pack(*words: bytes) -> bytes:
    """One command."""
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def bulk(word: bytes) -> bytes:
    """One word of a command."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


class Keys:
    """The names of keys and channels, all beneath one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.wake: Final = f"{prefix}:wake".encode()
        """Channel of everything that is not one stream's: `Waking`."""

    def events(self, topic: str) -> bytes:
        """Key of the events of a stream, by its topic: `overnight:run:run_…:events`."""
        return f"{self._of(topic)}:events".encode()

    def deltas(self, topic: str) -> bytes:
        """Channel of its deltas."""
        return f"{self._of(topic)}:deltas".encode()

    def bell(self, by: str) -> bytes:
        """Key of the stream by which a process ends its own waiting read."""
        return f"{self._prefix}:bell:{by}".encode()

    def _of(self, topic: str) -> str:
        id = topic.removeprefix(STREAM)
        return f"{self._prefix}:{'session' if id.startswith('ses_') else 'run'}:{id}"


class Adding:
    """Packs the commands that add events to a stream, and give it its time to live."""

    def __init__(self, *, length: int, by: str) -> None:
        self._bound = (
            bulk(b"MAXLEN") + bulk(b"~") + bulk(b"%d" % length) + bulk(b"*") + bulk(b"by") + bulk(by.encode())
        )

    def events(self, key: bytes, events: Sequence[Recorded]) -> bytes:
        """One command for each event: fields `by`, `seq`, `type` and `body`."""
        head = b"*14\r\n$4\r\nXADD\r\n%b%b$3\r\nseq\r\n" % (bulk(key), self._bound)
        return b"".join(
            [
                b"%b%b$4\r\ntype\r\n%b$4\r\nbody\r\n%b"
                % (head, bulk(b"%d" % event.seq), bulk(event.type.encode()), bulk(_bounded(event.body)))
                for event in events
            ]
        )


def _bounded(body: bytes) -> bytes:
    return body if len(body) <= MOST_BODY else b""


def expire(key: bytes, seconds: int) -> bytes:
    """Let a key live so long from now on."""
    return pack(b"EXPIRE", key, b"%d" % seconds)


def publish(channel: bytes, payload: bytes) -> bytes:
    """Say it to all who listen now."""
    return pack(b"PUBLISH", channel, payload)


def waking(
    by: str, topics: Sequence[str], told: Sequence[tuple[str, bytes]], *, look_again: bool
) -> list[bytes]:
    """Payloads of the wake-up channel: topics to look at, deltas that are no stream's, and "look at everything"."""
    payloads = [
        orjson.dumps({"by": by, "wake": topics[start : start + MOST_TOPICS]})
        for start in range(0, len(topics), MOST_TOPICS)
    ]
    payloads += [orjson.dumps({"by": by, "told": [topic, delta.decode()]}) for topic, delta in told]
    return payloads + ([orjson.dumps({"by": by, "all": True})] if look_again else [])
