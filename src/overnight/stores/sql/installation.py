"""Single facts about this installation, and what housekeeping looks for."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Text, bindparam, delete, func, insert, select, update

from overnight.stores.sql.context import Context
from overnight.stores.sql.schema import installation, runs
from overnight.stores.sql.statements import Statement, key

_GET: Final = Statement(select(installation.c.value).where(installation.c.key == key("key")))
_SET: Final = Statement(
    update(installation).where(installation.c.key == key("key")).values(value=bindparam("new_value"))
)
_ADD: Final = Statement(insert(installation))
_REMOVE: Final = Statement(delete(installation).where(installation.c.key == key("key")))
_LISTED: Final = Statement(
    select(installation.c.key)
    .where(func.substr(installation.c.key, 1, func.length(key("prefix", Text()))) == key("prefix", Text()))
    .limit(bindparam("most"))
)
_EXPIRED: Final = Statement(
    select(runs.c.pk)
    .where(runs.c.ended_at.is_not(None), runs.c.ended_at < key("before"))
    .order_by(runs.c.ended_at, runs.c.pk)
    .limit(bindparam("most"))
)


class SqlInstallation:
    """See `ports.tables.Installation`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def get(self, key: str) -> str | None:
        """See the port."""
        row = self._link.one(_GET, key_key=key)
        return row[0] if row else None

    def put(self, key: str, value: str | None) -> None:
        """See the port."""
        if value is None:
            self._link.run(_REMOVE, key_key=key)
        elif self._link.run(_SET, key_key=key, new_value=value) == 0:
            self._link.run(_ADD, key=key, value=value)

    def listed(self, prefix: str, limit: int) -> tuple[str, ...]:
        """See the port."""
        return tuple(row[0] for row in self._link.all(_LISTED, key_prefix=prefix, most=limit))

    def size_bytes(self) -> int:
        """See the port."""
        return self._link.size_bytes()

    def expired_runs(self, ended_before: int, limit: int) -> tuple[int, ...]:
        """See the port."""
        return tuple(row[0] for row in self._link.all(_EXPIRED, key_before=ended_before, most=limit))
