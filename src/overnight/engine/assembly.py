"""The prompt of the turn that is about to begin: assembled, kept in the turn's folder, and not yet sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from overnight.domain.request import Request
from overnight.domain.run import Run, Turn
from overnight.domain.session import SessionMessage
from overnight.domain.states import TurnState
from overnight.engine import prompt
from overnight.engine.conversation import Words, words
from overnight.engine.follow_requests import steering, text_of
from overnight.engine.hosts import known_on
from overnight.engine.opening import Opening, Place, next_place
from overnight.engine.preparation import Prepared
from overnight.engine.waiting_messages import taken_back
from overnight.engine.workshop import Workshop
from overnight.ports.unit_of_work import Transaction

INTERRUPTED = "interrupted"
"""The stop reason of a turn that we ended early and that a later one takes up."""
PROMPT_FILE = "prompt.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    last: Turn | None
    steers: Sequence[Request]
    resume: dict[str, object]
    place: Place
    words: Words
    variables: Mapping[str, object]


class Assembly:
    """Puts prompts together."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def assemble(self, run: Run, prepared: Prepared) -> tuple[Opening, str]:
        """The opening of the next turn, and its prompt, which has been written to the turn's folder."""
        known = await self._shop.uow.read(lambda tx: _known(tx, run))
        place = known.place
        folder = self._shop.folders.turn(run.id, place.number, place.attempt)
        text = await asyncio.to_thread(self._write, run, prepared, place, known, folder)
        relative = str(folder.relative_to(self._shop.folders.data_dir))
        opening = Opening(
            place=place, prepared=prepared, folder=relative, resume=known.resume, steers=known.steers,
            words=known.words,
        )  # fmt: skip
        return opening, text

    def _write(self, run: Run, prepared: Prepared, place: Place, known: _Known, folder: Path) -> str:
        workspaces = self._shop.workspaces
        workspace = prepared.workspace if prepared.watched else None
        text = prompt.assemble(
            run.spec,
            prompt.gather(workspaces, workspace, run.spec),
            turn=place.number,
            messages=() if _resumes(prepared, known) else known.words.history,
            steers=known.words.texts,
            again=place.again or _cut_off(known.last),
            variables=known.variables,
        )
        self._shop.folders.make(folder)
        descriptor = os.open(folder / PROMPT_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        return text


def read_prompt(folder: Path) -> str:
    """The prompt with which a turn was begun; empty when its file is gone."""
    try:
        return (folder / PROMPT_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _known(tx: Transaction, run: Run) -> _Known:
    last = tx.turns.last(run.pk)
    steers = [request for request in steering(tx, run) if not taken_back(tx, run, request)]
    place = next_place(run, last)
    history = tx.sessions.messages(run.session_pk, prompt.MESSAGES)
    if run.spec.mode == "chat":
        said = words(tx, run, steers, history, redo=place.again or _cut_off(last))
    else:
        again, before = _begun_with(run, place, history)
        said = Words(texts=(*again, *(text_of(request) for request in steers)), history=before)
    return _Known(
        last=last, steers=steers, place=place, words=said,
        resume=known_on(run.host_id, tx.sessions.backend_state(run.session_pk, run.backend)),
        variables=tx.sessions.get(run.session_id, None).variables,
    )  # fmt: skip


def _begun_with(
    run: Run, place: Place, history: tuple[SessionMessage, ...]
) -> tuple[tuple[str, ...], tuple[SessionMessage, ...]]:
    """What people had said for a turn that is done again, for nobody knows how much of it has reached its agent; and
    the history without that.
    """
    if not place.again:
        return (), history
    said = [
        message
        for message in history
        if (message.run_id, message.turn, message.role) == (run.id, place.number, "user")
        and message.text != run.spec.goal
    ]
    return tuple(message.text for message in said), tuple(one for one in history if one not in said)


def _cut_off(last: Turn | None) -> bool:
    """Whether the last turn did not come to its own end, so that the next one takes it up."""
    return last is not None and (last.stop_reason == INTERRUPTED or last.state is not TurnState.COMPLETED)


def _resumes(prepared: Prepared, known: _Known) -> bool:
    """Whether the backend still has the conversation. Some keep theirs by the folder in which it began."""
    here = str(prepared.workspace)
    return (
        prepared.backend.capabilities.resume and bool(known.resume) and known.resume.get("cwd", here) == here
    )
