"""What the server needs from the rest of the program, handed over by `compose`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from overnight.clock import Clock
from overnight.domain.mode import Modes
from overnight.domain.rule import Rule
from overnight.engine.approvals import ApprovalService
from overnight.engine.chat import Chat
from overnight.engine.diff import Diffs
from overnight.engine.directory import Backends
from overnight.engine.follow import Follower
from overnight.engine.policy import SessionPolicy
from overnight.engine.service import RunService
from overnight.engine.sessions import SessionService
from overnight.engine.sharing import Sharing
from overnight.engine.turn_files import TurnFiles
from overnight.ids import WorkerId
from overnight.ports.model import Models
from overnight.ports.model_ledger import ModelLedger
from overnight.ports.notifier import Notifier
from overnight.ports.unit_of_work import UnitOfWork
from overnight.server.leases import LeaseCalls
from overnight.server.metrics import Meters


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the operator decides about the server."""

    version: str
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Names that a `Host` header may carry, without port; behind a proxy its public name too."""
    origins: tuple[str, ...] = ()
    """Origins allowed besides the server's own, such as `https://nights.example`."""
    secure: bool = False
    """Clients reach the server by https only: the cookie is marked so."""
    keepalive_s: float = 15.0
    send_timeout_s: float = 10.0
    """A stream whose one send is blocked for this long is dropped."""
    pending_bytes: int = 4 * 1024 * 1024
    """So is one for which this much has piled up while a send is blocked."""
    max_body: int = 1024 * 1024
    max_lease_body: int = 32 * 1024 * 1024
    """A batch of a worker holds what its agent said in half a second, be it ever so much."""
    max_connections: int = 1000
    """Streams and sockets at once; above it new ones are refused with 429."""
    max_connections_per_user: int = 100
    """The same for one user (and apart from it for that user's agents)."""
    worker_stale_s: float = 30.0
    session_days: float = 30.0
    """How long a browser stays logged in."""
    web: bool = True
    """Whether there are pages for a browser, and a login that makes a cookie for them."""

    def body_limit(self, path: str) -> int:
        """How many bytes a body sent there may have."""
        return self.max_lease_body if path.startswith("/api/v1/leases/") else self.max_body


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that routes call. Nothing here is made by the server."""

    settings: ServerSettings
    uow: UnitOfWork
    notifier: Notifier
    clock: Clock
    follower: Follower
    server_id: WorkerId
    """This process, as the rows of its connections name it: the id of its worker."""
    runs: RunService
    sessions: SessionService
    chat: Chat
    sharing: Sharing
    modes: Modes
    rules: Sequence[Rule] = ()
    """The operator's rules about what agents may do, for all runs."""
    session_policy: SessionPolicy
    approvals: ApprovalService
    leases: LeaseCalls
    backends: Backends
    diffs: Diffs
    turn_files: TurnFiles
    doctor: Callable[[], Awaitable[Mapping[str, object]]]
    """The facts of `overnight doctor`: `{status, checks: [{name, status, message, mend}]}`."""
    config: Callable[[], Sequence[Mapping[str, object]]]
    """Every setting with its value (secrets masked) and where it came from."""
    handover: Callable[[], None]
    """Begin to leave the agents to the next server; returns at once."""
    ready: Callable[[], Awaitable[Sequence[str]]]
    """Why the server is not ready to take work; empty when it is."""
    models: Models | None = None
    """Language models for whoever asks over the socket; None: there are none."""
    model_account: ModelLedger
    """What runs have asked of them."""
    meters: Meters = field(default_factory=Meters)
    """Counts for /metrics; the engine's too, where it is given the same."""
    lease_age_s: Callable[[], float] = lambda: 0.0
    """How long ago the longest waiting lease of this process was renewed."""
