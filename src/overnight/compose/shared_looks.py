"""What doctor says about a database and a carrier of notices that several processes share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from overnight.clock import Clock
from overnight.engine.doctor import Finding, Look, Status
from overnight.errors import OvernightError

if TYPE_CHECKING:
    from overnight.stores.redis.facts import RedisFacts
    from overnight.stores.sql.postgres_facts import PostgresFacts

MOST_SKEW_MS: Final = 1_000
SLOW_MS: Final = 20.0
CROWDED: Final = 0.8
OFTEN_MS: Final = 600_000


def postgres(url: str, shown: str, clock: Clock) -> Sequence[Look]:
    """The server, its clock, its durability and its connections, in one question to it for each of them."""

    def asked(judge: Callable[[PostgresFacts], Finding], name: str) -> Look:
        async def look() -> Finding:
            from overnight.stores.sql import postgres_facts  # noqa: PLC0415 -- the driver is for Postgres alone

            try:
                return judge(await asyncio.to_thread(postgres_facts.look, url, clock))
            except OvernightError as error:
                if name != "database":  # which says it once for all
                    return _finding(name, "warn", "not known: the database does not answer")
                return _finding(name, "fail", error.detail, error.mend or _REACH)

        return look

    return (
        asked(lambda facts: server(facts, shown), "database"),
        asked(clocks, "database clock"),
        asked(durability, "database durability"),
        asked(connections, "database connections"),
    )


def server(facts: PostgresFacts, shown: str) -> Finding:
    """Whether it is one that this program can work with, and near enough."""
    from overnight.stores.sql import migrate  # noqa: PLC0415 -- see above

    words = f"Postgres {facts.version} at {shown}, schema {facts.revision}, {facts.answer_ms:.1f} ms away"
    if facts.standby:
        return _finding("database", "fail", f"{words}: a standby, which takes no writes", "name the primary")
    if facts.revision is not None and facts.revision < migrate.HEAD:
        return _finding("database", "fail", f"{words}, older than this program", "overnight db upgrade")
    if facts.revision != migrate.HEAD:
        words += f", newer than this program and fit for it (from {facts.usable_from} on)"
        return _finding("database", "warn", words, "upgrade this machine too: overnight upgrade")
    if facts.answer_ms > SLOW_MS:
        mend = "put servers and workers near the database: all writing takes turns, and each turn is some answers long"
        return _finding("database", "warn", words, mend)
    return _finding("database", "ok", words)


def clocks(facts: PostgresFacts) -> Finding:
    """Leases end by the database's clock, and no host compares its own with it; times that people see do differ."""
    words = f"{abs(facts.skew_ms)} ms {'ahead of' if facts.skew_ms >= 0 else 'behind'} this machine's"
    if abs(facts.skew_ms) <= MOST_SKEW_MS:
        return _finding("database clock", "ok", words)
    mend = "set both by NTP: leases are safe all the same, but not_before, expiries and shown times are off by that"
    return _finding("database clock", "warn", words, mend)


def durability(facts: PostgresFacts) -> Finding:
    """Whether a committed transaction is on disk."""
    off = [
        name for name, on in (("fsync", facts.fsync), ("full_page_writes", facts.full_page_writes)) if not on
    ]
    if off:
        mend = (
            f"switch on {' and '.join(off)} in postgresql.conf: until then a power cut may cost accepted runs"
        )
        return _finding("database durability", "warn", f"{' and '.join(off)} off", mend)
    words = f"fsync on, synchronous_commit {facts.synchronous_commit}"
    if facts.synchronous_commit == "off":
        words += ", which our own sessions switch on"
    return _finding("database durability", "ok", words)


def connections(facts: PostgresFacts) -> Finding:
    """Whether there is room for what servers and workers open."""
    words = f"{facts.connections} of {facts.most_connections} in use"
    if facts.connections > CROWDED * facts.most_connections:
        mend = "raise max_connections (a server or worker takes up to 8), or end what you do not need"
        return _finding("database connections", "warn", words, mend)
    if 0 < facts.idle_session_ms < OFTEN_MS:
        words += f"; the server cuts those that rest for {facts.idle_session_ms // 1000} s"
        mend = "ALTER ROLE … SET idle_session_timeout = 0 for our user: what is cut is opened anew, which takes time"
        return _finding("database connections", "warn", words, mend)
    return _finding("database connections", "ok", words)


def redis(url: str, shown: str) -> Look:
    """A look at Redis or Valkey. It never holds a fact, so nothing about it is worse than a warning."""

    async def look() -> Finding:
        from overnight.stores.redis import facts  # noqa: PLC0415 -- where it is used alone

        try:
            return carrier(await facts.look(url), shown)
        except OvernightError as error:
            words = f"{shown} is away ({error.detail}): nothing is lost, and notices come by the slow poll"
            return _finding(
                "redis", "warn", words, "start it, or unset redis_url: then notices go through Postgres"
            )

    return look


def carrier(facts: RedisFacts, shown: str) -> Finding:
    """What is right and wrong with a server that answers."""
    words = f"{facts.name} {facts.version} at {shown}, {facts.used_bytes // 1_000_000} MB in use"
    if facts.clustered:
        mend = "name a single server, or the primary behind one name"
        return _finding("redis", "warn", f"{words}: a cluster, which is not supported", mend)
    if facts.most_bytes and facts.policy == "noeviction":
        mend = "set maxmemory-policy to allkeys-lru"
        return _finding("redis", "warn", f"{words}: once its memory is full it refuses every notice", mend)
    if facts.persistent:
        words += "; it writes to disk, which nobody needs"
    return _finding("redis", "ok", words)


_REACH: Final = "look whether Postgres runs, and whether the address and the password are right"


def _finding(name: str, status: Status, words: str, mend: str = "") -> Finding:
    return Finding(name=name, status=status, message=words, mend=mend)
