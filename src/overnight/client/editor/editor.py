"""The editor at the other end of the line, as the rest of this package speaks to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from acp.interfaces import Client as Connection
from acp.schema import DeniedOutcome, PermissionOption, SessionInfoUpdate, ToolCallUpdate

from overnight.client.editor.transcript import Update


class Withdrawing(Protocol):
    """The part of a transport that takes permission requests back."""

    async def withdraw(self, session_id: str, tool_call: str) -> None:
        """Tell the editor that the request for that tool call has become pointless."""
        ...


class Editor:
    """One session's end of the connection. Every method raises ConnectionError or OSError once the editor is gone."""

    def __init__(self, connection: Connection, transport: Withdrawing, session_id: str) -> None:
        self._connection = connection
        self._transport = transport
        self._session = session_id

    async def show(self, updates: Iterable[Update | SessionInfoUpdate]) -> None:
        """Send updates of the session, in order."""
        for update in updates:
            await self._connection.session_update(self._session, update)

    async def ask(self, tool_call: ToolCallUpdate, options: Sequence[PermissionOption]) -> str | None:
        """The option that the user chose; None when the editor gave the question up."""
        answer = await self._connection.request_permission(self._session, tool_call, list(options))
        return None if isinstance(answer.outcome, DeniedOutcome) else answer.outcome.option_id

    async def withdraw(self, tool_call: str) -> None:
        """The question about that tool call has been answered elsewhere."""
        await self._transport.withdraw(self._session, tool_call)
