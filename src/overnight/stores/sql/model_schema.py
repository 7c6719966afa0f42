"""The table of what runs have asked of language models."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, Table, Text, text

from overnight.stores.sql.conventions import COUNTED, Key, metadata, one_of

ENDINGS: Final = ["done", "error", "aborted", "lost"]

_NOTHING: Final = text("0")
model_calls: Final = Table(
    "model_calls",
    metadata,
    Column("pk", Key, primary_key=True),
    Column("run_pk", Key, nullable=False, index=True),
    Column("stream", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("ending", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("input", Key, nullable=False, server_default=_NOTHING),
    Column("cached", Key, nullable=False, server_default=_NOTHING),
    Column("cache_write", Key, nullable=False, server_default=_NOTHING),
    Column("output", Key, nullable=False, server_default=_NOTHING),
    Column("reasoning", Key, nullable=False, server_default=_NOTHING),
    Column("cost", Key),
    Column("at", Key, nullable=False),
    CheckConstraint(one_of("ending", ENDINGS), name="ending"),
    **COUNTED,
)
"""One row for each answer that has ended. `cost` counts billionths of a dollar, so that sums are exact. No foreign key
leads to the run: programs that do not know this table remove runs, too.
"""
