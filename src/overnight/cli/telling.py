"""The events of a run as lines, each thing told once. Pure.

Some facts stand in two events: what a plain program prints is also its answer, and a work log that grew is also a file
that was written. Both events are true and both stay in the log; a person needs to read the words once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

from overnight.cli.lines import Line, lines
from overnight.domain.text import plain

KEPT: Final = 131_072
"""Characters of a turn's output that are remembered; an answer has at most half as many bytes."""
_SHORT: Final = 1024
"""A message of up to this length counts as told only when it stood on lines of its own."""
_OTHER: Final = {"file.written": "log.updated", "log.updated": "file.written"}


class Telling:
    """Fed with the events of one run in their order, from any of them on.

    Whatever was not told by an earlier event that was fed is told in full; nothing is left out on suspicion.
    """

    def __init__(self) -> None:
        self._attempt: tuple[object, object] = (None, None)
        self._said: deque[str] = deque()
        self._size = 0
        self._changes: Counter[tuple[str, str, int]] = Counter()

    def lines(self, event: Mapping[str, Any]) -> list[Line]:
        """The lines of `event`; none where they have been told."""
        kind, data = str(event["type"]), event.get("data") or {}
        attempt = (event.get("turn"), event.get("attempt"))
        if attempt != self._attempt and event.get("turn") is not None:
            self._attempt = attempt
            self._forget()
            self._changes.clear()
        if kind == "output.recorded" and data.get("stream") == "stdout":
            self._hear(data)
            return lines(event)
        if kind == "message.completed":
            return [] if self._heard(data) else lines(event)
        return [] if kind in _OTHER and self._told(kind, data) else lines(event)

    def _hear(self, data: Mapping[str, Any]) -> None:
        text = plain(str(data.get("text", "")))
        self._said.append(text)
        self._size += len(text)
        while self._size - len(self._said[0]) > KEPT:
            self._size -= len(self._said.popleft())
        if data.get("truncated_bytes"):
            # What stays in the output file has been told to nobody.
            self._forget()

    def _heard(self, data: Mapping[str, Any]) -> bool:
        text = plain(str(data.get("text", ""))).strip()
        if not text or data.get("truncated_bytes"):
            return False
        said = "".join(self._said).rstrip()
        if not said.endswith(text):
            return False
        before = said[: -len(text)].rstrip(" \t")
        if len(text) <= _SHORT and before and not before.endswith("\n"):
            return False
        # The same words a second time are another message.
        self._forget()
        return True

    def _told(self, kind: str, data: Mapping[str, Any]) -> bool:
        """Whether the other kind of event has told the same change; each telling answers for one."""
        if data.get("removed_lines") or data.get("added_lines") is None:
            return False
        path, added = str(data.get("path")), int(data["added_lines"])
        told = (_OTHER[kind], path, added)
        if self._changes[told] > 0:
            self._changes[told] -= 1
            return True
        self._changes[kind, path, added] += 1
        return False

    def _forget(self) -> None:
        self._said.clear()
        self._size = 0
