"""Postgres and Valkey that are restarted, killed, stopped, emptied."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

from overnight.testing.cluster.nemeses.nemesis import Nemesis, has_postgres, has_valkey
from overnight.testing.cluster.programs import kill_quietly
from overnight.testing.cluster.stage import Stage


async def restart_postgres(stage: Stage) -> None:
    """End Postgres in order, at once, or by SIGKILL of all its processes; then start it again."""
    postgres = stage.cluster.postgres
    assert postgres is not None
    mode = stage.chance.choice(("fast", "immediate", "kill"))
    async with stage.fault("Postgres away", "postgres", mode):
        try:
            await postgres.stop(mode)
            await asyncio.sleep(stage.chance.uniform(0, 2))
        finally:
            await postgres.start()


async def terminate_backends(stage: Stage) -> None:
    """End every session of Postgres, as an administrator or a failover does."""
    postgres = stage.cluster.postgres
    assert postgres is not None
    async with stage.fault("sessions ended", "postgres"):
        try:
            await asyncio.to_thread(
                postgres.query,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()",
            )
        except subprocess.CalledProcessError:
            return  # it is just coming up


async def stop_postgres(stage: Stage) -> None:
    """SIGSTOP every process of Postgres for a while."""
    postgres = stage.cluster.postgres
    assert postgres is not None
    pids = [postgres.program.pid, *_children(postgres.program.pid)]
    seconds = stage.chance.uniform(0.5, 3)
    async with stage.fault("SIGSTOP", "postgres", f"for {seconds:.1f} s"):
        try:
            for pid in pids:
                kill_quietly(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                kill_quietly(pid, signal.SIGCONT)


async def flush_valkey(stage: Stage) -> None:
    """Valkey forgets everything."""
    valkey = stage.cluster.valkey
    assert valkey is not None
    async with stage.valkey, stage.fault("flushed", "valkey"):
        valkey.command("FLUSHALL")


async def kill_valkey(stage: Stage) -> None:
    """Kill -9 Valkey; it comes back empty."""
    await lose_valkey(stage, stage.chance.uniform(0, 6))


async def lose_valkey(stage: Stage, seconds: float) -> None:
    """Valkey is killed, away for so long, and comes back empty."""
    valkey = stage.cluster.valkey
    assert valkey is not None
    async with stage.valkey, stage.fault("kill -9", "valkey", f"for {seconds:.1f} s"):
        try:
            await valkey.program.kill()
            await asyncio.sleep(seconds)
        finally:
            await valkey.start()


async def stop_valkey(stage: Stage) -> None:
    """SIGSTOP Valkey: it takes connections and says nothing."""
    valkey = stage.cluster.valkey
    assert valkey is not None
    seconds = stage.chance.uniform(0.5, 5)
    async with stage.valkey, stage.fault("SIGSTOP", "valkey", f"for {seconds:.1f} s"):
        valkey.program.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            valkey.program.send(signal.SIGCONT)


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in listed.split()]


DATABASES = (
    Nemesis(name="restart Postgres", act=restart_postgres, missing=has_postgres, weight=2),
    Nemesis(name="end sessions", act=terminate_backends, missing=has_postgres),
    Nemesis(name="stop Postgres", act=stop_postgres, missing=has_postgres),
    Nemesis(name="flush Valkey", act=flush_valkey, missing=has_valkey),
    Nemesis(name="kill Valkey", act=kill_valkey, missing=has_valkey, weight=2),
    Nemesis(name="stop Valkey", act=stop_valkey, missing=has_valkey),
)
