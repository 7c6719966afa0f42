"""What doctor looks at, and when the server counts as ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from overnight.compose import confinement
from overnight.config.settings import Settings
from overnight.engine import host
from overnight.engine.doctor import Finding, Look
from overnight.engine.service import RunService
from overnight.ports.sandbox import Sandbox
from overnight.stores.sql.library import driver
from overnight.stores.sql.sqlite import SqliteStore


def looks(settings: Settings, store: SqliteStore, sandbox: Sandbox) -> Sequence[Look]:
    """Everything that doctor looks at besides the backends."""

    async def sqlite() -> Finding:
        return Finding(name="sqlite", status="ok", message=f"SQLite {driver().sqlite_version}")

    async def database() -> Finding:
        size = await store.read(lambda tx: tx.installation.size_bytes())
        words = f"{settings.database} ({size // 1_000_000} MB), synchronous={settings.synchronous}"
        return Finding(name="database", status="ok", message=words)

    async def address() -> Finding:
        words = f"{settings.server.host}:{settings.server.port}"
        return Finding(name="address", status="ok", message=words)

    async def redis() -> Finding:
        return Finding(name="redis", status="ok", message="not used: notices stay in this process")

    disk = host.disk(settings.storage, store.free_bytes)
    return (
        host.python, host.system, sqlite, database, disk, address, redis, host.git, host.cgroup,
        confinement.look(sandbox),
    )  # fmt: skip


def readiness(service: RunService, store: SqliteStore) -> Callable[[], Awaitable[Sequence[str]]]:
    """Why the server takes no work now; empty when it does."""

    async def ready() -> Sequence[str]:
        if service.draining:
            return ("draining",)
        await store.read(lambda tx: tx.installation.get("host_id"))
        return ()

    return ready
