"""Answers a client of the Agent Client Protocol: sessions, prompts, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from overnight.agent.acp import words
from overnight.agent.acp.peer import FAILED, INVALID_PARAMS, METHOD_NOT_FOUND, NOT_FOUND, Peer, Refusal
from overnight.agent.acp.replay import updates_of
from overnight.agent.acp.telling import Telling
from overnight.agent.history import History
from overnight.agent.tools.tool import Fatal
from overnight.errors import NotFound, OvernightError
from overnight.ports.model import InputBlock, ModelUsage

PROTOCOL: Final = 1
MODES: Final[Mapping[str, str]] = {
    "work": "Changes files and runs commands without asking",
    "ask": "Asks before it changes a file or runs a command",
    "read": "Only looks",
}

log = structlog.get_logger(__name__)


class Turns(Protocol):
    """Carries out the turns of one session. Loaded with the first prompt: it brings the libraries along."""

    async def run(
        self, content: tuple[InputBlock, ...], telling: Telling, mode: str
    ) -> tuple[str, ModelUsage]:
        """One turn; its stop reason and what it has used. Raises OvernightError."""
        ...

    async def close(self) -> None:
        """The session is closed: end what was started for it."""
        ...


Workshop = Callable[[History, Sequence[Mapping[str, Any]]], Awaitable[Turns]]
"""Makes what carries out the turns of a session, which has these MCP servers."""


class Open:
    """A session that this process has opened."""

    def __init__(self, history: History, servers: Sequence[Mapping[str, Any]], mode: str) -> None:
        self.history = history
        self.servers = servers
        self.mode = mode
        self.turns: Turns | None = None
        self.always: set[str] = set()
        """Tools that the person has allowed for good."""
        self.working: asyncio.Task[tuple[str, ModelUsage]] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Stop what is being worked on, if anything is."""
        if self.working is not None:
            self.cancelled = True
            self.working.cancel()


