"""The tables of the queue that belong to no run: lanes, rates, workers and what is known of them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, Table, Text, text

from overnight.stores.sql.conventions import COUNTED, STRICT, Key, metadata, one_of

lanes: Final = Table(
    "lanes",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("place", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("need", Text, nullable=False),
    **COUNTED,
)
"""What runs ask of a worker: where it works, which backend it offers, and (canonical JSON) which labels it bears."""

rates: Final = Table(
    "rates",
    metadata,
    Column("name", Text, primary_key=True),
    Column("full_at", Key, nullable=False),
    **STRICT,
)
"""When the bucket of starts will be full again: wall microseconds."""

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
    Column("places", Text, nullable=False, server_default=text("'[]'")),
    Column("reason", Text),
    Column("changed_by", Text),
    Column("changed_at", Key),
    CheckConstraint(one_of("state", ["active", "draining", "quarantined", "gone"]), name="state"),
    **COUNTED,
)

worker_faults: Final = Table(
    "worker_faults",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("host_id", Text, nullable=False, index=True),
    Column("at", Key, nullable=False),
    Column("why", Text, nullable=False),
    **COUNTED,
)
"""What went wrong in a row on a host; a turn that begins there ends the row."""

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

Index("uq_lanes_lane", lanes.c.place, lanes.c.backend, lanes.c.need, unique=True)
