"""What an agent says, piece by piece and as a whole: each character told once. Pure."""

from __future__ import annotations

from typing import Final

from overnight.domain.text import plain

KEPT: Final = 131_072
"""Characters of a turn's printed output that are remembered; an answer made of it has at most half as many bytes."""


class Speech:
    """The messages of one attempt at a turn. Pieces are for display and may be lost; the whole text never is.

    Pieces overtake what is recorded meanwhile. So only one message at a time is told piece by piece, and another one
    not before that is whole: whatever lies between the two has its place between them.
    """

    def __init__(self) -> None:
        self._live: str | None = None
        self._told = ""
        """What of the live message was told."""
        self._passed: set[str] = set()
        """Messages whose beginning was not told when it came, so that their pieces are not told either."""
        self._whole: dict[str, str] = {}
        """Messages that have been told to their end."""
        self._printed = ""

    def piece(self, item: str, offset: int, text: str) -> str:
        """What of a piece is new; one that cannot be told now waits for the whole message."""
        if self._live is None and offset == 0 and item not in self._passed:
            self._live = item
        if item != self._live:
            self._passed.add(item)
            return ""
        if offset > len(self._told):
            return ""
        new = plain(text[len(self._told) - offset :])
        self._told += new
        return new

    def whole(self, item: str, text: str) -> str:
        """What of a finished message has not been told, piece by piece or as the output that it is made of.

        The same message may be recorded once more when the server was killed at the very end of a turn.
        """
        if self._whole.get(item) == text:
            return ""
        self._whole[item] = text
        live, told = self._live, self._told
        self._live, self._told = None, ""
        if item != live:
            return "" if self._was_printed(text) else text
        return text.removeprefix(told) if text.startswith(told) else text[len(told) :]

    def printed(self, text: str, *, whole: bool) -> str:
        """What a plain program printed. `whole` False: some of it is only in the output file."""
        self._printed = (self._printed + text)[-KEPT:] if whole else ""
        return text

    def _was_printed(self, text: str) -> bool:
        wanted = text.strip()
        if not wanted or not self._printed.rstrip().endswith(wanted):
            return False
        # The same words a second time are another message.
        self._printed = ""
        return True
