"""Which host this is: the id in the data directory, and the lock that makes its worker the only one."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Final

from overnight.clock import Clock
from overnight.config.settings import Settings
from overnight.domain.worker import Worker
from overnight.engine.hosts import HOST_FILE, Host, id_in, recall, remember
from overnight.errors import StartRefused
from overnight.ids import HostId, new_host_id
from overnight.keeper_protocol import boot_id
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.stores.sql.lock import DataLock

WORKER_LOCK: Final = "worker.lock"


async def host_id(settings: Settings, uow: UnitOfWork, clock: Clock) -> HostId:
    """The id of this host, made at the first start. Raises StartRefused when it cannot be written down.

    On SQLite the database knows it too: there a file that cannot be written does no harm.
    """
    data_dir = settings.data_dir
    if settings.postgres:
        return own(data_dir, clock)
    known = await uow.write(lambda tx: _of_installation(tx, data_dir, clock))
    if id_in(data_dir) != known:
        with suppress(OSError):
            _write(data_dir, known).replace(data_dir / HOST_FILE)
    return known


def keep(database: Path) -> None:
    """Let the data directory of a SQLite database that was copied elsewhere stay the host that it was, so that it
    keeps its runs: older installations have its id in the database alone.
    """
    from overnight.stores.sql.connections import Connections  # noqa: PLC0415 -- for one command

    if id_in(database.parent) is not None:
        return
    link = Connections(database, "FULL").open(writing=False)
    try:
        rows = link.rows("SELECT value FROM installation WHERE key = 'host_id'")
    finally:
        link.close()
    if rows:
        _write(database.parent, HostId(rows[0][0])).replace(database.parent / HOST_FILE)


def own(data_dir: Path, clock: Clock) -> HostId:
    """The id of a host by its data directory alone. Raises StartRefused when it cannot be written down."""
    return id_in(data_dir) or _made(data_dir, new_host_id(clock.wall_ms()))


def worker_lock(settings: Settings, clock: Clock) -> DataLock:
    """The right to carry out the runs of this host, for as long as the process lives."""
    return DataLock(settings.data_dir, clock, file=WORKER_LOCK)


def offered(worker: Worker) -> str:
    """What a worker offers, in words for the person who has started it."""
    offers = [
        f"{worker.slots} slots",
        f"backends {', '.join(worker.backends) or 'none'}",
        *(f"label {name}={value}" for name, value in sorted(worker.labels.items())),
        *(f"shared {place.partition(':')[2]}" for place in worker.places),
    ]
    return "; ".join(offers)


async def announce(settings: Settings, uow: UnitOfWork, host: HostId, clock: Clock, stale_s: float) -> None:
    """Tell the others who we are. Raises StartRefused when a living worker of another machine says it is this host."""
    own = Host(id=host, name=platform.node(), data_dir=os.path.realpath(settings.data_dir), boot_id=boot_id())
    since = clock.wall_ms() - round(stale_s * 1000)

    def unit(tx: Transaction) -> Worker | None:
        known = recall(tx, host)
        if known is not None and known.boot_id == own.boot_id != "":
            twin = None  # the same machine, where the lock says enough
        else:
            twin = next((other for other in tx.workers.all() if _is_twin(other, own, since)), None)
        if twin is None:
            remember(tx, own)
        return twin

    twin = await uow.write(unit)
    if twin is not None:
        raise StartRefused(
            f"{twin.host_name} works as host {host} too: {settings.data_dir} was copied, or is shared between machines",
            mend=f"remove {settings.data_dir / HOST_FILE} from a copy; give every machine a data directory of its own",
        )


def _is_twin(other: Worker, own: Host, since: int) -> bool:
    working = other.state != "gone" and other.slots > 0 and other.seen_at >= since
    return working and other.host_id == own.id and other.host_name != own.name


def _of_installation(tx: Transaction, data_dir: Path, clock: Clock) -> HostId:
    known = tx.installation.get("host_id")
    if known is None:
        known = id_in(data_dir) or new_host_id(clock.wall_ms())
        tx.installation.put("host_id", known)
    return HostId(known)


def _made(data_dir: Path, host: HostId) -> HostId:
    """`host`, or what another process has written meanwhile: the first one counts."""
    file = data_dir / HOST_FILE
    try:
        fresh = _write(data_dir, host)
        with suppress(FileExistsError):
            os.link(fresh, file)
        fresh.unlink()
    except OSError as error:
        raise StartRefused(
            f"{file} cannot be written: {error.strerror or error}",
            mend="make the data directory writable and give it room, or name another with OVERNIGHT_DATA_DIR",
        ) from None
    found = id_in(data_dir)
    if found is None:
        raise StartRefused(
            f"{file} names no host",
            mend="remove it, and this becomes a new host; runs of the old one stay behind",
        )
    return found


def _write(data_dir: Path, host: HostId) -> Path:
    fresh = data_dir / f"{HOST_FILE}.{os.getpid()}"
    fresh.write_text(json.dumps({"host_id": host}) + "\n", encoding="utf-8")
    return fresh
