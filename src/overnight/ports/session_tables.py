"""What a transaction offers about sessions. As in `ports.tables`: all calls are synchronous, `pk` is an integer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from overnight.domain.session import Phase, QueuedMessage, Session, SessionMessage, SessionState, Share
from overnight.ids import MessageId, RunId, SessionId, ShareId
from overnight.ports.tables import Idempotency


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions; every field that is set must match. `text` is looked for in the name, case-insensitively."""

    owner: str | None = None
    """Sessions of this owner, and those shared with a user of that name."""
    states: tuple[SessionState, ...] = ()
    mode: str | None = None
    text: str | None = None


class SessionTable(Protocol):
    """Sessions, their histories, and the backends' own session states."""

    def add(self, session: Session) -> Session:
        """Store a new session with its stream; `session.pk` is ignored."""
        ...

    def get(self, session_id: SessionId, owner: str | None) -> Session:
        """Raises NotFound, also for another owner's session."""
        ...

    def lock(self, pk: int) -> Session:
        """As it is now, held until the transaction ends."""
        ...

    def save(self, session: Session) -> None:
        """Write all that can change."""
        ...

    def page(
        self, filter: SessionFilter, *, limit: int, after: tuple[int, int] | None = None
    ) -> tuple[Session, ...]:
        """Newest first by (created_at, pk)."""
        ...

    def live_runs(self, pk: int) -> int:
        """How many of its runs are not final."""
        ...

    def untouched(self, state: SessionState, before: int, limit: int) -> tuple[int, ...]:
        """Keys of sessions in `state` not updated since `before` and without a live run, oldest first."""
        ...

    def delete(self, pk: int) -> tuple[RunId, ...]:
        """Remove it with everything that hangs on it; its runs' ids come back. Raises Conflict with a live run.

        The caller removes the files, and trims long logs in slices first.
        """
        ...

    def add_message(self, pk: int, message: SessionMessage) -> None:
        """Append to the history; what it costs does not depend on how much is there."""
        ...

    def touch(self, pk: int, at: int, *, phase: Phase | None = None, step: int | None = None) -> None:
        """It was used at that moment; phase and step where they are given. Writes nothing else."""
        ...

    def messages(self, pk: int, last: int, before: int | None = None) -> tuple[SessionMessage, ...]:
        """The last messages (before the one with that number, from 1, where it is given), oldest first."""
        ...

    def message_count(self, pk: int) -> int:
        """How long the history is."""
        ...

    def backend_state(self, pk: int, backend: str) -> dict[str, object]:
        """What `SessionKnown` last said for (session, backend); empty if nothing."""
        ...

    def save_backend_state(self, pk: int, backend: str, state: Mapping[str, object]) -> None:
        """Replace it."""
        ...


class QueueTable(Protocol):
    """Messages to sessions that wait for their turn."""

    def add(self, message: QueuedMessage) -> QueuedMessage:
        """Store; `message.pk` is ignored."""
        ...

    def get(self, session_pk: int, message_id: MessageId) -> QueuedMessage:
        """In whatever state. Raises NotFound."""
        ...

    def queued(self, session_pk: int, limit: int) -> tuple[QueuedMessage, ...]:
        """Those that still wait, oldest first."""
        ...

    def save(self, message: QueuedMessage, at: int) -> None:
        """Write state, run and turn."""
        ...


class KeyTable(Protocol):
    """Idempotency-Keys of what was made in or with a session. They go with it."""

    def find(self, owner: str, route: str, key: str) -> tuple[Idempotency, str] | None:
        """The hash that came with that key, and the id of what it made."""
        ...

    def add(self, owner: str, given: Idempotency, session_pk: int, made: str) -> None:
        """Remember. Raises Conflict when the key is known."""
        ...


class ShareTable(Protocol):
    """To whom sessions are open besides their owners."""

    def add(self, share: Share) -> Share:
        """Store; `share.pk` is ignored. A second one for the same user replaces the first."""
        ...

    def of_session(self, session_pk: int) -> tuple[Share, ...]:
        """All that can be used or could be once, oldest first."""
        ...

    def find(self, session_pk: int, user: str) -> Share | None:
        """The usable one for that user, whoever looks at its expiry."""
        ...

    def with_user(self, user: str) -> tuple[int, ...]:
        """Keys of the sessions that are shared with that user by shares not revoked."""
        ...

    def by_digest(self, digest: str) -> Share | None:
        """The link with that code."""
        ...

    def revoke(self, session_pk: int, share_id: ShareId, at: int) -> Share:
        """Idempotent; tokens that were made from it are revoked too. Raises NotFound."""
        ...

    def bind(self, token_pk: int, share_pk: int) -> None:
        """That token is good for this share's session alone."""
        ...

    def of_token(self, token_pk: int) -> Share | None:
        """The share that a token is bound to."""
        ...
