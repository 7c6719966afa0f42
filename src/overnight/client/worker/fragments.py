"""Fragments for live display, on their way to a server: collected for a moment, joined, sent once, never again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Never, cast

import orjson
import structlog

from overnight.clock import Clock
from overnight.domain.worker import Worker
from overnight.errors import OvernightError
from overnight.ids import RunId
from overnight.ports.lease_desk import LeaseDesk
from overnight.ports.notifier import STREAM, Notice, Notifier, Subscription
from overnight.ports.remote import MOST_FRAGMENTS, Fragment

GATHER_S: Final = 0.1
"""How long a fragment waits for others: a call for every word would be too many."""
MOST_CHARACTERS: Final = 64 * 1024
"""What waits beyond that is left out: the event that closes the item has the whole text."""
REST_S: Final = 5.0
"""After a call that failed nothing is sent for so long."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Piece:
    run_id: RunId
    type: str
    turn: int
    item_id: str
    offset: int
    text: str


class Fragments:
    """A notifier that passes fragments on to the server too. All else stays within this process, as it was."""

    def __init__(
        self, near: Notifier, desk: LeaseDesk, clock: Clock, worker: Worker, token_of: Callable[[RunId], int | None]
    ) -> None:  # fmt: skip
        self._near = near
        self._desk = desk
        self._clock = clock
        self._worker = worker
        self._token_of = token_of
        self._pieces: list[_Piece] = []
        self._characters = 0
        self._some = asyncio.Event()

    def publish(self, notices: Sequence[Notice]) -> None:
        """See the port."""
        self._near.publish(notices)
        for notice in notices:
            if notice.delta is not None and notice.topic.startswith(STREAM):
                self._put(RunId(notice.topic.removeprefix(STREAM)), orjson.loads(notice.delta))

    def subscribe(self, *topics: str) -> Subscription:
        """See the port."""
        return self._near.subscribe(*topics)

    def _put(self, run_id: RunId, said: dict[str, Any]) -> None:
        data = said["data"]
        piece = _Piece(
            run_id,
            said["type"],
            said["turn"],
            data["item_id"],
            data["offset"],
            data["text"][:MOST_CHARACTERS],
        )
        self._characters += len(piece.text)
        if self._characters > MOST_CHARACTERS:
            self._forget()
            self._characters = len(piece.text)
        if self._pieces and _follows(self._pieces[-1], piece):
            self._pieces[-1].text += piece.text
        elif len(self._pieces) < MOST_FRAGMENTS:
            self._pieces.append(piece)
        self._some.set()

    def _forget(self) -> list[_Piece]:
        pieces, self._pieces, self._characters = self._pieces, [], 0
        self._some.clear()
        return pieces

    async def forward(self) -> Never:
        """Send what comes until cancelled. A call that fails is not made again."""
        while True:
            await self._some.wait()
            await self._clock.sleep(GATHER_S)
            found = [(piece, self._token_of(piece.run_id)) for piece in self._forget()]
            fragments = [_fragment(piece, token) for piece, token in found if token is not None]
            if not fragments:
                continue
            try:
                await self._desk.show(self._worker, fragments)
            except OvernightError as error:
                log.debug("fragments.lost", code=error.code, count=len(fragments))
                await self._clock.sleep(REST_S)
                self._forget()


def _follows(last: _Piece, piece: _Piece) -> bool:
    same = (last.run_id, last.type, last.item_id) == (piece.run_id, piece.type, piece.item_id)
    return same and piece.offset == last.offset + len(last.text)


def _fragment(piece: _Piece, token: int) -> Fragment:
    return Fragment(
        run_id=piece.run_id, token=token, type=cast("Any", piece.type), turn=piece.turn, item_id=piece.item_id,
        offset=piece.offset, text=piece.text,
    )  # fmt: skip
