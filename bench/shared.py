"""Databases for a benchmark: a real Postgres and a real Valkey on a disk, and the stores and programs upon them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import stage
from bench.bench_store import CLOCK
from overnight.compose.parts import Parts, running
from overnight.config.settings import load
from overnight.ports.unit_of_work import Store
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.services.postgres import PostgresServer, ServiceUnavailable, postgres
from overnight.testing.services.valkey import ValkeyUnavailable, valkey

DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec")


@dataclass(kw_only=True)
class Databases:
    """What there is on this machine."""

    folder: Path
    postgres: PostgresServer | None = None
    redis: str | None = None
    missing: list[str] = field(default_factory=list)
    """Why something is not there."""

    def fresh(self) -> str:
        """The address of a new Postgres database."""
        assert self.postgres is not None
        return self.postgres.url(self.postgres.fresh(), tcp=True)

    def store(self, name: str) -> Store:
        """A new, empty store; not started."""
        if name == "postgres":
            return PostgresStore(self.fresh(), CLOCK, InprocNotifier())
        return SqliteStore(self.folder / f"{name}.db", CLOCK, InprocNotifier())

    @property
    def stores(self) -> tuple[str, ...]:
        return ("sqlite", "postgres") if self.postgres else ("sqlite",)


@contextmanager
def databases(**settings: str) -> Iterator[Databases]:
    """Whatever can be started here; `settings` are Postgres's."""
    with stage.folder() as folder, ExitStack() as stack:
        found = Databases(folder=folder)
        try:
            found.postgres = stack.enter_context(postgres(settings))
        except ServiceUnavailable as reason:
            found.missing.append(f"Postgres: {reason}")
        try:
            found.redis = stack.enter_context(valkey(options=DURABLE)).url
        except ValkeyUnavailable as reason:
            found.missing.append(f"Valkey: {reason}")
        yield found


@asynccontextmanager
async def inside(folder: Path, slots: int, more: Mapping[str, str]) -> AsyncIterator[Parts]:
    """The whole program within this process, without its HTTP server; its supervisor is not started."""
    folder.mkdir(mode=0o700)
    environment = {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "OVERNIGHT_DATA_DIR": str(folder / "data"),
        "OVERNIGHT_SLOTS": str(slots),
        "OVERNIGHT_SANDBOX_MODE": "off",
        **more,
    }
    async with running(load(environment, cwd=folder), worker=True, handover=lambda: None) as parts:
        yield parts
