"""The approvals of one session in front of an editor's user: asked, decided, and taken back when others were faster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final, cast

from acp import RequestError
from pydantic import ValidationError

from overnight.client.client import Client
from overnight.client.editor.editor import Editor
from overnight.client.editor.patience import patiently
from overnight.client.editor.permissions import Choice, choice_of, options_of, tool_call_of
from overnight.client.editor.transcript import Transcript
from overnight.errors import (
    ActionChanged,
    AlreadyDecided,
    ApprovalOver,
    Conflict,
    NotFound,
    OvernightError,
)

TRIES: Final = 3
"""How often a choice that the server refuses is put to the user again."""


class Asking:
    """At most one question to the editor for each open approval, about what would happen by now."""

    def __init__(self, client: Client, editor: Editor, cwd: str) -> None:
        self._client = client
        self._editor = editor
        self._cwd = cwd
        self._open: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Approval → digest of the action that is shown, and the question about it."""

    def ask(self, approval_id: str, digest: str, transcript: Transcript) -> None:
        """Put an approval to the user, unless exactly that is asked already; one about another action is dropped."""
        shown = self._open.get(approval_id)
        if shown is not None and shown[0] == digest:
            return
        self.drop(approval_id)
        task = asyncio.create_task(self._ask(approval_id, transcript), name=f"ask {approval_id}")
        self._open[approval_id] = digest, task

    def drop(self, approval_id: str) -> None:
        """The approval is decided, or asks nothing any more."""
        shown = self._open.pop(approval_id, None)
        if shown is not None:
            shown[1].cancel()

    async def close(self) -> None:
        """Ask nothing any more; what is open stays open on the server."""
        tasks = [task for _, task in self._open.values()]
        self._open.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, approval_id: str, transcript: Transcript) -> None:
        try:
            for _ in range(TRIES):
                if await self._asked_once(approval_id, transcript):
                    return
            await self._say(
                transcript, f"{approval_id} stays open. Decide it with: overnight approve {approval_id}"
            )
        except OSError:
            pass  # the editor is gone; the approval waits for whoever comes next
        except OvernightError as error:
            await self._say(transcript, f"{approval_id} cannot be decided here: {error.detail}")
        finally:
            if (shown := self._open.get(approval_id)) and shown[1] is asyncio.current_task():
                del self._open[approval_id]

    async def _asked_once(self, approval_id: str, transcript: Transcript) -> bool:
        """Whether there is nothing more to ask."""
        approval = cast("Mapping[str, Any]", await patiently(lambda: self._client.approval(approval_id)))
        if approval["state"] != "pending":
            return True
        self._remember(approval)
        option = await self._choice(approval, transcript)
        if option is None:
            await self._say(
                transcript, f"Nobody decided. Later: overnight approve {approval_id}, or overnight deny."
            )
            return True
        choice = choice_of(approval, option)
        return choice is not None and await self._decided(approval_id, choice, transcript)

    def _remember(self, approval: Mapping[str, Any]) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open[str(approval["id"])] = str(approval["digest"]), task

    async def _choice(self, approval: Mapping[str, Any], transcript: Transcript) -> str | None:
        context = approval.get("context") or {}
        running = transcript.tools.running(context.get("item_id"), context.get("command"))
        tool_call = running or str(approval["id"])
        if running is None:
            transcript.tools.asked(str(approval["id"]), tool_call)
        shown = tool_call_of(approval, tool_call, self._cwd)
        try:
            return await self._editor.ask(shown, options_of(approval))
        except (RequestError, ValidationError):
            return None  # an editor that cannot ask, or answers with nothing that can be understood
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                await asyncio.shield(self._editor.withdraw(tool_call))
            raise

    async def _decided(self, approval_id: str, choice: Choice, transcript: Transcript) -> bool:
        """Hand the decision over. False: it has to be asked again."""
        body = {"changes": choice.changes} if choice.changes else {}
        try:
            await patiently(lambda: self._client.resolve(approval_id, choice.option, choice.digest, **body))
        except ActionChanged:
            await self._say(
                transcript, "What would happen is not what was shown any more: please look again."
            )
            return False
        except (AlreadyDecided, ApprovalOver, NotFound):
            return True  # somebody else was faster; the run's events tell what counts
        except Conflict:
            return True  # the run is being cancelled
        except OvernightError as error:
            await self._say(transcript, f"Not accepted: {error.detail}")
            return False
        return True

    async def _say(self, transcript: Transcript, words: str) -> None:
        with contextlib.suppress(OSError):
            await self._editor.show([transcript.note(words)])
