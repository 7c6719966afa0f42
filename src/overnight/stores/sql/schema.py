"""The tables. Times are wall milliseconds; every aggregate that a caller can name carries its owner.

Only types that SQLite (STRICT) and Postgres share; documents are canonical JSON text. A run's or session's `pk` is
the key of its stream, so events need no second key.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

from overnight.domain.states import TRANSITIONS, TURN_TRANSITIONS
from overnight.stores.sql.conventions import COUNTED, PACKED, STRICT, Key, ends, one_of

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_RUN_STATES: Final = {state.value: not moves for state, moves in TRANSITIONS.items()}
_TURN_STATES: Final = {state.value: not moves for state, moves in TURN_TRANSITIONS.items()}

streams: Final = Table(
    "streams",
    metadata,
    Column("pk", Key, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("run_id", Text),
    Column("session_id", Text, nullable=False),
    Column("first_seq", Key, nullable=False, server_default=text("1")),
    Column("last_seq", Key, nullable=False, server_default=text("0")),
    Column("last_at", Key),
    CheckConstraint(one_of("kind", ["run", "session"]), name="kind"),
    CheckConstraint("(kind = 'run') = (run_id IS NOT NULL)", name="run_id"),
    **STRICT,
)
"""The keys come from the counter of changes, so that one that was deleted is never given out again: it names topics
and cursors that others may still hold.
"""

events: Final = Table(
    "events",
    metadata,
    Column("stream_pk", Key, primary_key=True, autoincrement=False),
    Column("seq", Key, primary_key=True, autoincrement=False),
    Column("type", Text, nullable=False),
    Column("turn", Key),
    Column("at", Key, nullable=False),
    Column("version", Key, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # No foreign key: every append updates its stream's row in the same transaction, which proves that it exists.
    **PACKED,
)

sessions: Final = Table(
    "sessions",
    metadata,
    Column("pk", Key, ForeignKey("streams.pk"), primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("made_for_run", Key, nullable=False),
    Column("version", Key, nullable=False),
    Column("variables", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("created_at", Key, nullable=False),
    Column("updated_at", Key, nullable=False),
    Column("phase", Text, nullable=False, server_default=text("'init'")),
    Column("step", Key),
    Column("plan", Text),
    Column("name_folded", Text, nullable=False, server_default=text("''")),
    CheckConstraint(one_of("state", ["active", "suspended", "completed", "expired"]), name="state"),
    **STRICT,
)

messages: Final = Table(
    "messages",
    metadata,
    Column("session_pk", Key, ForeignKey("sessions.pk"), primary_key=True),
    Column("n", Key, primary_key=True, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("at", Key, nullable=False),
    Column("run_id", Text),
    Column("turn", Key),
    **STRICT,
)

backend_states: Final = Table(
    "backend_states",
    metadata,
    Column("session_pk", Key, ForeignKey("sessions.pk"), primary_key=True),
    Column("backend", Text, primary_key=True),
    Column("state", Text, nullable=False),
    **STRICT,
)

runs: Final = Table(
    "runs",
    metadata,
    Column("pk", Key, ForeignKey("streams.pk"), primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("session_pk", Key, ForeignKey("sessions.pk"), nullable=False),
    Column("session_id", Text, nullable=False),
    Column("parent_id", Text),
    Column("retry_of", Text),
    Column("host_id", Text, nullable=False),
    Column("workspace", Text),
    Column("mode", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("priority", Key, nullable=False),
    Column("shared", Key, nullable=False),
    Column("gate", Text),
    Column("gate_by", Key),
    Column("worker", Text),
    Column("pid", Key),
    Column("created_at", Key, nullable=False),
    Column("updated_at", Key, nullable=False),
    Column("started_at", Key),
    Column("ended_at", Key),
    Column("token", Key, nullable=False),
    Column("attempt", Key, nullable=False),
    Column("turn", Key, nullable=False),
    Column("fallback", Key, nullable=False),
    Column("stats", Text, nullable=False),
    Column("idle_turns", Key, nullable=False),
    Column("completion", Text),
    Column("error", Text),
    Column("waiting_for", Text),
    Column("waiting_until", Key),
    Column("pause_reason", Text),
    Column("cancellation", Text),
    Column("not_before", Key),
    Column("raised_limits", Text),
    Column("sandbox_effective", Text, nullable=False),
    Column("now", Text),
    Column("change", Key, nullable=False),
    Column("waiting_since", Key),
    CheckConstraint(one_of("state", list(_RUN_STATES)), name="state"),
    CheckConstraint(ends(_RUN_STATES), name="ended_at"),
    CheckConstraint("gate IS NULL OR state = 'queued'", name="gate"),
    CheckConstraint(one_of("gate", ["time", "session", "workspace", "held"]), name="gates"),
    **STRICT,
)
"""Small on purpose, since a save writes the whole row: what never changes lies in `run_specs`.

