"""Connections that are lost and come back: kept up, watched, and spoken of once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Never

import structlog

from overnight.stores.relay.figures import Figures

FIRST_PAUSE_S: Final = 0.05
MOST_PAUSE_S: Final = 2.0
STEADY_S: Final = 1.0
"""A connection that held for so long is worth an immediate new attempt."""

log = structlog.get_logger(__name__)


class LineLost(Exception):
    """A connection is gone, or cannot be had. Its text can be shown: it holds no secret."""


class Health:
    """How the lines of one carrier stand. Each trouble is logged once until all is well again; the gauge follows."""

    def __init__(self, carrier: str, where: str, figures: Figures, lines: Sequence[str]) -> None:
        self._log = log.bind(carrier=carrier, where=where)
        self._figures = figures
        self._troubles: dict[str, str | None] = dict.fromkeys(lines, "not connected yet")
        self._lines = frozenset(lines)
        self._untried = set(lines)
        self._said: set[str] = set()
        self._tried = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        """What does not work at this moment."""
        return next((trouble for trouble in self._troubles.values() if trouble is not None), None)

    async def tried(self, timeout: float) -> None:
        """Wait until every line has been up or failed once, or for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._tried.wait()
        except TimeoutError:
            return

    def up(self, line: str) -> None:
        """It works."""
        if self._troubles.get(line) is not None:
            if line in self._lines - self._untried:
                self._figures.add("reconnected")
            self._change(line, None)

    def down(self, line: str, trouble: str) -> None:
        """It does not."""
        if self._troubles.get(line) != trouble:
            self._change(line, trouble)

    def _change(self, line: str, trouble: str | None) -> None:
        self._untried.discard(line)
        self._troubles[line] = trouble
        if not self._untried:
            self._tried.set()
        standing = self.trouble
        if standing is None:
            self._figures.stands(connected=True)
            self._said.clear()
            self._log.info("notifier.connected")
        elif trouble is not None:
            self._figures.stands(connected=False)
            if trouble not in self._said:
                self._said.add(trouble)
                self._log.warning("notifier.disconnected", line=line, reason=trouble)


async def tend(line: str, session: Callable[[], Awaitable[None]], health: Health) -> Never:
    """Run `session` (connect, say `health.up`, work) for ever, with pauses that grow while it cannot connect."""
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_S
    while True:
        begun = loop.time()
        try:
            await session()
        except LineLost as lost:
            health.down(line, str(lost))
        except Exception as error:
            log.exception("notifier.line_failed", line=line)
            health.down(line, f"an error of ours: {type(error).__name__}")
        if loop.time() - begun > STEADY_S:
            pause = FIRST_PAUSE_S
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 -- only so that servers do not come in step
        pause = min(pause * 2, MOST_PAUSE_S)
