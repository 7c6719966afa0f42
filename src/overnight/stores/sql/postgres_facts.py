"""What a Postgres server says about itself, for doctor and for `overnight db check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from overnight.clock import Clock
from overnight.errors import Unavailable
from overnight.stores.sql import migrate, postgres_schema
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink

_SETTINGS: Final = (
    "SELECT current_setting('fsync')::text, current_setting('full_page_writes')::text, "
    "(SELECT COALESCE(reset_val, 'on') FROM pg_settings WHERE name = 'synchronous_commit')::text, "
    "current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint, "
    "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::bigint, "
    "(SELECT COALESCE(sum(setting::bigint), 0) FROM pg_settings WHERE name = 'idle_session_timeout')::bigint, "
    "pg_is_in_recovery()"
)
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresFacts:
    """One look."""

    version: str
    encoding: str
    revision: str | None
    """The schema; None for an empty database."""
    usable_from: str | None
    """The oldest schema whose programs may work on it."""
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    """As the server, the database or the user would have it; our own sessions switch it on."""
    most_connections: int
    """That anybody but a superuser may have."""
    connections: int
    idle_session_ms: int
    """After which the server cuts connections that rest; 0: never."""
    standby: bool
    skew_ms: int
    """How far the server's clock is ahead of ours."""
    answer_ms: float


def look(url: str, clock: Clock) -> PostgresFacts:
    """Ask the server. Raises Unavailable, whose words hold no password, and UnsafeDatabase."""
    connections = PostgresConnections(url)
    try:
        link = connections.open(writing=False)
        try:
            return _asked(link, clock)
        finally:
            link.close()
    except connections.errors as error:
        raise Unavailable(connections.address.clean(str(error))) from None


def _asked(link: PostgresLink, clock: Clock) -> PostgresFacts:
    info = link.raw.info
    settings: tuple[Any, ...] = tuple(link.rows(_SETTINGS)[0])
    skew_ms, answer_ms = _skew(link, clock)
    revision = migrate.revision(link)
    return PostgresFacts(
        version=info.parameter_status("server_version") or "unknown",
        encoding=info.parameter_status("server_encoding") or "unknown",
        revision=revision,
        usable_from=postgres_schema.fact(link, migrate.USABLE_FROM) if revision else None,
        fsync=settings[0] == "on",
        full_page_writes=settings[1] == "on",
        synchronous_commit=settings[2],
        most_connections=settings[3],
        connections=settings[4],
        idle_session_ms=settings[5],
        standby=bool(settings[6]),
        skew_ms=skew_ms,
        answer_ms=answer_ms,
    )


def _skew(link: PostgresLink, clock: Clock) -> tuple[int, float]:
    """Against the middle of the question, in the quickest of three answers."""
    tries = []
    for _ in range(3):
        began, boot = clock.wall_ms(), clock.boot()
        there = int(link.rows(_NOW)[0][0])
        took_ms = (clock.boot() - boot) * 1000
        tries.append((took_ms, round(there - began - took_ms / 2)))
    took_ms, skew_ms = min(tries)
    return skew_ms, took_ms
