"""The server's side of one keeper: orders under a fencing token, and a view of the turn that can be waited for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
from dataclasses import dataclass, replace
from typing import Any, Literal

from overnight.backends.process.channel import Channel, Message, Refused
from overnight.errors import KeeperGone, LeaseLost
from overnight.keeper_protocol import (
    ExitRecord,
    Identity,
    Interrupt,
    KeeperState,
    Reason,
    identity_from,
    is_same_process,
    record_from,
    state_from,
    to_json,
)

ANSWER_WITHIN_S = 10.0
"""A keeper answers at once; one that is silent for so long is stopped or stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperView:
    """What a keeper has said so far. A newer view replaces an older one; none is worth queueing."""

    stdout: int
    """Bytes in the output file."""
    stderr: int
    stalled: bool = False
    """The disk takes no more output, the agent waits."""
    survivors: int = 0
    """Processes that a ladder has not been able to end so far."""
    record: ExitRecord | None = None
    """Set when everything has ended and all output is in the files."""
    link: Literal["up", "superseded", "lost"] = "up"
    """superseded: another holder with a higher token has taken over. lost: the connection ended; attach again."""


class _Silent(KeeperGone):
    """It lives, perhaps, and does not answer."""


class KeeperClient:
    """An attached keeper. Orders raise LeaseLost when a higher token has taken over, KeeperGone when nobody answers.

    The caller must `close` it; that touches neither keeper nor agent.
    """

    def __init__(self, channel: Channel, identity: Identity, state: KeeperState, token: int) -> None:
        self.identity = identity
        self.state = state
        """What it said when we attached; `view` goes on from there."""
        self.token = token
        self.stdin_last = state.stdin_last
        """Number of the last stdin message that it has taken."""
        self._channel = channel
        self._view = KeeperView(
            stdout=state.stdout_bytes, stderr=state.stderr_bytes, stalled=state.stalled, record=state.record
        )
        self._changed = asyncio.Event()
        self._listener = asyncio.ensure_future(self._listen())

    @classmethod
    def welcomed(cls, channel: Channel, welcome: Message, token: int) -> KeeperClient:
        """The client of a keeper that has just said welcome."""
        return cls(channel, identity_from(welcome["identity"]), state_from(welcome["state"]), token)

    @property
    def view(self) -> KeeperView:
        """The newest view."""
        return self._view

    async def changed(self, seen: KeeperView) -> KeeperView:
        """The newest view, as soon as it differs from `seen`."""
        while self._view == seen:
            self._changed.clear()
            await self._changed.wait()
        return self._view

    async def ended(self) -> ExitRecord:
        """The record, once there is one. Raises LeaseLost, KeeperGone."""
        view = self._view
        while view.record is None:
            if view.link == "superseded":
                raise LeaseLost(f"token {self.token} of this turn has been superseded")
            if view.link == "lost":
                raise KeeperGone("the connection to the keeper ended")
            view = await self.changed(view)
        return view.record

    async def renew(self, **limits: float | None) -> None:
        """Move `orphan_deadline` or `deadline` (boot-clock seconds, None for none); without either, check the hold."""
        await self._order("renew", **limits)

    async def send_stdin(self, number: int, data: bytes) -> int:
        """Hand over stdin message `number`; one that was taken before is left out. Returns the last number taken.

        Raises Refused `stdin_gap`, `stdin_full` (try again later) or `stdin_closed`.
        """
        answer = await self._order("stdin", n=number, data=base64.b64encode(data).decode("ascii"))
        return int(answer["stdin_last"])

    async def close_stdin(self) -> None:
        """Close stdin behind everything taken so far. Idempotent."""
        await self._order("close_stdin")

    async def ladder(
        self,
        reason: Reason = "stopped",
        *,
        interrupt: Interrupt | Literal[True] | None = None,
        grace_s: float | None = None,
    ) -> None:
        """End the agent and all it started; `view` tells when that is so. Again: faster, never slower.

        `interrupt` is the first step (True: the one given at launch); `grace_s` None is the launch's. An agent may
        have stopped its keeper: it is let go on, and killed if it still does not answer, so that its spawner sweeps.
        """
        asked: dict[str, Any] = {} if grace_s is None else {"grace_s": grace_s}
        self._signal(signal.SIGCONT)
        try:
            await self._order("ladder", reason=reason, interrupt=to_json(interrupt), **asked)
        except _Silent:
            self._signal(signal.SIGKILL)
            raise

    async def release(self) -> None:
        """The end has been recorded: the keeper may go. Raises Refused `still_running`."""
        await self._order("release")

    async def close(self) -> None:
        """Let go. Idempotent."""
        self._channel.close()
        await self._listener

    def _signal(self, number: signal.Signals) -> None:
        keeper = self.identity
        if is_same_process(keeper.pid, keeper.starttime, keeper.boot_id, keeper.pid_ns):
            with contextlib.suppress(OSError):
                os.kill(keeper.pid, number)

    async def _order(self, kind: str, **fields: object) -> Message:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await self._channel.ask(kind, token=self.token, **fields)
        except Refused as refused:
            if refused.reason == "stale_token":
                raise LeaseLost(refused.detail) from refused
            raise
        except TimeoutError:
            raise _Silent(f"the keeper has not answered for {ANSWER_WITHIN_S:g} s") from None
        self.stdin_last = max(self.stdin_last, int(answer["stdin_last"]))
        return answer

    async def _listen(self) -> None:
        await self._channel.listen(self._hear)
        if self._view.link == "up":
            self._see(replace(self._view, link="lost"))

    def _hear(self, message: Message) -> None:
        match message["type"]:
            case "grew":
                out, err = int(message["stdout"]), int(message["stderr"])
                self._see(replace(self._view, stdout=out, stderr=err, stalled=bool(message["stalled"])))
            case "surviving":
                self._see(replace(self._view, survivors=int(message["count"])))
            case "exited":
                self._see(self._at_end(record_from(message["record"])))
            case "superseded":
                self._see(replace(self._view, link="superseded"))
            case _:
                return

    def _at_end(self, record: ExitRecord) -> KeeperView:
        return replace(
            self._view,
            stdout=record.stdout_bytes,
            stderr=record.stderr_bytes,
            stalled=False,
            survivors=record.survivors or 0,
            record=record,
        )

    def _see(self, view: KeeperView) -> None:
        self._view = view
        self._changed.set()
