"""Joins the chunks of what an agent says and thinks to whole items. Pure."""

from __future__ import annotations

from typing import Literal

from overnight.domain.update import Delta, Message, Reasoning, Update

Kind = Literal["message", "reasoning"]


class Speech:
    """One item at a time: it ends when another kind of thing, or another message, begins."""

    def __init__(self) -> None:
        self.last = ""
        """The text of the last whole message."""
        self.last_piece = ""
        """The last piece of a message."""
        self._kind: Kind = "message"
        self._id: object = None
        self._pieces: list[str] = []
        self._length = 0
        self._count = 0

    def chunk(self, kind: Kind, id: object, text: str) -> list[Update]:
        """A piece of an item; `id` is the agent's own name of the message, where it gives one."""
        changed = self._pieces and (kind != self._kind or (id is not None and id != self._id))
        updates = self.end() if changed else []
        if not text:
            return updates
        if not self._pieces:
            self._kind, self._id = kind, id
            self._count += 1
        self.last_piece = text if kind == "message" else self.last_piece
        delta = Delta(kind=kind, item_id=self._item, offset=self._length, text=text)
        self._pieces.append(text)
        self._length += len(text)
        return [*updates, delta]

    def end(self) -> list[Update]:
        """The item that was being said, whole; nothing where there is none."""
        if not self._pieces:
            return []
        text, item = "".join(self._pieces), self._item
        self._pieces, self._length = [], 0
        if not text.strip():
            return []
        if self._kind == "reasoning":
            return [Reasoning(item_id=item, text=text.strip())]
        self.last = text
        return [Message(item_id=item, text=text)]

    @property
    def _item(self) -> str:
        return f"{self._kind}.{self._count}"
