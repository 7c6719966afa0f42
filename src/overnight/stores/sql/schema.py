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
    Table,
    Text,
    text,
)

import overnight.stores.sql.model_schema
import overnight.stores.sql.people_schema  # their tables belong to the same metadata
import overnight.stores.sql.remote_schema
import overnight.stores.sql.worker_schema  # noqa: F401 -- these all
from overnight.domain.states import TRANSITIONS, TURN_TRANSITIONS
from overnight.stores.sql.conventions import (
    COUNTED,
    PACKED,
    STRICT,
    Key,
    ends,
    metadata,
    one_of,
    partial_index,
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
    Column("place", Text, nullable=False, server_default=text("''")),
    Column("lane", Key, nullable=False, server_default=text("0")),
    Column("due", Key, nullable=False, server_default=text("0")),
    Column("gate_key", Text),
    Column("limited", Text),
    CheckConstraint(one_of("state", list(_RUN_STATES)), name="state"),
    CheckConstraint(ends(_RUN_STATES), name="ended_at"),
    CheckConstraint("gate IS NULL OR state = 'queued'", name="gate"),
    CheckConstraint(one_of("gate", ["time", "session", "workspace", "held"]), name="gates"),
    **STRICT,
)
"""Small on purpose, since a save writes the whole row: what never changes lies in `run_specs`.

`gate` says why a queued run need not be looked at by a claim: it is opened by what it waits for (see gates.py), so
that claiming costs the same however many runs wait. A run at the gate `workspace` waits for `gate_key`; `limited` is
the limit that was full when it was last looked at. `lane` counts while it is queued; `due` is its turn in its priority.
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
    Column("length", Key, nullable=False, server_default=text("15000")),
    Column("expires_at", Key, nullable=False, server_default=text("0")),
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


partial_index(
    "ix_runs_due",
    runs.c.lane,
    runs.c.priority.desc(),
    runs.c.due,
    runs.c.pk,
    where="state = 'queued' AND gate IS NULL AND limited IS NULL",
)
partial_index(
    "ix_runs_limited",
    runs.c.lane,
    runs.c.limited,
    runs.c.priority.desc(),
    runs.c.due,
    runs.c.pk,
    where="limited IS NOT NULL",
)
partial_index(
    "ix_runs_gate_key",
    runs.c.gate_key,
    runs.c.lane,
    runs.c.priority.desc(),
    runs.c.due,
    runs.c.pk,
    where="gate = 'workspace'",
)
partial_index("ix_runs_gate_time", runs.c.not_before, where="gate = 'time'")
partial_index("ix_runs_gate_session", runs.c.session_pk, runs.c.pk, where="gate = 'session'")
partial_index("ix_runs_held", runs.c.pk, where="state IN ('running', 'pausing', 'blocked', 'cancelling')")
partial_index("ix_runs_ended", runs.c.ended_at, runs.c.pk, where="ended_at IS NOT NULL")
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
partial_index("uq_tokens_name", tokens.c.owner, tokens.c.name, where="revoked_at IS NULL", unique=True)

ALL_TABLES: Final = tuple(metadata.sorted_tables)
