"""The agent that an editor talks to: each of its sessions is one of Overnight's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

from acp import PROTOCOL_VERSION
from acp.interfaces import Client as Connection
from acp.schema import (
    AgentCapabilities,
    CloseSessionResponse,
    CurrentModeUpdate,
    Implementation,
    InitializeResponse,
    ListSessionsResponse,
    LoadSessionResponse,
    NewSessionResponse,
    PromptCapabilities,
    PromptResponse,
    ResumeSessionResponse,
    SessionCapabilities,
    SessionCloseCapabilities,
    SessionInfo,
    SessionListCapabilities,
    SessionResumeCapabilities,
    SetSessionConfigOptionResponse,
    SetSessionModeResponse,
)

from overnight.client.client import Client
from overnight.client.editor import choices
from overnight.client.editor.conversation import Conversation
from overnight.client.editor.editor import Editor, Withdrawing
from overnight.client.editor.history import Replay
from overnight.client.editor.refusals import failure, refusing
from overnight.client.editor.transcript import Transcript
from overnight.client.editor.words import Block, message_of
from overnight.errors import InvalidInput, NotFound, OvernightError, StaleVersion

TRIES: Final = 4
"""How often a change of a session that somebody else changes too is tried."""


class EditorAgent:
    """Answers what an editor asks. `connect` gives a client of a server that runs, starting one where that is wanted.

    `defaults` are fields of a run for the sessions that are made here. `say` speaks to whoever reads our errors.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Client]], transport: Withdrawing, *, version: str,
        defaults: Mapping[str, str], say: Callable[[str], None], lost: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._connect = connect
        self._transport = transport
        self._version = version
        self._defaults = dict(defaults)
        self._say = say
        self._lost = lost
        self._open: dict[str, Conversation] = {}
        self._opening = asyncio.Lock()
        self._connection: Connection

    def on_connect(self, conn: Connection) -> None:
        """Called by the library with the way back to the editor."""
        self._connection = conn

    async def close(self) -> None:
        """The editor is gone: follow nothing any more. Runs go on, approvals stay open."""
        for conversation in self._open.values():
            await conversation.close()

    async def initialize(self, protocol_version: int, **_: Any) -> InitializeResponse:
        """What this agent can do. There is one version of the protocol that it speaks, whatever was asked for."""
        self._say(f"protocol version {protocol_version} asked for, {PROTOCOL_VERSION} spoken")
        return InitializeResponse(
            protocol_version=PROTOCOL_VERSION,
            agent_info=Implementation(name="overnight", title="Overnight", version=self._version),
            agent_capabilities=AgentCapabilities(
                load_session=True,
                prompt_capabilities=PromptCapabilities(image=False, audio=False, embedded_context=True),
                session_capabilities=SessionCapabilities(
                    list=SessionListCapabilities(),
                    resume=SessionResumeCapabilities(),
                    close=SessionCloseCapabilities(),
                ),
            ),
            auth_methods=[],
        )

    @refusing
    async def new_session(
        self, cwd: str, mcp_servers: Sequence[Any] | None = None,
        additional_directories: Sequence[str] | None = None, **_: Any,
    ) -> NewSessionResponse:  # fmt: skip
        """Make a session whose runs work in `cwd`."""
        client = await self._connect()
        given = {"workspace": cwd, **self._defaults}
        # Asked first, so that a folder or an agent that cannot be used leaves no session behind.
        preview = await client.preview({"goal": "-", "mode": "chat", **given})
        session = await client.create_session({"mode": "chat", "config": given})
        session_id, notices = session["id"], self._passed_over(mcp_servers, additional_directories)
        await self._follow(client, session_id, cwd, notices, replay=False)
        self._open[session_id].untitled = True
        config = preview["config"]
        return NewSessionResponse(
            session_id=session_id,
            modes=choices.modes(config),
            config_options=choices.options(config, await _backends(client)),
        )

    @refusing
    async def load_session(
        self, cwd: str, session_id: str, mcp_servers: Sequence[Any] | None = None,
        additional_directories: Sequence[str] | None = None, **_: Any,
    ) -> LoadSessionResponse:  # fmt: skip
        """Show what happened in a session, and follow it from there on."""
        client = await self._connect()
        notices = self._passed_over(mcp_servers, additional_directories)
        config = await self._opened(client, session_id, cwd, notices, replay=True)
        return LoadSessionResponse(
            modes=choices.modes(config), config_options=choices.options(config, await _backends(client))
        )

    @refusing
    async def resume_session(
        self, session_id: str, cwd: str, mcp_servers: Sequence[Any] | None = None,
        additional_directories: Sequence[str] | None = None, **_: Any,
    ) -> ResumeSessionResponse:  # fmt: skip
        """Follow a session from now on."""
        client = await self._connect()
        notices = self._passed_over(mcp_servers, additional_directories)
        config = await self._opened(client, session_id, cwd, notices, replay=False)
        return ResumeSessionResponse(
            modes=choices.modes(config), config_options=choices.options(config, await _backends(client))
        )

    @refusing
    async def list_sessions(
        self, cwd: str | None = None, cursor: str | None = None, **_: Any
    ) -> ListSessionsResponse:
        """The sessions that work in a folder of this machine; with `cwd`, in that one."""
        client = await self._connect()
        page = await client.sessions(cursor=cursor)
        found = [
            SessionInfo(
                session_id=session["id"], cwd=folder, title=session["name"], updated_at=session["updated_at"]
            )
            for session in page["items"]
            if (folder := _folder(session)) is not None and cwd in {None, folder}
        ]
        return ListSessionsResponse(sessions=found, next_cursor=page["next_cursor"])

    @refusing
    async def close_session(self, session_id: str, **_: Any) -> CloseSessionResponse:
        """Follow a session no more. What runs in it goes on: that is what Overnight is for."""
        conversation = self._open.pop(session_id, None)
        if conversation is not None:
            await conversation.close()
        return CloseSessionResponse()

    @refusing
    async def prompt(self, session_id: str, prompt: Sequence[Block], **_: Any) -> PromptResponse:
        """A message to the session; the answer comes when its turn has ended."""
        known = self._open.get(session_id)
        cancels = known.cancels if known is not None else 0
        client = await self._connect()
        conversation = await self._known(client, session_id)
        answer = await conversation.prompt(message_of(prompt, conversation.cwd), cancels=cancels)
        if answer.ending.trouble is not None:
            raise failure(answer.ending.trouble, answer.run_id)
        return PromptResponse(stop_reason=answer.ending.stop, usage=answer.ending.usage)

    async def cancel(self, session_id: str, **_: Any) -> None:
        """Stop what the session's prompts have set to work."""
        conversation = self._open.get(session_id)
        if conversation is None:
            return
        try:
            await self._connect()
            await conversation.cancel()
        except OvernightError as error:
            self._say(f"cancel of {session_id}: {error.detail}")

    @refusing
    async def set_session_mode(self, session_id: str, mode_id: str, **_: Any) -> SetSessionModeResponse:
        """Another approval policy, from the session's next run on."""
        if mode_id not in choices.POLICIES:
            raise InvalidInput(
                f"there is no mode {mode_id!r}", mend=f"use one of: {', '.join(choices.POLICIES)}"
            )
        client = await self._connect()
        await self._configure(client, session_id, "mode", mode_id)
        return SetSessionModeResponse()

    @refusing
    async def set_config_option(
        self, config_id: str, session_id: str, value: object, **_: Any
    ) -> SetSessionConfigOptionResponse:
        """Another setting, from the session's next run on."""
        client = await self._connect()
        config = await self._configure(client, session_id, config_id, value)
        if config_id == "mode":
            mode = CurrentModeUpdate(
                session_update="current_mode_update", current_mode_id=choices.policy_of(config)
            )
            await self._connection.session_update(session_id, mode)
        return SetSessionConfigOptionResponse(config_options=choices.options(config, await _backends(client)))

    async def _opened(
        self, client: Client, session_id: str, cwd: str, notices: list[str], *, replay: bool
    ) -> Mapping[str, Any]:
        """Open a session, again where it is open already; what its next run would be given."""
        session = await client.session(session_id)
        folder = _folder(session)
        if folder not in {None, cwd}:
            notices.append(f"This session works in {folder}, not in {cwd}.")
        async with self._opening:
            earlier = self._open.pop(session_id, None)
            if earlier is not None:
                await earlier.close()
            await self._follow(client, session_id, folder or cwd, notices, replay=replay)
        return await _resolved(client, session)

    async def _known(self, client: Client, session_id: str) -> Conversation:
        """The session, opened now where the editor has not done so. Raises NotFound."""
        if (conversation := self._open.get(session_id)) is not None:
            return conversation
        async with self._opening:
            if session_id not in self._open:
                session = await client.session(session_id)
                await self._follow(client, session_id, _folder(session) or "/", [], replay=False)
            return self._open[session_id]

    async def _follow(
        self, client: Client, session_id: str, cwd: str, notices: list[str], *, replay: bool
    ) -> None:
        conversation = self._conversation(client, session_id, cwd)
        conversation.notices += notices
        past = Replay(client, session_id, cwd)
        standing, runs = await past.standing()
        transcripts: Mapping[str, Transcript] = {}
        if replay:
            updates, transcripts = await past.updates(runs)
            await self._editor(session_id).show(updates)
        conversation.open(standing, transcripts)
        self._open[session_id] = conversation

    async def _configure(
        self, client: Client, session_id: str, option: str, value: object
    ) -> Mapping[str, Any]:
        for attempt in range(TRIES):
            session = await client.session(session_id)
            config = choices.changed(session["config"], option, value)
            preview = await client.preview({"goal": "-", "mode": "chat", **config})
            try:
                await client.patch_session(session_id, config=config, version=session["version"])
            except StaleVersion:
                if attempt == TRIES - 1:
                    raise
            else:
                return cast("Mapping[str, Any]", preview["config"])
        raise AssertionError("the last try either returned or raised")

    def _conversation(self, client: Client, session_id: str, cwd: str) -> Conversation:
        return Conversation(client, self._editor(session_id), session_id=session_id, cwd=cwd, lost=self._lost)

    def _editor(self, session_id: str) -> Editor:
        return Editor(self._connection, self._transport, session_id)

    def _passed_over(self, mcp_servers: Sequence[Any] | None, folders: Sequence[str] | None) -> list[str]:
        """What the editor offers and no agent here is given, in words."""
        words = []
        if mcp_servers:
            names = ", ".join(str(getattr(server, "name", server)) for server in mcp_servers)
            words.append(
                f"MCP servers of the editor are not passed on: {names}. Configure them with the agent."
            )
        if folders:
            words.append(
                f"Further folders are not passed on: {', '.join(folders)}. One session works in one folder."
            )
        for sentence in words:
            self._say(sentence)
        return words


def _folder(session: Mapping[str, Any]) -> str | None:
    """Where the runs of a session work; None for one that names no directory."""
    folder = (session.get("config") or {}).get("workspace")
    return folder if isinstance(folder, str) else None


async def _resolved(client: Client, session: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the session's next run would be given; its own configuration where none can be made now."""
    try:
        preview = await client.preview({"goal": "-", "mode": "chat", "session_id": session["id"]})
    except NotFound:
        raise
    except OvernightError:
        return dict(session.get("config") or {})
    return cast("Mapping[str, Any]", preview["config"])


async def _backends(client: Client) -> list[str]:
    return [backend["name"] for backend in await client.backends() if backend["status"] != "fail"]
