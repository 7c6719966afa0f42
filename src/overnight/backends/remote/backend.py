"""The backend `remote`: a name under which runs wait for workers of any kind, that lease them over REST.

No worker of ours offers it, so nothing is ever started here.
"""

from __future__ import annotations

from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.errors import BackendFailure
from overnight.ports.backend import BackendTurn, StoreInput, TurnStart

CAPABILITIES = Capabilities(interrupt=True, usage=True, workspace=False)
_STAMP = "remote-1"


class RemoteBackend:
    """See `ports.backend.Backend`."""

    def __init__(self, clock: Clock, name: str = "remote") -> None:
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
        """Whether anybody leases is seen in the list of workers, not here."""
        now = self._clock.wall_ms()
        return BackendCheck(
            name=self._name, status="ok", version="1", capabilities=CAPABILITIES, checked_at=now, stamp=_STAMP
        )

    def stamp(self) -> str:
        """Never changes."""
        return _STAMP

    async def start(self, start: TurnStart, store_input: StoreInput) -> BackendTurn:  # noqa: ARG002  # the port's
        """Never possible."""
        raise BackendFailure(
            f"runs of {self._name} are carried out by workers that lease them over REST",
            code="not_here", retryable=False,
        )  # fmt: skip

    async def adopt(self, start: TurnStart, store_input: StoreInput) -> None:  # noqa: ARG002  # the port's
        """Nothing was started."""
        return
