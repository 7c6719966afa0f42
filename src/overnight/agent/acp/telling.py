"""What the loop tells, as updates of one session; and its questions, as requests for permission."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from overnight.agent.acp import tool_calls
from overnight.agent.acp.peer import Peer, Refusal
from overnight.agent.loop.telling import Call, Leave
from overnight.agent.tools.tool import PlanStep, ToolOutcome
from overnight.ports.model import ModelUsage

_OPTIONS: Final = (
    {"optionId": "allow_once", "name": "Allow", "kind": "allow_once"},
    {"optionId": "allow_always", "name": "Always allow", "kind": "allow_always"},
    {"optionId": "reject_once", "name": "Reject", "kind": "reject_once"},
)


class Telling:
    """The `Listener` of a session's turns."""

    def __init__(self, peer: Peer, session: str, root: Path, spent: float, always: set[str]) -> None:
        self._peer = peer
        self._session = session
        self._root = root
        self._spent = spent
        """What the session had cost before this turn, in dollars."""
        self._numbers = itertools.count(1)
        self._message = ""
        self._always = always
        self.used = ModelUsage()
        """What the turn has used, as far as it is known."""

    async def text(self, delta: str) -> None:
        """See `Listener`."""
        await self._chunk("agent_message_chunk", delta)

    async def thought(self, delta: str) -> None:
        """See `Listener`."""
        await self._chunk("agent_thought_chunk", delta)

    async def broken_off(self, why: str) -> None:
        """See `Listener`: the pieces so far are a message of their own, and the next try begins another."""
        self._message = ""
        await self._update({
            "sessionUpdate": "agent_thought_chunk",
            "content": {"type": "text", "text": f"(the model is asked again: {why})"},
            "messageId": self._named(),
        })  # fmt: skip
        self._message = ""

    async def began(self, call: Call) -> None:
        """See `Listener`."""
        self._message = ""
        await self._update(tool_calls.begun(call, self._root))

    async def progress(self, call: Call, text: str) -> None:
        """See `Listener`."""
        await self._update(tool_calls.progress(call, text))

    async def ended(self, call: Call, outcome: ToolOutcome) -> None:
        """See `Listener`."""
        await self._update(tool_calls.ended(call, outcome, self._root))

    async def plan(self, steps: tuple[PlanStep, ...]) -> None:
        """See `Listener`."""
        entries = [{"content": step.text, "priority": "medium", "status": step.status} for step in steps]
        await self._update({"sessionUpdate": "plan", "entries": entries})

    async def usage(self, turn: ModelUsage) -> None:
        """See `Listener`. The protocol has the session's cost; the turn's tokens are told with its end."""
        self._message = ""
        latest, self.used = turn.total - self.used.total, turn
        if turn.cost_usd is not None:
            cost = {"amount": round(self._spent + turn.cost_usd, 9), "currency": "USD"}
            # How much the model could take in is the server's to know: the conversation's own size stands for it.
            size = {"used": latest, "size": latest}
            await self._update({"sessionUpdate": "usage_update", **size, "cost": cost})

    async def ask(self, call: Call) -> Leave:
        """See `Listener`. A peer that has no such request has refused."""
        if call.name in self._always:
            return Leave(allowed=True)
        asked = {
            "sessionId": self._session,
            "toolCall": tool_calls.shown(call, self._root),
            "options": list(_OPTIONS),
        }
        try:
            answer = await self._peer.request("session/request_permission", asked)
        except Refusal as refusal:
            return Leave(allowed=False, feedback=refusal.message)
        outcome = answer.get("outcome") if isinstance(answer, Mapping) else None
        chosen = outcome.get("optionId") if isinstance(outcome, Mapping) else None
        if chosen == "allow_always":
            self._always.add(call.name)
        return Leave(allowed=chosen in {"allow_once", "allow_always"})

    async def _chunk(self, kind: str, delta: str) -> None:
        if not delta:
            return
        if not self._message.startswith(kind):
            self._message = f"{kind}-{self._named()}"
        told = {"sessionUpdate": kind, "content": {"type": "text", "text": delta}}
        await self._update({**told, "messageId": self._message})

    async def _update(self, update: Mapping[str, object]) -> None:
        await self._peer.notify("session/update", {"sessionId": self._session, "update": update})

    def _named(self) -> str:
        return f"msg_{next(self._numbers)}"
