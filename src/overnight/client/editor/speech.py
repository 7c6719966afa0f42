"""What an agent says, piece by piece and as a whole: each character told once. Pure."""

from __future__ import annotations

from typing import Final

from overnight.domain.text import plain

KEPT: Final = 131_072
"""Characters of a turn's printed output that are remembered; an answer made of it has at most half as many bytes."""


class Speech:
    """The messages of one attempt at a turn. Pieces are for display and may be lost; the whole text never is."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._printed = ""

    def piece(self, item: str, offset: int, text: str) -> str:
        """What of a piece is new. One that does not follow on what was told waits for the whole."""
        told = self._told.get(item, "")
        if offset > len(told):
            return ""
        new = plain(text[len(told) - offset :])
        self._told[item] = told + new
        return new

    def whole(self, item: str, text: str) -> str:
        """What of a finished message has not been told, piece by piece or as the output that it is made of."""
        told = self._told.pop(item, None)
        if told is None:
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
