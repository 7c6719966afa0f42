"""The tables about workers that have no database."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Table, Text, text

from overnight.stores.sql.conventions import STRICT, Key, metadata

seats: Final = Table(
    "seats",
    metadata,
    Column("worker_pk", Key, primary_key=True, autoincrement=False),
    Column("token_pk", Key, nullable=False),
    Column("host_id", Text, nullable=False, index=True),
    Column("request_id", Text, nullable=False, server_default=text("''")),
    Column("granted", Text, nullable=False, server_default=text("'{}'")),
    **STRICT,
)
"""Which token a worker came with, and what it was granted last: `granted` is {run pk: token}."""

last_batches: Final = Table(
    "last_batches",
    metadata,
    Column("run_pk", Key, primary_key=True, autoincrement=False),
    Column("token", Key, nullable=False),
    Column("n", Key, nullable=False),
    Column("digest", Text, nullable=False),
    **STRICT,
)
"""The last batch of a run that was applied. It outlives the hold, for the answer to the last batch may be lost too."""
