"""The echo backend: one message with the prompt, no process, no workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator

from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.run import Position
from overnight.domain.update import Asked, Message, TurnOutcome
from overnight.domain.values import Failure
from overnight.ports.backend import Batch, Ended, Stopped, StoreInput, TurnStart, Verdict

CAPABILITIES = Capabilities(interrupt=True, workspace=False)
_STAMP = "echo-1"


class EchoTurn:
    """A turn that is over as soon as it is read."""

    def __init__(self, start: TurnStart) -> None:
        self._start = start
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """There is no process."""
        return None

    async def batches(self) -> AsyncIterator[Batch]:
        """The prompt, once."""
        if not self._stopped:
            message = Message(item_id="echo", text=self._start.prompt)
            yield Batch(updates=(message,), position=Position(), final=True)

    def ended(self) -> Ended:
        """Ended well, and the goal is reached; unless it was stopped before."""
        if self._stopped:
            failure = Failure(code="stopped", message="the turn was stopped")
            return Ended(outcome=TurnOutcome(failure=failure), stopped=Stopped(), cause="stopped")
        return Ended(outcome=TurnOutcome(stop_reason="end_turn", done=True))

    async def renew(self, sent_at: float, lease_s: float) -> None:
        """Nothing to renew: it lives and dies with the server."""

    def open_asks(self) -> tuple[Asked, ...]:
        """Never any: it wants nothing."""
        return ()

    async def answer(self, key: str, verdict: Verdict) -> bool:  # noqa: ARG002  # the port names them
        """Nothing was asked."""
        return False

    async def extend(self, deadline: float) -> None:
        """There is no deadline: it is over at once."""

    async def inject(self, text: str) -> bool:  # noqa: ARG002  # the port names it
        """Never: it is past it."""
        return False

    async def stop(self, *, reason: str, interrupt: bool) -> None:  # noqa: ARG002  # the port names them
        """See `BackendTurn.stop`."""
        self._stopped = True

    async def release(self) -> None:
        """Nothing to release."""

    async def leave(self) -> None:
        """Nothing to leave."""
        self._stopped = True


class EchoBackend:
    """Answers every prompt with the prompt and calls the goal reached."""

    def __init__(self, clock: Clock, name: str = "echo") -> None:
        self._clock = clock
        self._name = name

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend.capabilities`."""
        return CAPABILITIES

    async def check(self) -> BackendCheck:
        """Always ready."""
        now = self._clock.wall_ms()
        return BackendCheck(
            name=self._name, status="ok", version="1", capabilities=CAPABILITIES, checked_at=now, stamp=_STAMP
        )

    def stamp(self) -> str:
        """Never changes."""
        return _STAMP

    async def start(self, start: TurnStart, store_input: StoreInput) -> EchoTurn:  # noqa: ARG002  # the port names it
        """See `Backend.start`."""
        return EchoTurn(start)

    async def adopt(self, start: TurnStart, store_input: StoreInput) -> None:  # noqa: ARG002  # the port names them
        """Never: it did not outlive its server."""
        return
