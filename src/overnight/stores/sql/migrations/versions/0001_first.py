# ruff: noqa: E501 -- written by a generator and frozen since
"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """All tables, empty, and the counter of changes."""
    op.create_table(
        "checks",
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.Column("problems", sa.Text(), nullable=False),
        sa.Column("checked_at", KEY, nullable=False),
        sa.Column("stamp", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("host_id", "name", name=op.f("pk_checks")),
        sqlite_strict=True,
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", KEY, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
        sqlite_strict=True,
    )
    op.create_table(
        "events",
        sa.Column("stream_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("seq", KEY, autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("turn", KEY, nullable=True),
        sa.Column("at", KEY, nullable=False),
        sa.Column("version", KEY, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("stream_pk", "seq", name=op.f("pk_events")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "installation",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_installation")),
        sqlite_strict=True,
    )
    op.create_table(
        "streams",
        sa.Column("pk", KEY, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("first_seq", KEY, server_default=sa.text("1"), nullable=False),
        sa.Column("last_seq", KEY, server_default=sa.text("0"), nullable=False),
        sa.Column("last_at", KEY, nullable=True),
        sa.CheckConstraint("(kind = 'run') = (run_id IS NOT NULL)", name=op.f("ck_streams_run_id")),
        sa.CheckConstraint("kind IN ('run', 'session')", name=op.f("ck_streams_kind")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_streams")),
        sqlite_strict=True,
    )
    op.create_table(
        "tokens",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", KEY, nullable=False),
        sa.Column("last_used_at", KEY, nullable=True),
        sa.Column("expires_at", KEY, nullable=True),
        sa.Column("revoked_at", KEY, nullable=True),
        sa.CheckConstraint("kind IN ('user', 'worker', 'agent')", name=op.f("ck_tokens_kind")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
        sa.UniqueConstraint("id", name=op.f("uq_tokens_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "uq_tokens_name",
        "tokens",
        ["owner", "name"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "workers",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("host_name", sa.Text(), nullable=False),
        sa.Column("pid", KEY, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("slots", KEY, nullable=False),
        sa.Column("backends", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", KEY, nullable=False),
        sa.Column("seen_at", KEY, nullable=False),
        sa.CheckConstraint("state IN ('active', 'draining', 'gone')", name=op.f("ck_workers_state")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_workers")),
        sa.UniqueConstraint("id", name=op.f("uq_workers_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_table(
        "sessions",
        sa.Column("pk", KEY, autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("made_for_run", KEY, nullable=False),
        sa.Column("version", KEY, nullable=False),
        sa.Column("variables", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("created_at", KEY, nullable=False),
        sa.Column("updated_at", KEY, nullable=False),
        sa.CheckConstraint(
            "state IN ('active', 'suspended', 'completed', 'expired')", name=op.f("ck_sessions_state")
        ),
        sa.ForeignKeyConstraint(["pk"], ["streams.pk"], name=op.f("fk_sessions_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_sessions")),
        sa.UniqueConstraint("id", name=op.f("uq_sessions_id")),
        sqlite_strict=True,
    )
    op.create_table(
        "backend_states",
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_backend_states_session_pk")),
        sa.PrimaryKeyConstraint("session_pk", "backend", name=op.f("pk_backend_states")),
        sqlite_strict=True,
    )
    op.create_table(
        "messages",
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("n", KEY, autoincrement=False, nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", KEY, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("turn", KEY, nullable=True),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_messages_session_pk")),
        sa.PrimaryKeyConstraint("session_pk", "n", name=op.f("pk_messages")),
        sqlite_strict=True,
    )
    op.create_table(
        "runs",
        sa.Column("pk", KEY, autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("retry_of", sa.Text(), nullable=True),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=True),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("priority", KEY, nullable=False),
        sa.Column("shared", KEY, nullable=False),
        sa.Column("gate", sa.Text(), nullable=True),
        sa.Column("gate_by", KEY, nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("pid", KEY, nullable=True),
        sa.Column("created_at", KEY, nullable=False),
        sa.Column("updated_at", KEY, nullable=False),
        sa.Column("started_at", KEY, nullable=True),
        sa.Column("ended_at", KEY, nullable=True),
        sa.Column("token", KEY, nullable=False),
        sa.Column("attempt", KEY, nullable=False),
        sa.Column("turn", KEY, nullable=False),
        sa.Column("fallback", KEY, nullable=False),
        sa.Column("stats", sa.Text(), nullable=False),
        sa.Column("idle_turns", KEY, nullable=False),
        sa.Column("completion", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("waiting_until", KEY, nullable=True),
        sa.Column("pause_reason", sa.Text(), nullable=True),
        sa.Column("cancellation", sa.Text(), nullable=True),
        sa.Column("not_before", KEY, nullable=True),
        sa.Column("raised_limits", sa.Text(), nullable=True),
        sa.Column("sandbox_effective", sa.Text(), nullable=False),
        sa.Column("now", sa.Text(), nullable=True),
        sa.Column("change", KEY, nullable=False),
        sa.CheckConstraint(
            "(state IN ('completed', 'failed', 'cancelled')) = (ended_at IS NOT NULL)",
            name=op.f("ck_runs_ended_at"),
        ),
        sa.CheckConstraint("gate IN ('time', 'session', 'workspace', 'held')", name=op.f("ck_runs_gates")),
        sa.CheckConstraint("gate IS NULL OR state = 'queued'", name=op.f("ck_runs_gate")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'pausing', 'paused', 'waiting', 'blocked', 'cancelling', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_runs_state"),
        ),
        sa.ForeignKeyConstraint(["pk"], ["streams.pk"], name=op.f("fk_runs_pk")),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_runs_session_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_runs")),
        sa.UniqueConstraint("id", name=op.f("uq_runs_id")),
        sqlite_strict=True,
    )
    op.create_index("ix_runs_change", "runs", ["change"], unique=False)
    op.create_index(
        "ix_runs_due",
        "runs",
        ["host_id", "backend", sa.literal_column("priority DESC"), "pk"],
        unique=False,
        sqlite_where=sa.text("state = 'queued' AND gate IS NULL"),
        postgresql_where=sa.text("state = 'queued' AND gate IS NULL"),
    )
    op.create_index(
        "ix_runs_ended",
        "runs",
        ["ended_at", "pk"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "ix_runs_gate_by",
        "runs",
        ["gate_by"],
        unique=False,
        sqlite_where=sa.text("gate_by IS NOT NULL"),
        postgresql_where=sa.text("gate_by IS NOT NULL"),
    )
    op.create_index(
        "ix_runs_gate_session",
        "runs",
        ["session_pk", "pk"],
        unique=False,
        sqlite_where=sa.text("gate = 'session'"),
        postgresql_where=sa.text("gate = 'session'"),
    )
    op.create_index(
        "ix_runs_gate_time",
        "runs",
        ["not_before"],
        unique=False,
        sqlite_where=sa.text("gate = 'time'"),
        postgresql_where=sa.text("gate = 'time'"),
    )
    op.create_index(
        "ix_runs_held",
        "runs",
        ["pk"],
        unique=False,
        sqlite_where=sa.text("state IN ('running', 'pausing', 'blocked', 'cancelling')"),
        postgresql_where=sa.text("state IN ('running', 'pausing', 'blocked', 'cancelling')"),
    )
    op.create_index("ix_runs_newest", "runs", ["created_at", "pk"], unique=False)
    op.create_index(
        "ix_runs_overdue",
        "runs",
        ["waiting_until"],
        unique=False,
        sqlite_where=sa.text("waiting_until IS NOT NULL"),
        postgresql_where=sa.text("waiting_until IS NOT NULL"),
    )
    op.create_index("ix_runs_owner_newest", "runs", ["owner", "created_at", "pk"], unique=False)
    op.create_index("ix_runs_owner_state", "runs", ["owner", "state", "created_at", "pk"], unique=False)
    op.create_index("ix_runs_session", "runs", ["session_pk", "ended_at", "pk"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("run_pk", KEY, nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_idempotency_run_pk")),
        sa.PrimaryKeyConstraint("owner", "route", "key", name=op.f("pk_idempotency")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_idempotency_run_pk"), "idempotency", ["run_pk"], unique=False)
    op.create_table(
        "inputs",
        sa.Column("run_pk", KEY, nullable=False),
        sa.Column("number", KEY, autoincrement=False, nullable=False),
        sa.Column("attempt", KEY, autoincrement=False, nullable=False),
        sa.Column("n", KEY, autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_inputs_run_pk")),
        sa.PrimaryKeyConstraint("run_pk", "number", "attempt", "n", name=op.f("pk_inputs")),
        sqlite_strict=True,
    )
    op.create_table(
        "leases",
        sa.Column("run_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("worker_pk", KEY, nullable=False),
        sa.Column("token", KEY, nullable=False),
        sa.Column("renewal", KEY, nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_leases_run_pk")),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_leases")),
        sqlite_strict=True,
    )
    op.create_index("ix_leases_worker", "leases", ["worker_pk"], unique=False)
    op.create_table(
        "requests",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("run_pk", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", KEY, nullable=False),
        sa.Column("settled_at", KEY, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.CheckConstraint("(settled_at IS NULL) = (outcome IS NULL)", name=op.f("ck_requests_outcome")),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_requests_run_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_requests")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_requests_pending", "requests", ["run_pk", "settled_at", "pk"], unique=False)
    op.create_table(
        "run_labels",
        sa.Column("run_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_run_labels_run_pk")),
        sa.PrimaryKeyConstraint("run_pk", "name", name=op.f("pk_run_labels")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_places",
        sa.Column("run_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("depth", KEY, autoincrement=False, nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_run_places_run_pk")),
        sa.PrimaryKeyConstraint("run_pk", "depth", name=op.f("pk_run_places")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_specs",
        sa.Column("run_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("goal_folded", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_run_specs_run_pk")),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_run_specs")),
        sqlite_strict=True,
    )
    op.create_table(
        "turns",
        sa.Column("run_pk", KEY, nullable=False),
        sa.Column("number", KEY, autoincrement=False, nullable=False),
        sa.Column("attempt", KEY, autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("token", KEY, nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("pid", KEY, nullable=True),
        sa.Column("started_at", KEY, nullable=False),
        sa.Column("ended_at", KEY, nullable=True),
        sa.Column("first_seq", KEY, nullable=False),
        sa.Column("last_seq", KEY, nullable=True),
        sa.Column("stdout", KEY, nullable=False),
        sa.Column("stderr", KEY, nullable=False),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("usage", sa.Text(), nullable=True),
        sa.Column("files", sa.Text(), nullable=True),
        sa.Column("tests", sa.Text(), nullable=True),
        sa.Column("items", KEY, nullable=False),
        sa.Column("last_message", sa.Text(), nullable=True),
        sa.Column("resume_before", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(state IN ('completed', 'failed', 'abandoned')) = (ended_at IS NOT NULL)",
            name=op.f("ck_turns_ended_at"),
        ),
        sa.CheckConstraint(
            "state IN ('started', 'completed', 'failed', 'abandoned')", name=op.f("ck_turns_state")
        ),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_turns_run_pk")),
        sa.PrimaryKeyConstraint("run_pk", "number", "attempt", name=op.f("pk_turns")),
        sqlite_strict=True,
    )
    op.create_table(
        "workspace_locks",
        sa.Column("run_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("depth", KEY, autoincrement=False, nullable=False),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("shared", KEY, nullable=False),
        sa.ForeignKeyConstraint(["run_pk"], ["leases.run_pk"], name=op.f("fk_workspace_locks_run_pk")),
        sa.PrimaryKeyConstraint("run_pk", "depth", name=op.f("pk_workspace_locks")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_workspace_locks_node", "workspace_locks", ["host_id", "node"], unique=False)
    op.execute("INSERT INTO counters (name, value) VALUES ('change', 0)")


def downgrade() -> None:
    """No tables at all: the backup made before is all that is left."""
    for table in TABLES:
        op.drop_table(table)


TABLES = (
    "workspace_locks",
    "turns",
    "run_specs",
    "run_places",
    "run_labels",
    "requests",
    "leases",
    "inputs",
    "idempotency",
    "runs",
    "messages",
    "backend_states",
    "sessions",
    "workers",
    "tokens",
    "streams",
    "installation",
    "events",
    "counters",
    "checks",
)
