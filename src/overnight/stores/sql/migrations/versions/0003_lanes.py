"""Lanes instead of hosts alone, limits and rates, leases with an end that the database knows, workers with a reason."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPEN_BEFORE = "state = 'queued' AND gate IS NULL"
OPEN = "state = 'queued' AND gate IS NULL AND limited IS NULL"
FIND_LANE = "SELECT pk FROM lanes WHERE place = :place AND backend = :backend AND need = :need"
ADD_LANE = "INSERT INTO lanes (place, backend, need) VALUES (:place, :backend, :need) RETURNING pk"
COPY_WORKERS = (
    "INSERT INTO workers_anew "
    "(pk, id, host_id, host_name, pid, version, slots, backends, labels, state, started_at, seen_at) SELECT "
    "pk, id, host_id, host_name, pid, version, slots, backends, labels, state, started_at, seen_at FROM workers"
)
LABEL_PREFIX = "worker/"
STATES_BEFORE = "state IN ('active', 'draining', 'gone')"
STATES = "state IN ('active', 'draining', 'quarantined', 'gone')"


def upgrade() -> None:
    """Every run gets the lane of its host, whoever waits for a workspace is looked at again."""
    op.create_table(
        "lanes",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("need", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_lanes")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("uq_lanes_lane", "lanes", ["place", "backend", "need"], unique=True)
    op.create_table(
        "rates",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("full_at", KEY, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rates")),
        sqlite_strict=True,
    )
    op.create_table(
        "worker_faults",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("at", KEY, nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_worker_faults")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_worker_faults_host_id"), "worker_faults", ["host_id"], unique=False)
    _remote()
    op.drop_index("ix_runs_gate_by", "runs")
    op.drop_index("ix_runs_due", "runs")
    op.drop_column("runs", "gate_by")
    op.add_column("runs", sa.Column("place", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("runs", sa.Column("lane", KEY, server_default=sa.text("0"), nullable=False))
    op.add_column("runs", sa.Column("due", KEY, server_default=sa.text("0"), nullable=False))
    op.add_column("runs", sa.Column("gate_key", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("limited", sa.Text(), nullable=True))
    op.add_column("leases", sa.Column("length", KEY, server_default=sa.text("15000"), nullable=False))
    op.add_column("leases", sa.Column("expires_at", KEY, server_default=sa.text("0"), nullable=False))
    _workers(STATES)
    op.add_column("workers", sa.Column("places", sa.Text(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column("workers", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("changed_by", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("changed_at", KEY, nullable=True))
    _place_runs()
    _index("ix_runs_due", ["lane", sa.literal_column("priority DESC"), "due", "pk"], OPEN)
    _index(
        "ix_runs_limited",
        ["lane", "limited", sa.literal_column("priority DESC"), "due", "pk"],
        "limited IS NOT NULL",
    )
    _index(
        "ix_runs_gate_key",
        ["gate_key", "lane", sa.literal_column("priority DESC"), "due", "pk"],
        "gate = 'workspace'",
    )


def _remote() -> None:
    """Workers without a database: whose token they came with, and what was done for them last."""
    op.create_table(
        "seats",
        sa.Column("worker_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("token_pk", KEY, nullable=False),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("granted", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("worker_pk", name=op.f("pk_seats")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_seats_host_id"), "seats", ["host_id"], unique=False)
    op.create_table(
        "last_batches",
        sa.Column("run_pk", KEY, autoincrement=False, nullable=False),
        sa.Column("token", KEY, nullable=False),
        sa.Column("n", KEY, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_pk", name=op.f("pk_last_batches")),
        sqlite_strict=True,
    )


def _index(name: str, columns: list[str | sa.ColumnElement[object]], where: str) -> None:
    op.create_index(
        name, "runs", columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )


def _place_runs() -> None:
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE runs SET place = 'host:' || host_id, due = pk"))
    connection.execute(sa.text("UPDATE runs SET gate = NULL WHERE gate = 'workspace'"))
    connection.execute(
        sa.text("INSERT INTO lanes (place, backend, need) SELECT DISTINCT place, backend, '{}' FROM runs")
    )
    connection.execute(
        sa.text(
            "UPDATE runs SET lane = (SELECT lanes.pk FROM lanes WHERE lanes.place = runs.place "
            "AND lanes.backend = runs.backend AND lanes.need = '{}')"
        )
    )
    for pk, place, backend, need in _choosy(connection):
        values = {"place": place, "backend": backend, "need": need}
        lane = connection.execute(sa.text(FIND_LANE), values).scalar()
        if lane is None:
            lane = connection.execute(sa.text(ADD_LANE), values).scalar_one()
        connection.execute(sa.text("UPDATE runs SET lane = :lane WHERE pk = :pk"), {"lane": lane, "pk": pk})


def _choosy(connection: sa.Connection) -> list[tuple[int, str, str, str]]:
    """Runs whose labels name what their worker must bear."""
    found = connection.execute(
        sa.text(
            "SELECT runs.pk, runs.place, runs.backend, run_labels.name, run_labels.value FROM run_labels "
            "JOIN runs ON runs.pk = run_labels.run_pk WHERE runs.ended_at IS NULL"
        )
    ).all()
    needs: dict[tuple[int, str, str], dict[str, str]] = {}
    for pk, place, backend, name, value in found:
        if name.startswith(LABEL_PREFIX):
            needs.setdefault((pk, place, backend), {})[name.removeprefix(LABEL_PREFIX)] = value
    return [
        (*run, json.dumps(need, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
        for run, need in needs.items()
    ]


def _workers(states: str) -> None:
    """Another check of the states. SQLite cannot change one, so the table is made anew there."""
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint("ck_workers_state", "workers", type_="check")
        op.create_check_constraint(op.f("ck_workers_state"), "workers", states)
        return
    op.create_table(
        "workers_anew",
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
        sa.CheckConstraint(states, name=op.f("ck_workers_state")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_workers")),
        sa.UniqueConstraint("id", name=op.f("uq_workers_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.execute(COPY_WORKERS)
    op.drop_table("workers")
    op.rename_table("workers_anew", "workers")


def downgrade() -> None:
    """Runs that wait for a workspace are looked at again, workers in quarantine count as draining."""
    for name in ("ix_runs_gate_key", "ix_runs_limited", "ix_runs_due"):
        op.drop_index(name, "runs")
    op.execute("UPDATE runs SET gate = NULL WHERE gate = 'workspace'")
    op.execute("UPDATE workers SET state = 'draining' WHERE state = 'quarantined'")
    for column in ("changed_at", "changed_by", "reason", "places"):
        op.drop_column("workers", column)
    _workers(STATES_BEFORE)
    for column in ("expires_at", "length"):
        op.drop_column("leases", column)
    for column in ("limited", "gate_key", "due", "lane", "place"):
        op.drop_column("runs", column)
    op.add_column("runs", sa.Column("gate_by", KEY, nullable=True))
    _index("ix_runs_gate_by", ["gate_by"], "gate_by IS NOT NULL")
    _index("ix_runs_due", ["host_id", "backend", sa.literal_column("priority DESC"), "pk"], OPEN_BEFORE)
    for table in ("last_batches", "seats", "worker_faults", "rates", "lanes"):
        op.drop_table(table)