`gate` says why a queued run need not be looked at by a claim: it is opened by what it waits for (see claims.py), so
that claiming costs the same however many runs wait.
"""

run_specs: Final = Table(
    "run_specs",
    metadata,
    Column("run_pk", Key, ForeignKey("runs.pk"), primary_key=True, autoincrement=False),
    Column("spec", Text, nullable=False),
    Column("goal_folded", Text, nullable=False),
    Column("environment", Text, nullable=False),
    **STRICT,
)

run_labels: Final = Table(
    "run_labels",
    metadata,
    Column("run_pk", Key, ForeignKey("runs.pk"), primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **PACKED,
)

run_places: Final = Table(
    "run_places",
    metadata,
    Column("run_pk", Key, ForeignKey("runs.pk"), primary_key=True, autoincrement=False),
    Column("depth", Key, primary_key=True, autoincrement=False),
    Column("node", Text, nullable=False),
    **PACKED,
)
"""The directory that a run works in (depth 0) and all that it lies in, each as `device:inode`."""

leases: Final = Table(
    "leases",
    metadata,
    Column("run_pk", Key, ForeignKey("runs.pk"), primary_key=True, autoincrement=False),
    Column("worker_pk", Key, nullable=False),
    Column("token", Key, nullable=False),
    Column("renewal", Key, nullable=False),
    **STRICT,
)
"""One narrow row a hold, so that renewing all of a worker's leases touches a page or two."""

