"""From recorded events, and what is shown live in between, to Responses events: a state machine over one run.

A pure function of the log: whoever feeds the same events gets the same steps with the same numbers. To go on at a
position, feed what lies before it and call `resume`; see `Position` for what a number holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from overnight.domain.event import FINAL_TYPES, Recorded
from overnight.wire.responses import document
from overnight.wire.responses.calls import CALLS
from overnight.wire.responses.document import Head
from overnight.wire.responses.live import Piece, Shown, Waiting
from overnight.wire.responses.names import Names
from overnight.wire.responses.position import ADDED, LIVE, MOST_BEHIND, PART, Kind, Position
from overnight.wire.responses.speech import PREFIX, Speech, Words

Step = dict[str, Any]
"""One Responses event."""
EXTENSION: Final = "overnight.event"
"""The type that carries an event for which the schema has no words, as it is, in `event`."""
FINISH: Final = 12
"""Slot of the last step of all."""
_EXTENSION_SLOT: Final = 8
_FIRST: Final = 2
"""The first event's own steps come behind `response.created` and `response.queued`."""
_SHOWN: Final[Mapping[str, Kind]] = {"message.delta": "message", "reasoning.delta": "reasoning"}
_SPOKEN: Final[Mapping[str, Kind]] = {"message.completed": "message", "reasoning.completed": "reasoning"}
_TURN_ENDS: Final = frozenset({"turn.started", "turn.completed", "turn.failed", "turn.abandoned"})
_TORN: Final = frozenset({"turn.failed", "turn.abandoned"})
_ENDED: Final = "end_turn"
_EDGES: Final = _TURN_ENDS | FINAL_TYPES
"""Behind these nothing of an earlier turn goes on."""
MAPPED: Final = ("run.started", *_SPOKEN, *CALLS, *sorted(_EDGES))
"""Types of the events that matter to the state: to find out where things stand, the others need not be fed."""
_SAID: Final = {"run.queued", *MAPPED} - _TURN_ENDS - {"approval.resolved", "approval.expired"}
"""Those that say everything there is to say in the schema's own words."""


