# ruff: noqa: E501 -- written by a generator and frozen since
"""Sessions with phases, messages that wait, shares, approvals with rules, and connections."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from overnight.ids import ApprovalId, new_approval_id

revision = "0002"
down_revision = "0001"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """New tables and columns; a spent budget that waits for a person gets the approval that it now needs."""
    op.add_column("sessions", sa.Column("phase", sa.Text(), server_default=sa.text("'init'"), nullable=False))
    op.add_column("sessions", sa.Column("step", KEY, nullable=True))
    op.add_column("sessions", sa.Column("plan", sa.Text(), nullable=True))
    op.add_column(
        "sessions", sa.Column("name_folded", sa.Text(), server_default=sa.text("''"), nullable=False)
    )
    op.add_column("runs", sa.Column("waiting_since", KEY, nullable=True))
    op.drop_index("ix_runs_overdue", "runs")
    op.add_column("turns", sa.Column("blocked_ms", KEY, server_default=sa.text("0"), nullable=False))
    op.create_table(
        "connections",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("connected_at", KEY, nullable=False),
        sa.Column("heartbeat_at", KEY, nullable=False),
        sa.CheckConstraint("kind IN ('sse', 'socket')", name=op.f("ck_connections_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
        sqlite_strict=True,
    )
    op.create_index("ix_connections_owner", "connections", ["owner"], unique=False)
    op.create_index("ix_connections_server", "connections", ["server", "heartbeat_at"], unique=False)
    op.create_table(
        "queue",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("created_at", KEY, nullable=False),
        sa.Column("settled_at", KEY, nullable=True),
        sa.Column("turn", KEY, nullable=True),
        sa.CheckConstraint("(state = 'queued') = (settled_at IS NULL)", name=op.f("ck_queue_settled_at")),
        sa.CheckConstraint("state IN ('queued', 'sent', 'removed')", name=op.f("ck_queue_state")),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_queue_session_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_queue")),
        sa.UniqueConstraint("id", name=op.f("uq_queue_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_queue_waiting", "queue", ["session_pk", "state", "pk"], unique=False)
    op.create_table(
        "session_keys",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("made", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_session_keys_session_pk")),
        sa.PrimaryKeyConstraint("owner", "route", "key", name=op.f("pk_session_keys")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_session_keys_session_pk"), "session_keys", ["session_pk"], unique=False)
    op.create_table(
        "rules",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("approval_pk", KEY, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", KEY, nullable=False),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_rules_session_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_rules")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("uq_rules_rule", "rules", ["session_pk", "rule"], unique=True)
    op.create_table(
        "shares",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", KEY, nullable=False),
        sa.Column("expires_at", KEY, nullable=True),
        sa.Column("revoked_at", KEY, nullable=True),
        sa.CheckConstraint("(kind = 'link') = (digest IS NOT NULL)", name=op.f("ck_shares_digest")),
        sa.CheckConstraint("kind IN ('user', 'link')", name=op.f("ck_shares_kind")),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'decider')", name=op.f("ck_shares_role")),
        sa.CheckConstraint("(kind = 'user') = (\"user\" IS NOT NULL)", name=op.f("ck_shares_user")),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_shares_session_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_shares")),
        sa.UniqueConstraint("digest", name=op.f("uq_shares_digest")),
        sa.UniqueConstraint("id", name=op.f("uq_shares_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_shares_session_pk"), "shares", ["session_pk"], unique=False)
    op.create_index("ix_shares_of_user", "shares", ["user", "session_pk"], unique=False)
    op.create_index(
        "uq_shares_user",
        "shares",
        ["session_pk", "user"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "approvals",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("run_pk", KEY, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("session_pk", KEY, nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("turn", KEY, nullable=True),
        sa.Column("attempt", KEY, nullable=True),
        sa.Column("request", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("chosen", sa.Text(), nullable=True),
        sa.Column("default_option", sa.Text(), nullable=False),
        sa.Column("expires_at", KEY, nullable=False),
        sa.Column("created_at", KEY, nullable=False),
        sa.Column("resolved_at", KEY, nullable=True),
        sa.Column("used_at", KEY, nullable=True),
        sa.CheckConstraint(
            "(state = 'pending') = (resolved_at IS NULL)", name=op.f("ck_approvals_resolved_at")
        ),
        sa.CheckConstraint(
            "(state IN ('resolved', 'expired')) = (decision IS NOT NULL)", name=op.f("ck_approvals_decision")
        ),
        sa.CheckConstraint(
            "kind IN ('plan', 'step', 'tool_call', 'file_edit', 'command', 'question', 'budget', 'error_recovery')",
            name=op.f("ck_approvals_kind"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'resolved', 'expired', 'cancelled')", name=op.f("ck_approvals_state")
        ),
        sa.ForeignKeyConstraint(["run_pk"], ["runs.pk"], name=op.f("fk_approvals_run_pk")),
        sa.ForeignKeyConstraint(["session_pk"], ["sessions.pk"], name=op.f("fk_approvals_session_pk")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_approvals")),
        sa.UniqueConstraint("id", name=op.f("uq_approvals_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_approvals_newest", "approvals", ["created_at", "pk"], unique=False)
    op.create_index(
        "ix_approvals_overdue",
        "approvals",
        ["expires_at", "pk"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_approvals_owner_newest", "approvals", ["owner", "created_at", "pk"], unique=False)
    op.create_index("ix_approvals_run", "approvals", ["run_pk", "state", "pk"], unique=False)
    op.create_index("ix_approvals_session", "approvals", ["session_pk", "pk"], unique=False)
    op.create_index(
        "uq_approvals_request",
        "approvals",
        ["run_pk", "turn", "attempt", "request"],
        unique=True,
        sqlite_where=sa.text("request IS NOT NULL"),
        postgresql_where=sa.text("request IS NOT NULL"),
    )
    op.create_table(
        "token_shares",
        sa.Column("token_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("share_pk", KEY, nullable=False),
        sa.ForeignKeyConstraint(["share_pk"], ["shares.pk"], name=op.f("fk_token_shares_share_pk")),
        sa.ForeignKeyConstraint(["token_pk"], ["tokens.pk"], name=op.f("fk_token_shares_token_pk")),
        sa.PrimaryKeyConstraint("token_pk", name=op.f("pk_token_shares")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_token_shares_share_pk"), "token_shares", ["share_pk"], unique=False)
    op.create_index("ix_sessions_newest", "sessions", ["created_at", "pk"], unique=False)
    op.create_index("ix_sessions_owner_newest", "sessions", ["owner", "created_at", "pk"], unique=False)
    op.create_index("ix_sessions_untouched", "sessions", ["state", "updated_at", "pk"], unique=False)
    _fold_names()
    _ask_for_budgets()


def _fold_names() -> None:
    connection = op.get_bind()
    for pk, name in connection.execute(sa.text("SELECT pk, name FROM sessions")).all():
        folded = {"pk": pk, "folded": name.casefold()}
        connection.execute(sa.text("UPDATE sessions SET name_folded = :folded WHERE pk = :pk"), folded)


BUDGET_OPTIONS = [
    {"id": "raise", "label": "Raise the budget and go on", "kind": "raise"},
    {"id": "finish", "label": "Finish here", "kind": "finish"},
    {"id": "cancel", "label": "Cancel the run", "kind": "cancel"},
]


def _ask_for_budgets() -> None:
    connection = op.get_bind()
    found = connection.execute(
        sa.text(
            "SELECT pk, id, owner, session_pk, session_id, waiting_for, waiting_until, updated_at FROM runs "
            "WHERE state IN ('waiting', 'paused') AND waiting_until IS NOT NULL"
        )
    ).all()
    for pk, run_id, owner, session_pk, session_id, waiting, until, since in found:
        approval: ApprovalId = new_approval_id(since)
        detail = json.loads(waiting or "{}").get("detail", "")
        connection.execute(
            sa.text(
                "INSERT INTO approvals (id, owner, run_pk, run_id, session_pk, session_id, kind, title, context, digest, "
                "options, state, default_option, expires_at, created_at) VALUES (:id, :owner, :run, :run_id, :session, "
                ":session_id, 'budget', :title, :context, '', :options, 'pending', 'finish', :until, :since)"
            ),
            {
                "id": approval, "owner": owner, "run": pk, "run_id": run_id, "session": session_pk,
                "session_id": session_id, "title": f"The budget is spent: {detail}",
                "context": json.dumps({"detail": detail}), "options": json.dumps(BUDGET_OPTIONS), "until": until,
                "since": since,
            },
        )  # fmt: skip
        told = json.dumps({"kind": "budget", "approval_id": approval, "detail": detail})
        connection.execute(
            sa.text("UPDATE runs SET waiting_for = :told, waiting_since = :since WHERE pk = :pk"),
            {"told": told, "since": since, "pk": pk},
        )


def downgrade() -> None:
    """Without sessions' queues, shares and approvals; what waits for a budget goes on waiting as it did before."""
    for name in SESSION_INDEXES:
        op.drop_index(name, "sessions")
    for table in TABLES:
        op.drop_table(table)
    op.create_index(
        "ix_runs_overdue",
        "runs",
        ["waiting_until"],
        unique=False,
        sqlite_where=sa.text("waiting_until IS NOT NULL"),
        postgresql_where=sa.text("waiting_until IS NOT NULL"),
    )
    op.drop_column("turns", "blocked_ms")
    op.drop_column("runs", "waiting_since")
    for column in ("name_folded", "plan", "step", "phase"):
        op.drop_column("sessions", column)


SESSION_INDEXES = ("ix_sessions_newest", "ix_sessions_owner_newest", "ix_sessions_untouched")
TABLES = ("token_shares", "session_keys", "shares", "rules", "queue", "connections", "approvals")
