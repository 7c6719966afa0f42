"""What happened in a session before an editor opened it, as updates: its messages, and what its last runs did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from typing import Any, Final, cast

from overnight.client.client import Client
from overnight.client.editor.conversation import Standing
from overnight.client.editor.transcript import Transcript, Update
from overnight.client.shapes import FINAL
from overnight.errors import NotFound, StreamTrimmed

MESSAGES: Final = 1000
"""Messages of the history that are replayed: its end."""
EVENTS: Final = 4000
"""Events of the latest runs that are replayed besides; of older runs only the messages are."""
PAGE: Final = 1000
TYPES: Final = (
    "turn.started,message.completed,reasoning.completed,plan.updated,tool.started,tool.completed,"
    "command.started,command.completed,file.written,file.deleted"
)
Event = Mapping[str, Any]


class Replay:
    """The past of one session. Each piece of work is told by its own run's transcript."""

    def __init__(self, client: Client, session_id: str, cwd: str) -> None:
        self._client = client
        self._session = session_id
        self._cwd = cwd

    async def standing(self) -> tuple[Standing, list[Mapping[str, Any]]]:
        """How the session stands now, and its latest runs, oldest first."""
        page = await self._client.session_runs(self._session, limit=200)
        runs = cast("list[Mapping[str, Any]]", page["items"])
        newest = max((str(run["id"]) for run in runs), default="")
        live = tuple(run for run in reversed(runs) if run["state"] not in FINAL)
        return Standing(newest_run=newest, live=live), runs[::-1]

    async def updates(self, runs: Sequence[Mapping[str, Any]]) -> tuple[list[Update], dict[str, Transcript]]:
        """Everything to show, and the transcript of each run for what comes next."""
        said, events = await self._said(), await self._events(runs)
        told = self._spoken([message for message in said if message["run_id"] not in events])
        transcripts: dict[str, Transcript] = {}
        for run in runs:
            run_id = str(run["id"])
            if run_id in events:
                found, transcripts[run_id] = self._run(run, events[run_id], said)
                told += found
        return told, transcripts

    async def _said(self) -> list[Mapping[str, Any]]:
        page = await self._client.history(self._session, limit=MESSAGES)
        return cast("list[Mapping[str, Any]]", page["items"])

    async def _events(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Event]]:
        """Run → its events, oldest first, for as many of the latest runs as may be replayed."""
        found: dict[str, list[Event]] = {}
        left = EVENTS
        for run in reversed(runs):
            try:
                events = await self._events_of(run, left)
            except (NotFound, StreamTrimmed):
                continue  # its messages are in the history
            found[str(run["id"])] = events
            left -= len(events)
            if left <= 0:
                break
        return found

    async def _events_of(self, run: Mapping[str, Any], most: int) -> list[Event]:
        events: list[Event] = []
        before = int(run["last_seq"]) + 1
        while before > 1 and len(events) < most:
            page = await self._client.events(
                str(run["id"]), before=before, order="desc", types=TYPES, limit=min(PAGE, most)
            )
            found = cast("list[Event]", page["items"])
            events += found
            if len(found) < min(PAGE, most):
                break
            before = int(found[-1]["seq"])
        return events[::-1]

    def _run(
        self, run: Mapping[str, Any], events: Sequence[Event], said: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Update], Transcript]:
        transcript = Transcript(str(run["id"]), self._cwd)
        # A turn whose beginning was left out is told by its messages alone.
        events = list(dropwhile(lambda event: event["type"] != "turn.started", events))
        shown = {event.get("turn") for event in events if event["type"] == "turn.started"}
        mine = [message for message in said if message["run_id"] == run["id"]]
        told = self._spoken([message for message in mine if message["turn"] not in shown])
        asked: dict[object, list[str]] = defaultdict(list)
        for message in mine:
            if message["role"] == "user":
                asked[message["turn"]].append(str(message["text"]))
        for event in events:
            told += transcript.feed(event)
            if event["type"] == "turn.started":
                turn = event.get("turn")
                words = asked.pop(turn, [])
                told += [transcript.said(text, f"{run['id']}:{turn}:{n}") for n, text in enumerate(words)]
        if run["state"] in FINAL:
            told += transcript.tools.end()
        return told, transcript

    def _spoken(self, messages: Sequence[Mapping[str, Any]]) -> list[Update]:
        told: list[Update] = []
        for number, message in enumerate(messages):
            transcript = Transcript(f"history:{number}", self._cwd)
            if message["role"] == "user":
                told.append(transcript.said(str(message["text"]), f"history:{number}"))
            else:
                spoken = {"item_id": "answer", "text": message["text"]}
                told += transcript.feed({"type": "message.completed", "data": spoken})
        return told
