"""Decodes a program that simply prints. Pure.

Every line is output; together, without sentinel lines, they are the answer, of which the last 64 KiB are kept.
"""

from __future__ import annotations

from overnight.backends.process.failures import shortened
from overnight.backends.process.lines import StandardError
from overnight.backends.process.program import Exit, Verdict
from overnight.domain.update import Message, Output, TurnOutcome, Update
from overnight.domain.values import Failure

_MAX_ANSWER = 64 * 1024
_SENTINELS = (b'"__overnight__"', b'"__cody_event__"')
_TEMPORARY = 75
"""EX_TEMPFAIL of sysexits.h: the program says that trying again may help."""


class CommandCodec:
    """One turn."""

    def __init__(self) -> None:
        self._errors = StandardError()
        self._answer: list[bytes] = []
        self._size = 0

    def stdout(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stdout`."""
        if not (line.startswith(b"{") and any(mark in line[:512] for mark in _SENTINELS)):
            self._keep(line)
        return [Output(stream="stdout", data=line, total=total)]

    def stderr(self, line: bytes, total: int | None = None) -> list[Update]:
        """See `Codec.stderr`."""
        return [self._errors.feed(line, total)]

    def inject(self, text: str) -> bytes | None:  # noqa: ARG002  # the port names it
        """Never: stdin is closed after the prompt."""
        return None

    def finish(self, exit: Exit) -> Verdict:
        """See `Codec.finish`: here the exit status is all there is. 75 asks to be tried again."""
        text = b"".join(self._answer)[-_MAX_ANSWER:].decode("utf-8", "replace").strip()
        updates: tuple[Update, ...] = (Message(item_id="answer", text=text),) if text else ()
        if exit.code == 0:
            return Verdict(outcome=TurnOutcome(stop_reason="end_turn"), updates=updates)
        return Verdict(outcome=TurnOutcome(failure=self._failure(exit)), updates=updates)

    def _failure(self, exit: Exit) -> Failure:
        if exit.signal is not None:
            message = f"the program was ended by signal {exit.signal}"
            return Failure(code="agent_killed", message=message, retryable=True)
        said = self._errors.text.splitlines()[-1:] or ["it said nothing on standard error"]
        message = shortened(f"the program ended with exit status {exit.code}: {said[0]}")
        return Failure(code="agent_exit", message=message, retryable=exit.code == _TEMPORARY)

    def _keep(self, line: bytes) -> None:
        self._answer.append(line)
        self._size += len(line)
        if self._size > 4 * _MAX_ANSWER:
            kept = b"".join(self._answer)[-_MAX_ANSWER:]
            self._answer, self._size = [kept], len(kept)
