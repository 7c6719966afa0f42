"""Items while they are being said: what fragments bring, until the log has the whole.

Fragments may be lost, come late, twice, or while another item is still shown. One item is shown at a time, from its
first character and without a hole; where that cannot be, the rest waits for the log.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from overnight.domain.text import plain
from overnight.wire.responses.position import MOST_SHOWN, Kind

MOST_WAITING: Final = 4
"""Items whose fragments are kept while another one is shown."""


@dataclass(slots=True)
class Piece:
    """A fragment as it came; `id` is the item's id in the response."""

    kind: Kind
    id: str
    offset: int
    text: str


@dataclass(slots=True)
class Shown:
    """The item that is being shown. `text` None: it began before this reader came, who already had `length` of it."""

    kind: Kind
    id: str | None
    index: int
    length: int = 0
    skipped: int = 0
    """Characters at its head that were not shown: the blanks before reasoning, which is stripped in the end."""
    text: list[str] | None = field(default_factory=list)
    part: bool = False
    """Whether its text has been opened."""
    stopped: bool = False
    """There was a hole, or something that the log will show otherwise."""

    def is_mine(self, piece: Piece) -> bool:
        """Whether the piece belongs to it; of an item that this reader did not see begin, by where it goes on."""
        if self.id is not None:
            return self.id == piece.id
        end = piece.offset + len(piece.text)
        return self.kind == piece.kind and 0 < piece.offset <= self.length < end

    def take(self, piece: Piece) -> str:
        """What the piece adds."""
        self.id = piece.id
        at = self.skipped + self.length
        new = piece.text[at - piece.offset :] if piece.offset <= at else ""
        if piece.offset > at or self.length + len(new) > MOST_SHOWN or plain(new) != new:
            self.stopped = True
        if self.stopped:
            return ""
        self.length += len(new)
        if self.text is not None:
            self.text.append(new)
        return new

    def rest(self, whole: str) -> str:
        """What is missing of the whole text; nothing where something else was shown, for what is shown stays."""
        if self.text is not None and not whole.startswith("".join(self.text)):
            return ""
        return whole[self.length :]


@dataclass(slots=True)
class _Waiting:
    kind: Kind
    text: str = ""


class Waiting:
    """Fragments of items that cannot be shown yet: another one is, or nothing but blanks has come."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, _Waiting] = OrderedDict()

    def take(self, piece: Piece) -> None:
        """Keep it, unless the item's beginning is missing: then forget the item."""
        item = self._items.get(piece.id)
        if item is None:
            if piece.offset:
                return
            item = self._items[piece.id] = _Waiting(piece.kind)
            while len(self._items) > MOST_WAITING:
                self._items.popitem(last=False)
        if piece.offset > len(item.text) or len(item.text) > MOST_SHOWN:
            self.drop(piece.id)
            return
        item.text += piece.text[len(item.text) - piece.offset :]

    def drop(self, id: str) -> None:
        """The item is complete, or will never be."""
        self._items.pop(id, None)

    def clear(self) -> None:
        """No item will be completed any more."""
        self._items.clear()

    def next(self) -> tuple[Piece, int] | None:
        """The first item that has more than blanks, taken out: all of it so far, and how many characters to skip.

        What is nothing but blanks may never become an item.
        """
        for id, item in self._items.items():
            if text := item.text.lstrip():
                del self._items[id]
                skipped = len(item.text) - len(text) if item.kind == "reasoning" else 0
                return Piece(item.kind, id, 0, item.text), skipped
        return None
