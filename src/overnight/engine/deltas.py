"""Deltas: fragments for live display, redacted across their borders, published and never stored."""

from __future__ import annotations

from dataclasses import dataclass

from overnight.domain.event import canonical
from overnight.domain.redaction import RedactingStream, Redactor
from overnight.domain.run import Run
from overnight.domain.update import Delta
from overnight.ports.notifier import Notice, Notifier, stream_topic

MOST_ITEMS = 256
"""Items followed at once; beyond that the oldest is forgotten."""


@dataclass(slots=True)
class _Item:
    shown: int
    stream: RedactingStream


class DeltaFeed:
    """Publishes the deltas of one turn. Offsets count the characters shown, so that they agree with the whole item."""

    def __init__(self, *, notifier: Notifier, run: Run, turn: int, redactor: Redactor) -> None:
        self._notifier = notifier
        self._topic = stream_topic(run.id)
        self._head = {"run_id": run.id, "session_id": run.session_id, "turn": turn}
        self._redactor = redactor
        self._items: dict[str, _Item] = {}

    def publish(self, delta: Delta) -> None:
        """Show a fragment; an end that may be the start of a secret is held back until more comes."""
        item = self._items.get(delta.item_id)
        if item is None:
            item = self._follow(delta)
        text = item.stream.feed(delta.text)
        if not text:
            return
        data = {"item_id": delta.item_id, "offset": item.shown, "text": text}
        item.shown += len(text)
        body = canonical({"type": f"{delta.kind}.delta", **self._head, "data": data})
        self._notifier.publish([Notice(topic=self._topic, delta=body)])

    def _follow(self, delta: Delta) -> _Item:
        if len(self._items) >= MOST_ITEMS:
            del self._items[next(iter(self._items))]
        item = self._items[delta.item_id] = _Item(shown=delta.offset, stream=self._redactor.stream())
        return item
