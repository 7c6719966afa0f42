"""The tables through which people take part: messages, shares, approvals with their rules, connections."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, Text

from overnight.stores.sql.conventions import COUNTED, STRICT, Key, metadata, one_of, partial_index

queue: Final = Table(
    "queue",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("session_pk", Key, ForeignKey("sessions.pk"), nullable=False),
    Column("text", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("run_id", Text),
    Column("created_at", Key, nullable=False),
    Column("settled_at", Key),
    Column("turn", Key),
    CheckConstraint(one_of("state", ["queued", "sent", "removed"]), name="state"),
    CheckConstraint("(state = 'queued') = (settled_at IS NULL)", name="settled_at"),
    **COUNTED,
)
"""Messages to sessions that wait for their turn."""

session_keys: Final = Table(
    "session_keys",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("session_pk", Key, ForeignKey("sessions.pk"), nullable=False, index=True),
    Column("made", Text, nullable=False),
    **STRICT,
)
"""Idempotency-Keys of what was made in or with a session; `made` is its id."""

shares: Final = Table(
    "shares",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("session_pk", Key, ForeignKey("sessions.pk"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("user", Text),
    Column("role", Text, nullable=False),
    Column("digest", Text, unique=True),
    Column("actor", Text, nullable=False),
    Column("created_at", Key, nullable=False),
    Column("expires_at", Key),
    Column("revoked_at", Key),
    CheckConstraint(one_of("kind", ["user", "link"]), name="kind"),
    CheckConstraint(one_of("role", ["viewer", "operator", "decider"]), name="role"),
    CheckConstraint("(kind = 'user') = (\"user\" IS NOT NULL)", name="user"),
    CheckConstraint("(kind = 'link') = (digest IS NOT NULL)", name="digest"),
    **COUNTED,
)

token_shares: Final = Table(
    "token_shares",
    metadata,
    Column("token_pk", Key, ForeignKey("tokens.pk"), primary_key=True, autoincrement=False),
    Column("share_pk", Key, ForeignKey("shares.pk"), nullable=False, index=True),
    **STRICT,
)
"""Tokens that are good for one shared session alone: what a link's code was exchanged for."""

approvals: Final = Table(
    "approvals",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("run_pk", Key, ForeignKey("runs.pk"), nullable=False),
    Column("run_id", Text, nullable=False),
    Column("session_pk", Key, ForeignKey("sessions.pk"), nullable=False),
    Column("session_id", Text, nullable=False),
    Column("turn", Key),
    Column("attempt", Key),
    Column("request", Text),
    Column("kind", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("action", Text),
    Column("digest", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("decision", Text),
    Column("chosen", Text),
    Column("default_option", Text, nullable=False),
    Column("expires_at", Key, nullable=False),
    Column("created_at", Key, nullable=False),
    Column("resolved_at", Key),
    Column("used_at", Key),
    CheckConstraint(
        one_of(
            "kind",
            ["plan", "step", "tool_call", "file_edit", "command", "question", "budget", "error_recovery"],
        ),
        name="kind",
    ),
    CheckConstraint(one_of("state", ["pending", "resolved", "expired", "cancelled"]), name="state"),
    CheckConstraint("(state = 'pending') = (resolved_at IS NULL)", name="resolved_at"),
    CheckConstraint("(state IN ('resolved', 'expired')) = (decision IS NOT NULL)", name="decision"),
    **COUNTED,
)
"""`chosen` is the kind of the option decided on: what an equal action later in the run is looked up by."""

rules: Final = Table(
    "rules",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("session_pk", Key, ForeignKey("sessions.pk"), nullable=False),
    Column("rule", Text, nullable=False),
    Column("approval_pk", Key, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Key, nullable=False),
    **COUNTED,
)
"""Standing answers of a session, each left by a decision."""

connections: Final = Table(
    "connections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("server", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("target", Text),
    Column("client", Text),
    Column("connected_at", Key, nullable=False),
    Column("heartbeat_at", Key, nullable=False),
    CheckConstraint(one_of("kind", ["sse", "socket"]), name="kind"),
    **STRICT,
)

Index("ix_queue_waiting", queue.c.session_pk, queue.c.state, queue.c.pk)
Index("ix_shares_of_user", shares.c.user, shares.c.session_pk)
partial_index("uq_shares_user", shares.c.session_pk, shares.c.user, where="revoked_at IS NULL", unique=True)
Index("ix_approvals_run", approvals.c.run_pk, approvals.c.state, approvals.c.pk)
Index("ix_approvals_session", approvals.c.session_pk, approvals.c.pk)
Index("ix_approvals_owner_newest", approvals.c.owner, approvals.c.created_at, approvals.c.pk)
Index("ix_approvals_newest", approvals.c.created_at, approvals.c.pk)
partial_index("ix_approvals_overdue", approvals.c.expires_at, approvals.c.pk, where="state = 'pending'")
partial_index(
    "uq_approvals_request",
    approvals.c.run_pk,
    approvals.c.turn,
    approvals.c.attempt,
    approvals.c.request,
    where="request IS NOT NULL",
    unique=True,
)
Index("uq_rules_rule", rules.c.session_pk, rules.c.rule, unique=True)
Index("ix_connections_server", connections.c.server, connections.c.heartbeat_at)
Index("ix_connections_owner", connections.c.owner)