workspace_locks: Final = Table(
    "workspace_locks",
    metadata,
    Column("run_pk", Key, ForeignKey("leases.run_pk"), primary_key=True, autoincrement=False),
    Column("depth", Key, primary_key=True, autoincrement=False),
    Column("host_id", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("shared", Key, nullable=False),
    **PACKED,
)

turns: Final = Table(
    "turns",
    metadata,
    Column("run_pk", Key, ForeignKey("runs.pk"), primary_key=True),
    Column("number", Key, primary_key=True, autoincrement=False),
    Column("attempt", Key, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("model", Text),
    Column("token", Key, nullable=False),
    Column("folder", Text, nullable=False),
    Column("pid", Key),
    Column("started_at", Key, nullable=False),
    Column("ended_at", Key),
    Column("first_seq", Key, nullable=False),
    Column("last_seq", Key),
    Column("stdout", Key, nullable=False),
    Column("stderr", Key, nullable=False),
    Column("stop_reason", Text),
    Column("error", Text),
    Column("usage", Text),
    Column("files", Text),
    Column("tests", Text),
    Column("items", Key, nullable=False),
    Column("last_message", Text),
    Column("resume_before", Text, nullable=False),
    Column("blocked_ms", Key, nullable=False, server_default=text("0")),
    CheckConstraint(one_of("state", list(_TURN_STATES)), name="state"),
    CheckConstraint(ends(_TURN_STATES), name="ended_at"),
    **STRICT,
)

inputs: Final = Table(
    "inputs",
    metadata,
    Column("run_pk", Key, ForeignKey("runs.pk"), primary_key=True),
    Column("number", Key, primary_key=True, autoincrement=False),
    Column("attempt", Key, primary_key=True, autoincrement=False),
    Column("n", Key, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    **STRICT,
)

requests: Final = Table(
    "requests",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("run_pk", Key, ForeignKey("runs.pk"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Key, nullable=False),
    Column("settled_at", Key),
    Column("outcome", Text),
    CheckConstraint("(settled_at IS NULL) = (outcome IS NULL)", name="outcome"),
    **COUNTED,
)

tokens: Final = Table(
    "tokens",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("created_at", Key, nullable=False),
    Column("last_used_at", Key),
    Column("expires_at", Key),
    Column("revoked_at", Key),
    CheckConstraint(one_of("kind", ["user", "worker", "agent"]), name="kind"),
    **COUNTED,
)

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

workers: Final = Table(
    "workers",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("host_id", Text, nullable=False),
    Column("host_name", Text, nullable=False),
    Column("pid", Key, nullable=False),
    Column("version", Text, nullable=False),
    Column("slots", Key, nullable=False),
    Column("backends", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("started_at", Key, nullable=False),
    Column("seen_at", Key, nullable=False),
    CheckConstraint(one_of("state", ["active", "draining", "gone"]), name="state"),
    **COUNTED,
)

checks: Final = Table(
    "checks",
    metadata,
    Column("host_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("version", Text),
    Column("capabilities", Text, nullable=False),
    Column("problems", Text, nullable=False),
    Column("checked_at", Key, nullable=False),
    Column("stamp", Text, nullable=False),
    **STRICT,
)

idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("run_pk", Key, ForeignKey("runs.pk"), nullable=False, index=True),
    **STRICT,
)

installation: Final = Table(
    "installation",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    **STRICT,
)

counters: Final = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Key, nullable=False),
    **STRICT,
)
"""`change` orders the changes of all runs and numbers the streams. A row, not a sequence: its lock makes the order
that of the commits.
"""


def _partial(name: str, *columns: Column[object] | object, where: str, unique: bool = False) -> Index:
    # The migrations say the same for Postgres. Here it would load that dialect, with its drivers, at every start.
    return Index(name, *columns, unique=unique, sqlite_where=text(where))  # type: ignore[arg-type]


_partial(
    "ix_runs_due",
    runs.c.host_id,
    runs.c.backend,
    runs.c.priority.desc(),
    runs.c.pk,
    where="state = 'queued' AND gate IS NULL",
)
_partial("ix_runs_gate_time", runs.c.not_before, where="gate = 'time'")
_partial("ix_runs_gate_session", runs.c.session_pk, runs.c.pk, where="gate = 'session'")
_partial("ix_runs_gate_by", runs.c.gate_by, where="gate_by IS NOT NULL")
_partial("ix_runs_held", runs.c.pk, where="state IN ('running', 'pausing', 'blocked', 'cancelling')")
_partial("ix_runs_ended", runs.c.ended_at, runs.c.pk, where="ended_at IS NOT NULL")
Index("ix_runs_newest", runs.c.created_at, runs.c.pk)
Index("ix_runs_owner_newest", runs.c.owner, runs.c.created_at, runs.c.pk)
Index("ix_runs_owner_state", runs.c.owner, runs.c.state, runs.c.created_at, runs.c.pk)
Index("ix_runs_session", runs.c.session_pk, runs.c.ended_at, runs.c.pk)
Index("ix_runs_change", runs.c.change)
Index("ix_leases_worker", leases.c.worker_pk)
Index("ix_workspace_locks_node", workspace_locks.c.host_id, workspace_locks.c.node)
Index("ix_requests_pending", requests.c.run_pk, requests.c.settled_at, requests.c.pk)
Index("ix_sessions_owner_newest", sessions.c.owner, sessions.c.created_at, sessions.c.pk)
Index("ix_sessions_newest", sessions.c.created_at, sessions.c.pk)
Index("ix_sessions_untouched", sessions.c.state, sessions.c.updated_at, sessions.c.pk)
Index("ix_queue_waiting", queue.c.session_pk, queue.c.state, queue.c.pk)
Index("ix_shares_of_user", shares.c.user, shares.c.session_pk)
_partial("uq_shares_user", shares.c.session_pk, shares.c.user, where="revoked_at IS NULL", unique=True)
Index("ix_approvals_run", approvals.c.run_pk, approvals.c.state, approvals.c.pk)
Index("ix_approvals_session", approvals.c.session_pk, approvals.c.pk)
Index("ix_approvals_owner_newest", approvals.c.owner, approvals.c.created_at, approvals.c.pk)
Index("ix_approvals_newest", approvals.c.created_at, approvals.c.pk)
_partial("ix_approvals_overdue", approvals.c.expires_at, approvals.c.pk, where="state = 'pending'")
_partial(
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
_partial("uq_tokens_name", tokens.c.owner, tokens.c.name, where="revoked_at IS NULL", unique=True)

ALL_TABLES: Final = tuple(metadata.sorted_tables)
