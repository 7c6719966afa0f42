"""An answer told while it grows, so that a second try at it repeats nothing that was heard already.

What was told cannot be taken back. When a try breaks off, the next one is held back for as long as it says the same
again: where it goes on, the telling goes on. Only one that says something else is told from its beginning, and before
it that what was heard so far does not count.
"""

from __future__ import annotations

from typing import Literal

from overnight.agent.loop.telling import Listener

Kind = Literal["text", "thought"]
_MARKS: dict[Kind, str] = {"text": "\0t", "thought": "\0r"}
"""Stand in the record where one kind follows another."""


class Aloud:
    """The telling of one answer, over all tries at it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._told = ""
        """What was heard of the answer that counts, with marks."""
        self._said = ""
        """What this try has said."""
        self._held: list[tuple[Kind, str]] = []
        self._why: str | None = None
        """Why an earlier try has broken off, as long as this one says the same again."""
        self._kind: Kind | None = None

    async def piece(self, kind: Kind, delta: str) -> None:
        """More of it."""
        if not delta:
            return
        self._said += delta if kind == self._kind else _MARKS[kind] + delta
        self._kind = kind
        if self._why is None:
            self._told = self._said
            await self._tell(kind, delta)
        elif not self._told.startswith(self._said):
            self._held.append((kind, delta))
            await (self._go_on() if self._said.startswith(self._told) else self._begin_anew())
        else:
            self._held.append((kind, delta))

    async def broke_off(self, why: str) -> None:
        """This try comes to nothing; another follows."""
        if self._told:
            self._why = why
        else:
            await self._listener.broken_off(why)
        self._said, self._kind = "", None
        self._held.clear()

    async def end(self) -> None:
        """The answer is complete."""
        if self._why is not None and self._said != self._told:
            await self._begin_anew()

    async def _go_on(self) -> None:
        """All that was heard has been said again: what is new follows it."""
        kind, delta = self._held[-1]
        self._held.clear()
        self._why = None
        new = len(self._said) - len(self._told)
        self._told = self._said
        await self._tell(kind, delta[-new:])

    async def _begin_anew(self) -> None:
        held, why = list(self._held), self._why or ""
        self._held.clear()
        self._why = None
        self._told = self._said
        await self._listener.broken_off(why)
        for kind, delta in held:
            await self._tell(kind, delta)

    async def _tell(self, kind: Kind, delta: str) -> None:
        await (self._listener.text(delta) if kind == "text" else self._listener.thought(delta))
