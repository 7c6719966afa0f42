"""One session as an editor has it open: prompts go in, and whatever happens in the session comes out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from acp.schema import SessionInfoUpdate

from overnight.client.client import Client
from overnight.client.editor.asking import Asking
from overnight.client.editor.course import Ending
from overnight.client.editor.editor import Editor
from overnight.client.editor.patience import patiently
from overnight.client.editor.reader import RunReader
from overnight.client.editor.transcript import Transcript
from overnight.client.shapes import Posted
from overnight.domain.text import first_line
from overnight.errors import (
    ApprovalPending,
    InvalidTransition,
    NotFound,
    OvernightError,
    StreamTrimmed,
)

TITLE: Final = 80
"""Characters of a session's name that is made of its first prompt."""
PATIENCE_S: Final = 30.0
"""How long a message waits for a server that is away."""
KEPT: Final = 16
"""Ended runs that are remembered."""
UNHEARD: Final = (
    "The run ended before this message had its turn: it waits in the session, and goes first next time."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What was known of a session when it was opened: nothing of that is shown again."""

    newest_run: str = ""
    """Ids of runs sort by the time at which they were made."""
    live: tuple[Mapping[str, Any], ...] = ()
    """The runs that were not final then."""


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A prompt that has not been answered."""

    run_id: str
    """The run that is to take it, then the one that has."""
    place: asyncio.Future[tuple[str, int] | None]
    """The turn that took it; None when its run ended before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How the turn of a prompt ended, and in which run."""

    ending: Ending
    run_id: str


class Conversation:
    """Follows the session for as long as the editor has it open. The session and its runs live on without it."""

    def __init__(
        self, client: Client, editor: Editor, *, session_id: str, cwd: str, lost: Callable[[str], None]
    ) -> None:
        self.session_id = session_id
        self.cwd = cwd
        self.untitled = False
        """The first prompt gives the session its name."""
        self.cancels = 0
        self.notices: list[str] = []
        """What the user is to be told with the next prompt."""
        self._client = client
        self._editor = editor
        self._lost = lost
        self._asking = Asking(client, editor, cwd)
        self._standing = Standing()
        self._readers: dict[str, RunReader] = {}
        self._known: set[str] = set()
        """Every run that was ever followed: none is followed again."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._texts: dict[str, str] = {}
        """Messages that others have posted, until a turn takes them."""
        self._posting = asyncio.Lock()
        self._closed: OvernightError | None = None

    def open(self, standing: Standing, transcripts: Mapping[str, Transcript]) -> None:
        """Begin to follow. `transcripts` have told what runs did until now."""
        self._standing = standing
        for run in standing.live:
            self._read(str(run["id"]), int(run["last_seq"]), transcripts.get(str(run["id"])))
        self._start(self._follow(), f"follow {self.session_id}")
        self._start(self._ask_what_is_open(), f"open approvals of {self.session_id}")

    async def close(self) -> None:
        """Follow nothing any more; prompts that wait are refused. Runs go on, approvals stay open."""
        self._end(NotFound(f"{self.session_id} was closed"))
        await self._asking.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def prompt(self, text: str, *, cancels: int) -> Answer:
        """Say something, and wait until its turn has ended. Raises what posting a message raises.

        `cancels`: how many there had been when the prompt came; one since then was meant for it.
        """
        if self._closed is not None:
            raise self._closed
        notices, self.notices = self.notices, []
        await self._editor.show([Transcript("", self.cwd).note(words) for words in notices])
        if self.untitled:
            self.untitled = False
            self._start(self._title(first_line(text, TITLE)), f"name of {self.session_id}")
        waiting, message_id = await self._post(text)
        self._start(self._ask_what_is_open(), f"open approvals of {self.session_id}")
        if self.cancels != cancels:
            await self._cancel_run(waiting.run_id)
        try:
            return await self._answer(waiting)
        finally:
            self._waiting.pop(message_id, None)

    async def cancel(self) -> None:
        """Stop the runs of the prompts that wait for their answers, or whatever runs when none does.

        Messages that wait for a turn go on waiting.
        """
        self.cancels += 1
        await self._asking.close()
        wanted = {waiting.run_id for waiting in self._waiting.values()}
        live = {run_id for run_id, reader in self._readers.items() if not reader.final}
        for run_id in sorted((wanted or live) - {""}):
            await self._cancel_run(run_id)

    async def _post(self, text: str) -> tuple[_Waiting, str]:
        async with self._posting:
            posted = await self._posted(text)
            message_id, run = str(posted["message"]["id"]), cast("Mapping[str, Any]", posted["run"] or {})
            place: asyncio.Future[tuple[str, int] | None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting[message_id] = _Waiting(run_id=str(run.get("id", "")), place=place)
            if self._closed is not None:
                place.set_exception(self._closed)
        if waiting.run_id:
            self._read(waiting.run_id, 0)
        if run.get("state") == "paused":
            await self._go_on(waiting.run_id)
        return waiting, message_id

    async def _posted(self, text: str) -> Posted:
        """Hand the message over, once, also when the server is just being started again."""
        key = secrets.token_hex(16)
        return await patiently(lambda: self._client.post_message(self.session_id, text, key=key), PATIENCE_S)

    async def _answer(self, waiting: _Waiting) -> Answer:
        place = await waiting.place
        if place is None:
            over = await self._readers[waiting.run_id].over()
            await self._editor.show([Transcript("", self.cwd).note(UNHEARD)])
            return Answer(ending=over, run_id=waiting.run_id)
        run_id, turn = place
        self._read(run_id, 0)
        return Answer(ending=await self._readers[run_id].ended(turn), run_id=run_id)

    async def _follow(self, after: int = 0) -> None:
        try:
            stream = self._client.follow_session(self.session_id, after, lost=self._lost)
            async with aclosing(stream) as events:
                async for event in events:
                    await self._heard(cast("Mapping[str, Any]", event))
            self._end(NotFound(f"{self.session_id} was deleted"))
        except StreamTrimmed as error:
            # The beginning of a long log may be gone; nothing in it would be shown.
            earliest = error.extra.get("earliest")
            if not isinstance(earliest, int) or earliest <= after + 1:
                self._end(error)
            else:
                await self._follow(earliest - 1)
        except OvernightError as error:
            self._end(
                NotFound(f"{self.session_id} is not followed any more: {error.detail}", mend=error.mend)
            )
        finally:
            self._end(NotFound(f"{self.session_id} is not followed any more"))

    async def _heard(self, event: Mapping[str, Any]) -> None:
        data = event.get("data") or {}
        match event["type"]:
            case "session.message_received":
                self._texts[str(data["message_id"])] = str(data.get("text", ""))
            case "session.message_removed":
                self._texts.pop(str(data["message_id"]), None)
            case "session.message_taken":
                await self._taken(str(data["message_id"]), str(data["run_id"]), int(data.get("turn") or 0))
            case "run.linked" if str(data["run_id"]) > self._standing.newest_run:
                self._read(str(data["run_id"]), 0)
            case "run.settled":
                await self._settled(str(data["run_id"]))
            case _:
                pass

    async def _taken(self, message_id: str, run_id: str, turn: int) -> None:
        async with self._posting:
            # A message whose answer is still on its way may be ours.
            waiting = self._waiting.get(message_id)
        text = self._texts.pop(message_id, "")
        if waiting is not None:
            if not waiting.place.done():
                waiting.run_id = run_id
                waiting.place.set_result((run_id, turn))
        elif self._is_new(run_id, turn) and text:
            await self._editor.show([Transcript(run_id, self.cwd).said(text, message_id)])

    def _is_new(self, run_id: str, turn: int) -> bool:
        standing = self._standing
        began = next((int(run["turn"]) for run in standing.live if run["id"] == run_id), None)
        return run_id > standing.newest_run if began is None else turn > began

    async def _settled(self, run_id: str) -> None:
        async with self._posting:
            # A message whose answer is still on its way may have been meant for that run.
            met = [waiting for waiting in self._waiting.values() if waiting.run_id == run_id]
        for waiting in met:
            if not waiting.place.done():
                waiting.place.set_result(None)

    def _end(self, error: OvernightError) -> None:
        """Nothing is followed any more; the first reason counts."""
        if self._closed is not None:
            return
        self._closed = error
        for waiting in self._waiting.values():
            if not waiting.place.done():
                waiting.place.set_exception(error)

    def _read(self, run_id: str, after: int, transcript: Transcript | None = None) -> None:
        if run_id in self._known:
            return
        self._forget()
        self._known.add(run_id)
        reader = RunReader(
            self._client, self._editor, self._asking, transcript or Transcript(run_id, self.cwd),
            run_id=run_id, cwd=self.cwd, lost=self._lost,
        )  # fmt: skip
        self._readers[run_id] = reader
        self._start(reader.read(after), f"follow {run_id}")

    async def _title(self, name: str) -> None:
        await self._client.patch_session(self.session_id, name=name)
        await self._editor.show([SessionInfoUpdate(session_update="session_info_update", title=name)])

    def _forget(self) -> None:
        """Let go of what has ended long ago; a prompt that was just answered may still look at the latest ones."""
        ended = [run_id for run_id, reader in self._readers.items() if reader.final]
        for run_id in ended[:-KEPT]:
            del self._readers[run_id]

    async def _ask_what_is_open(self) -> None:
        found = await patiently(lambda: self._client.approvals(session_id=self.session_id, state="pending"))
        for approval in reversed(found["items"]):
            reader = self._readers.get(approval["run_id"])
            if reader is not None:
                self._asking.ask(approval["id"], approval["digest"], reader.transcript)

    async def _cancel_run(self, run_id: str) -> None:
        # It may have ended by itself, or be cancelled already.
        with suppress(InvalidTransition, NotFound):
            await patiently(
                lambda: self._client.control(run_id, "cancel", reason="cancelled in the editor"), PATIENCE_S
            )

    async def _go_on(self, run_id: str) -> None:
        # It may go on already; and what it waits for besides is asked anyway.
        with suppress(InvalidTransition, ApprovalPending):
            await patiently(lambda: self._client.control(run_id, "resume"), PATIENCE_S)

    def _start(self, work: Any, name: str) -> None:
        task = asyncio.create_task(_until_the_editor_goes(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _until_the_editor_goes(work: Any) -> None:
    # Whoever waits for the work has been told of its end.
    with suppress(OSError, OvernightError):
        await work
