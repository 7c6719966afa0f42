"""Logs to map: of real agents from their captured output, and made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from overnight.backends.claude.codec import ClaudeCodec
from overnight.backends.codex.codec import CodexCodec
from overnight.backends.process.program import Codec, Exit
from overnight.domain.event import FINAL_TYPES, Draft, Recorded, encode
from overnight.domain.redaction import Redactor
from overnight.domain.update import Delta
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.interpreter import Interpreter
from overnight.wire.responses import MAPPED, Head, Mapper, Position, Step
from overnight.wire.responses.document import early

RUN = "run_00000000000000000000000000"
SESSION = "ses_00000000000000000000000000"
HEAD = Head(
    id=RUN,
    created_at=1_790_000_000.25,
    model="agent/model",
    session_id=SESSION,
    effort=None,
    labels={"team": "x"},
)
CAPTURED = Path(__file__).parents[1] / "backends" / "golden"
Entry = Recorded | bytes
"""A recorded event, or a fragment as it is published."""


def log(*drafts: Draft, first: int = 1) -> list[Recorded]:
    """The drafts, recorded."""
    at = 1_790_000_000_000
    return [
        Recorded(seq, one.type, encode(one, seq=seq, run_id=RUN, session_id=SESSION, at=at + seq))
        for seq, one in enumerate(drafts, first)
    ]


def draft(type: str, *, turn: int | None = 1, attempt: int | None = 1, **data: object) -> Draft:
    """A draft of the first turn."""
    return Draft(type=type, data=data, turn=turn, attempt=attempt)


def fragment(item: str, offset: int, text: str, kind: str = "message", turn: int = 1) -> bytes:
    """A fragment as it is published."""
    data = {"item_id": item, "offset": offset, "text": text}
    head = {"type": f"{kind}.delta", "run_id": RUN, "session_id": SESSION, "turn": turn}
    return orjson.dumps({**head, "data": data})


def captured(name: str) -> list[Entry]:
    """What a real agent's captured output became in a run of one turn: events, and fragments where they came."""
    codec: Codec = CodexCodec({}) if "codex" in name else ClaudeCodec("/w")
    lines = (CAPTURED / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
    updates = [update for line in lines for update in codec.stdout(line)]
    updates += codec.finish(Exit(code=0)).updates
    entries: list[Entry] = [*log(draft("run.queued", turn=None, attempt=None), draft("run.started"))]
    _record(entries, [draft("turn.started", backend=name, pid=7)])
    interpreter = Interpreter(wall_ms=lambda: 0, redactor=Redactor(), files=FileLedger("/w"))
    for number, update in enumerate(updates):
        if isinstance(update, Delta):
            entries.append(fragment(update.item_id, update.offset, update.text, update.kind))
        else:
            _record(entries, interpreter.feed(update, float(number)))
    _record(entries, interpreter.finish(float(len(updates))))
    _record(entries, [draft("turn.completed", stop_reason="end_turn", duration_ms=5, usage=None)])
    _record(entries, [draft("run.completed", by="one_turn", line=None, stats={})])
    return entries


def _record(entries: list[Entry], drafts: Sequence[Draft]) -> None:
    seq = sum(isinstance(entry, Recorded) for entry in entries)
    whole = [Draft(type=one.type, data=one.data, turn=1, attempt=1) for one in drafts]
    entries += log(*whole, first=seq + 1)


def told(entries: Sequence[Entry], mapper: Mapper | None = None, *, above: int = 0) -> list[Step]:
    """All steps of these entries, with the last one of a run that ends."""
    mapper = mapper or Mapper(HEAD)
    steps = []
    for entry in entries:
        steps += mapper.show(entry) if isinstance(entry, bytes) else mapper.feed(entry)
        if isinstance(entry, Recorded) and entry.type in FINAL_TYPES:
            steps.append(mapper.finish("response.completed", {**early(HEAD, "completed"), "output": None}))
    return [step for step in steps if step["sequence_number"] > above]


def resumed(entries: Sequence[Entry], number: int) -> list[Step]:
    """What a reader is told that comes back with that number, when it hears only of these entries."""
    at, mapper = Position.of(number), Mapper(HEAD)
    recorded = [entry for entry in entries if isinstance(entry, Recorded)]
    for event in recorded:
        if event.seq <= at.whole and event.type in MAPPED:
            mapper.feed(event)
    mapper.skip(at.whole)
    mapper.resume(at)
    rest = [entry for entry in entries if isinstance(entry, bytes) or entry.seq > at.whole]
    return told(rest, mapper, above=number if at.whole < at.seq else 0)
