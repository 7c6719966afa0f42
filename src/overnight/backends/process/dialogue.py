"""Keeps a codec that talks back and the agent in step: what is to be said is said once, what is to be done is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from overnight.backends.process.hands import Hands
from overnight.backends.process.talk import Deed, Say, Talking, TerminalState, UseTerminal
from overnight.domain.action import Edit
from overnight.domain.update import Asked, ToolCompleted, Update
from overnight.errors import KeeperGone, LeaseLost, OvernightError
from overnight.ports.backend import Verdict

MOST_SHOWN: Final = 256 * 1024
"""Characters of a file that are shown beside what it shall become."""
MOST_PRINTED: Final = 64 * 1024
"""Bytes of a terminal's output that stand with the tool call it belongs to."""
AGAIN_S: Final = 1.0
"""How long to wait before an answer that could not be stored is tried again."""

Deliver = Callable[[bytes], Awaitable[bool]]
"""Stores a message under the next number and sends it; False when the agent reads no more."""

log = structlog.get_logger(__name__)


class Dialogue:
    """Of one turn. All but `answer` belong to the one who reads the turn."""

    def __init__(self, codec: Talking, hands: Hands, deliver: Deliver) -> None:
        self._codec = codec
        self._hands = hands
        self._deliver = deliver
        self._answering = asyncio.Lock()
        self._waiting: set[asyncio.Task[None]] = set()
        self._shown: dict[str, Asked] = {}
        self._closed = False

    @property
    def under_way(self) -> bool:
        """Whether the agent has been given its prompt, or the turn has ended before that."""
        return self._codec.under_way or self._codec.over

    @property
    def over(self) -> bool:
        """Whether the agent has nothing more to do."""
        return self._codec.over

    def asks(self) -> tuple[Asked, ...]:
        """What people are to be asked, as it was shown."""
        return tuple(self._shown.get(ask.key, ask) for ask in self._codec.asks())

    async def begin(self) -> None:
        """After a replay: what was asked is looked at again, so that `asks` shows it."""
        for ask in self._codec.asks():
            await self._show(ask)

    async def attend(self, updates: Sequence[Update]) -> tuple[Update, ...]:
        """Do what these updates have brought up; returns them as they are to be recorded."""
        await self.run_errands()
        return tuple([await self._completed(update) for update in updates])

    async def run_errands(self) -> None:
        """Say and do what needs nobody's leave."""
        for errand in self._codec.errands():
            if self._closed:
                return
            if isinstance(errand, Say):
                await self._say(errand)
            elif isinstance(errand, UseTerminal) and errand.verb == "wait":
                task = asyncio.create_task(self._outlast(errand), name=f"wait for {errand.terminal}")
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
            else:
                await self._carry_out(errand)

    async def answer(self, key: str, verdict: Verdict) -> bool:
        """See `BackendTurn.answer`."""
        async with self._answering:
            if self._closed:
                return False
            errand = self._codec.decide(key, verdict)
            if errand is None:
                return False
            return await (self._say(errand) if isinstance(errand, Say) else self._carry_out(errand))

    def farewell(self) -> bytes:
        """The agent's own interrupt. From now on nothing else is said."""
        said = b"" if self._closed else self._codec.farewell()
        self._closed = True
        return said

    async def stop(self) -> None:
        """Have the agent's terminals ended."""
        await self._hands.terminals.stop()

    async def leave(self) -> None:
        """Let go of everything without touching it. Idempotent."""
        self._closed = True
        for task in self._waiting:
            task.cancel()
        await self._hands.terminals.leave()

    async def end(self) -> None:
        """The agent is gone: so are its terminals. Idempotent."""
        self._closed = True
        for task in self._waiting:
            task.cancel()
        await self._hands.terminals.end()

    async def renew(self, **limits: float | None) -> None:
        """Pass a renewal, or another deadline, on to the terminals."""
        await self._hands.terminals.renew(**limits)

    async def _carry_out(self, deed: Deed) -> bool:
        say = self._codec.reply(deed.key, await self._hands.do(deed))
        return say is not None and not self._closed and await self._say(say)

    async def _outlast(self, deed: UseTerminal) -> None:
        """Tell how a command ended, however long it takes; a full disk is waited out."""
        while not self._closed:
            try:
                await self._carry_out(deed)
            except LeaseLost:
                return
            except (KeeperGone, OvernightError) as error:
                log.warning("terminal.answer_delayed", terminal=deed.terminal, error=str(error))
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _say(self, say: Say) -> bool:
        if not await self._deliver(say.data):
            return False
        self._codec.said((say.data,))
        self._shown.pop(say.key, None)
        return True

    async def _completed(self, update: Update) -> Update:
        """With what only we know."""
        if isinstance(update, Asked):
            return await self._show(update)
        name = self._codec.terminal_of(update.item_id) if isinstance(update, ToolCompleted) else None
        if name is None or not isinstance(update, ToolCompleted) or update.output:
            return update
        shown = await self._hands.terminals.output(name, MOST_PRINTED)
        if not isinstance(shown, TerminalState):
            return update
        code = shown.exit_code if update.exit_code is None else update.exit_code
        return replace(update, output=shown.output, exit_code=code, ok=update.ok and code in {None, 0})

    async def _show(self, ask: Asked) -> Asked:
        """With what stands in a file now, where the agent tells only what shall stand there."""
        edits = ask.action.edits
        if len(edits) != 1 or edits[0].before is not None:
            return ask
        before = await self._hands.text_of(edits[0].path, MOST_SHOWN)
        if before is None:
            return ask
        shown = Edit(path=edits[0].path, before=before, after=edits[0].after)
        self._shown[ask.key] = replace(ask, action=replace(ask.action, edits=(shown,)))
        return self._shown[ask.key]
