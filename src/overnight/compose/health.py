"""What doctor looks at, and when the server counts as ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from overnight.compose import confinement, shared_looks
from overnight.compose.carrying import STALE_BEATS
from overnight.compose.ground import Ground
from overnight.config.settings import Settings
from overnight.engine import host
from overnight.engine.crew import crew
from overnight.engine.doctor import Finding, Look
from overnight.engine.service import RunService
from overnight.ports.sandbox import Sandbox
from overnight.ports.unit_of_work import UnitOfWork


def looks(settings: Settings, below: Ground, sandbox: Sandbox) -> Sequence[Look]:
    """Everything that doctor looks at besides the backends."""

    async def sqlite() -> Finding:
        from overnight.stores.sql.library import driver  # noqa: PLC0415 -- needed on SQLite alone

        return Finding(name="sqlite", status="ok", message=f"SQLite {driver().sqlite_version}")

    async def database() -> Finding:
        size = await below.uow.read(lambda tx: tx.installation.size_bytes())
        words = f"{settings.database} ({size // 1_000_000} MB), synchronous={settings.synchronous}"
        return Finding(name="database", status="ok", message=words)

    async def address() -> Finding:
        words = f"{settings.server.host}:{settings.server.port}"
        return Finding(name="address", status="ok", message=words)

    async def no_redis() -> Finding:
        where = "go through the database" if settings.postgres else "stay in this process"
        return Finding(name="redis", status="ok", message=f"not used: notices {where}")

    databases: Sequence[Look] = (sqlite, database)
    if settings.postgres:
        databases = shared_looks.postgres(settings.database_url, settings.database_shown, below.clock)
    redis: Look = no_redis
    if settings.redis_url is not None:
        redis = shared_looks.redis(settings.redis_url, settings.redis_shown or "")
    disk = host.disk(settings.storage, below.free_bytes)
    workers = crew(below.uow, below.clock, stale_after_s=STALE_BEATS * settings.timing.heartbeat_s)
    return (
        host.python, host.system, *databases, disk, address, redis, workers, host.git, host.cgroup,
        confinement.look(sandbox),
    )  # fmt: skip


def readiness(service: RunService, store: UnitOfWork) -> Callable[[], Awaitable[Sequence[str]]]:
    """Why the server takes no work now; empty when it does."""

    async def ready() -> Sequence[str]:
        if service.draining:
            return ("draining",)
        await store.read(lambda tx: tx.installation.get("host_id"))
        return ()

    return ready