class AgentOfSessions:
    """The agent. `folder` keeps the histories; `mode` is that of new sessions."""

    def __init__(
        self, peer: Peer, folder: Path, workshop: Workshop, *, version: str, mode: str = "work"
    ) -> None:
        self._peer = peer
        self._folder = folder
        self._workshop = workshop
        self._version = version
        self._mode = mode
        self._open: dict[str, Open] = {}
        self._methods: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Mapping[str, object]]]] = {
            "initialize": self._initialize,
            "authenticate": self._nothing,
            "session/new": self._new,
            "session/load": self._load,
            "session/resume": self._resume,
            "session/close": self._close,
            "session/prompt": self._prompt,
            "session/set_mode": self._set_mode,
        }

    async def request(self, method: str, params: Mapping[str, Any]) -> Mapping[str, object]:
        """See `Served`."""
        handler = self._methods.get(method)
        if handler is None:
            raise Refusal(METHOD_NOT_FOUND, f"there is no method {method[:80]!r}")
        try:
            return await handler(params)
        except NotFound as error:
            raise Refusal(NOT_FOUND, error.detail, {"code": error.code}) from None

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """See `Served`. The one notification there is: stop working."""
        session = self._open.get(str(params.get("sessionId")))
        if method == "session/cancel" and session is not None:
            session.cancel()

    def close(self) -> None:
        """Let other processes take the sessions up."""
        for session in self._open.values():
            session.history.release()

    async def _initialize(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        log.info("agent.greeted", client=params.get("clientInfo"), asked=params.get("protocolVersion"))
        return {
            "protocolVersion": PROTOCOL,
            "agentInfo": {"name": "overnight-agent", "title": "Overnight's agent", "version": self._version},
            "agentCapabilities": {
                "loadSession": True,
                "promptCapabilities": {"image": True, "audio": False, "embeddedContext": True},
                "mcpCapabilities": {"http": True, "sse": False},
                "sessionCapabilities": {"resume": {}, "close": {}},
            },
            "authMethods": [],
        }

    async def _nothing(self, params: Mapping[str, Any]) -> Mapping[str, object]:  # noqa: ARG002
        return {}

    async def _new(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        history = History.new(self._folder, _folder(params))
        history.hold()
        self._keep(history, params)
        return {"sessionId": history.id, "modes": self._modes(self._mode)}

    async def _load(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        session = self._taken_up(params)
        for update in updates_of(session.history.messages):
            await self._peer.notify("session/update", {"sessionId": session.history.id, "update": update})
        return {"modes": self._modes(session.mode)}

    async def _resume(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        return {"modes": self._modes(self._taken_up(params).mode)}

    async def _close(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        session = self._open.pop(str(params.get("sessionId")), None)
        if session is not None:
            session.cancel()
            if session.working is not None:
                await asyncio.wait({session.working})
            if session.turns is not None:
                await session.turns.close()
            session.history.release()
        return {}

    async def _set_mode(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        mode = params.get("modeId")
        if mode not in MODES:
            raise Refusal(INVALID_PARAMS, f"there is no mode {mode!r}; there are: {', '.join(MODES)}")
        session = self._session(params)
        session.mode = str(mode)
        told = {"sessionUpdate": "current_mode_update", "currentModeId": session.mode}
        await self._peer.notify("session/update", {"sessionId": session.history.id, "update": told})
        return {}

    async def _prompt(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        session = self._session(params)
        history = session.history
        content = words.blocks(params.get("prompt"))
        _idle(session)
        telling = Telling(self._peer, history.id, Path(history.cwd), history.spent, session.always)
        session.cancelled = False
        session.working = asyncio.create_task(self._work(session, content, telling), name="work on a prompt")
        try:
            reason, usage = await session.working
        except asyncio.CancelledError:
            if not session.cancelled:
                raise
            reason, usage = "cancelled", telling.used
        except OvernightError as error:
            raise Refusal(words.code_of(error), error.detail, words.told(error)) from None
        except Fatal as fatal:
            raise Refusal(FAILED, str(fatal)) from None
        finally:
            session.working = None
            # However it ended: what a client was told of the session's cost never becomes less.
            if telling.used.cost_usd:
                history.spend(telling.used.cost_usd)
        return {"stopReason": reason, "usage": words.usage(usage)}

    async def _work(
        self, session: Open, content: tuple[InputBlock, ...], telling: Telling
    ) -> tuple[str, ModelUsage]:
        if session.turns is None:
            session.turns = await self._workshop(session.history, session.servers)
        return await session.turns.run(content, telling, session.mode)

    def _taken_up(self, params: Mapping[str, Any]) -> Open:
        cwd, id = _folder(params), str(params.get("sessionId"))
        known = self._open.get(id)
        if known is not None:
            _idle(known)
        history = known.history if known is not None else History.load(self._folder, id)
        if history.cwd != cwd:
            raise Refusal(INVALID_PARAMS, f"the session works in {history.cwd}, and not in {cwd}")
        if known is None:
            history.hold()
        return self._keep(history, params)

    def _keep(self, history: History, params: Mapping[str, Any]) -> Open:
        given = params.get("mcpServers") or []
        if not isinstance(given, list):
            raise Refusal(INVALID_PARAMS, "mcpServers has to be a list")
        servers = [server for server in given if isinstance(server, Mapping)]
        session = self._open[history.id] = Open(history, servers, self._mode)
        return session

    def _session(self, params: Mapping[str, Any]) -> Open:
        session = self._open.get(str(params.get("sessionId")))
        if session is None:
            raise Refusal(NOT_FOUND, f"no session {params.get('sessionId')!r} is open here")
        return session

    def _modes(self, current: str) -> Mapping[str, object]:
        known = [{"id": id, "name": id.capitalize(), "description": said} for id, said in MODES.items()]
        return {"currentModeId": current, "availableModes": known}


def _idle(session: Open) -> None:
    if session.working is not None:
        raise Refusal(INVALID_PARAMS, "a prompt is being worked on; cancel it, or wait for its end")


def _folder(params: Mapping[str, Any]) -> str:
    cwd = params.get("cwd")
    if not isinstance(cwd, str) or not cwd.startswith("/") or not Path(cwd).is_dir():
        raise Refusal(INVALID_PARAMS, f"cwd has to be a folder that is there, by its absolute path: {cwd!r}")
    return cwd