class Mapper:
    """One run's log in, steps out. `extensions`: what cannot be mapped is carried as it is, rather than left out."""

    def __init__(self, head: Head, *, extensions: bool = False) -> None:
        self._head = head
        self._extensions = extensions
        self._steps: list[Step] = []
        self._base = 0
        self._before = Position(0, 0)
        """What was shown when the present event came: its steps, told again, start from there."""
        self._names = Names()
        self._live: Shown | None = None
        self._waiting = Waiting()

    @property
    def seq(self) -> int:
        """The last event that was fed."""
        return self._names.seq

    def feed(self, event: Recorded) -> list[Step]:
        """What the next event becomes: all but the last step of a run, which the response itself belongs to."""
        self._before = self._shown(0)
        self._names.seq, self._steps, self._base = event.seq, [], 0
        if event.seq == 1:
            self._begin()
        if event.type in _EVENTS:
            self._read(event)
        if self._extensions and event.type not in _SAID:
            self._say(_EXTENSION_SLOT, (EXTENSION, {"event": orjson.Fragment(event.body)}))
        return self._steps

    def show(self, fragment: bytes) -> list[Step]:
        """What a fragment shows, if anything; see `live`."""
        body = orjson.loads(fragment)
        kind = _SHOWN.get(body["type"])
        self._steps, self._base = [], 0
        if kind is not None:
            data = body["data"]
            id = self._names.wanted(PREFIX[kind], data["item_id"], body["turn"])
            if not self._names.is_used(id):
                self._piece(Piece(kind, id, data["offset"], data["text"]))
        return self._steps

    def finish(self, type: str, response: Mapping[str, object]) -> Step:
        """The last step, behind what the final event became."""
        return _step(Position(self.seq, FINISH), (type, {"response": response}))

    def skip(self, seq: int) -> None:
        """The events up to there that were not fed matter to nothing."""
        self._names.seq = max(self._names.seq, seq)

    def resume(self, at: Position) -> None:
        """Everything up to event `at.whole` has been fed, and the reader has what `at` says it has."""
        if at.kind is not None:
            index, part = self._names.next() - at.behind, at.slot != ADDED
            self._live = Shown(at.kind, None, index, length=at.shown, text=None, part=part)

    def _read(self, event: Recorded) -> None:
        body = orjson.loads(event.body)
        names, data = self._names, body["data"]
        names.turn, names.attempt = body["turn"] or names.turn, body["attempt"] or names.attempt
        if event.type in _SPOKEN:
            self._spoken(
                _SPOKEN[event.type], names.wanted(PREFIX[_SPOKEN[event.type]], data["item_id"]), data
            )
        elif event.type in CALLS:
            self._say_all(0, CALLS[event.type](names, data))
        elif event.type in _EDGES:
            self._edge(clean=event.type not in _TORN and data.get("stop_reason", _ENDED) == _ENDED)
        else:
            self._lifecycle(0, "response.in_progress", "in_progress")

    def _begin(self) -> None:
        self._lifecycle(0, "response.created", "queued")
        self._lifecycle(1, "response.queued", "queued")
        self._base = _FIRST

    def _lifecycle(self, slot: int, type: str, status: str) -> None:
        self._say(slot, (type, {"response": document.early(self._head, status)}))

    def _spoken(self, kind: Kind, wanted: str, data: Mapping[str, Any]) -> None:
        text, live = str(data["text"]), self._live
        text = text.strip() if kind == "reasoning" else text
        self._waiting.drop(wanted)
        if live is not None and live.kind == kind and live.id in {wanted, None}:
            self._live = None
            speech, rest = Speech(kind, self._names.use(wanted), live.index), live.rest(text)
        else:
            live = None
            speech, rest = Speech(kind, self._names.unique(wanted), self._names.next()), text
            self._say(0, speech.added())
        if live is None or not live.part:
            self._say(1, speech.part())
        if rest:
            self._say(2, speech.delta(rest))
        self._say_all(3, speech.ends(text))

    def _piece(self, piece: Piece) -> None:
        if self._live is not None and self._live.is_mine(piece):
            self._more(self._live, piece)
            return
        self._waiting.take(piece)
        if self._live is None and (found := self._waiting.next()) is not None:
            first, skipped = found
            self._live = Shown(first.kind, first.id, self._names.next(), skipped=skipped)
            self._say(ADDED, Speech(first.kind, first.id, self._live.index).added())
            self._more(self._live, first)

    def _more(self, live: Shown, piece: Piece) -> None:
        speech = Speech(live.kind, piece.id, live.index)
        if not live.part:
            live.part = True
            self._say(PART, speech.part())
        if text := live.take(piece):
            self._say(LIVE, speech.delta(text))

    def _edge(self, *, clean: bool) -> None:
        """A turn begins, or ends. One that was torn off leaves a place for what may have been shown of it.

        What is being shown will not be completed. A reader who has not seen it begin is told nothing of it.
        """
        live, self._live = self._live, None
        self._names.forget_calls()
        self._waiting.clear()
        if not clean and live is None:
            self._names.next()
        if live is not None and live.id is not None and live.text is not None:
            speech = Speech(live.kind, self._names.use(live.id), live.index)
            self._say(0, speech.breaks_off("".join(live.text)))

    def _say_all(self, slot: int, words: Iterable[Words]) -> None:
        for number, one in enumerate(words, slot):
            self._say(number, one)

    def _say(self, slot: int, words: Words) -> None:
        kept = self._before
        within = Position(self.seq, slot + self._base, kept.kind, kept.shown, kept.behind)
        at = within if slot < ADDED else self._shown(slot)
        self._steps.append(_step(at, words))

    def _shown(self, slot: int) -> Position:
        live = self._live
        if live is None:
            return Position(self.seq, slot)
        behind = min(self._names.count - live.index - 1, MOST_BEHIND)
        return Position(self.seq, slot, live.kind, live.length, behind)


_EVENTS: Final = frozenset(MAPPED)


def _step(at: Position, words: Words) -> Step:
    type, members = words
    return {"type": type, "sequence_number": at.number, **members}
