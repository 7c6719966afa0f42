"""Processes that are killed, stopped, or ended in order."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import orjson

from overnight.testing.cluster.members import Member
from overnight.testing.cluster.nemeses.nemesis import Nemesis, has_workers
from overnight.testing.cluster.programs import kill_quietly, processes_of
from overnight.testing.cluster.stage import Stage
from overnight.testing.history.agents import read_agents
from overnight.testing.history.recorder import boot

FRESH_S = 1.0
"""An agent that has written its beat so lately is alive."""


async def kill_server(stage: Stage) -> None:
    """Kill -9 a server and start it again after a moment."""
    await kill(stage, stage.chance.choice(stage.cluster.servers), stage.chance.uniform(0, 2))


async def kill_worker(stage: Stage) -> None:
    """Kill -9 a worker; it comes back at once and adopts its agents, or so late that others have taken its runs."""
    lease = stage.cluster.layout.lease_s
    away = stage.chance.choice((stage.chance.uniform(0, 1), lease + stage.chance.uniform(1, 4)))
    await kill(stage, stage.chance.choice(stage.cluster.workers), away)


async def kill(stage: Stage, member: Member, away_s: float) -> None:
    """Kill -9 a member, and start it again after so long."""
    async with stage.fault("kill -9", member.name, f"for {away_s:.1f} s", lost=member):
        try:
            await member.program.kill()
            await asyncio.sleep(away_s)
        finally:
            await member.start()


async def stop_server(stage: Stage) -> None:
    """SIGSTOP a server for a while."""
    await freeze(stage, stage.chance.choice(stage.cluster.servers), stage.chance.uniform(0.5, 3))


async def stop_worker(stage: Stage) -> None:
    """SIGSTOP a worker until its leases have run out and others have taken its runs; then let it go on."""
    seconds = stage.cluster.layout.lease_s + stage.chance.uniform(1, 4)
    await freeze(stage, stage.chance.choice(stage.cluster.workers), seconds)


async def freeze(stage: Stage, member: Member, seconds: float) -> None:
    """SIGSTOP a member for so long."""
    async with stage.fault("SIGSTOP", member.name, f"for {seconds:.1f} s", lost=member):
        member.program.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            member.program.send(signal.SIGCONT)
    await member.ready()


async def restart(stage: Stage) -> None:
    """SIGTERM a member, as an administrator does, and start it again."""
    member = stage.chance.choice(stage.cluster.members)
    async with stage.fault("SIGTERM", member.name):
        try:
            await member.program.stop()
        finally:
            await member.start()


async def kill_agent(stage: Stage) -> None:
    """Kill -9 a living agent."""
    alive = [
        life for life in read_agents(stage.cluster.layout.agents)
        if life.ended is None and boot() - life.seen < FRESH_S and runs_for(life.pid, life.run_id)
    ]  # fmt: skip
    if alive:
        life = stage.chance.choice(alive)
        async with stage.fault("kill -9", f"agent of {life.run_id}"):
            kill_quietly(life.pid)


def runs_for(pid: int, run_id: str) -> bool:
    """Whether the process of that number is one of that run."""
    try:
        return f"OVERNIGHT_RUN_ID={run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


async def kill_keeper(stage: Stage) -> None:
    """Kill -9 the keeper of a living turn."""
    keepers = living_keepers(stage.cluster.layout.root)
    if keepers:
        pid = stage.chance.choice(keepers)
        async with stage.fault("kill -9", f"keeper {pid}"):
            kill_quietly(pid)


def living_keepers(root: Path) -> list[int]:
    """Every keeper that has written who it is and still runs."""
    found = []
    for record in root.glob("*/data/**/keeper.json"):
        try:
            document = orjson.loads(record.read_bytes())
            started = (
                Path(f"/proc/{document['pid']}/stat")
                .read_text(encoding="ascii")
                .rpartition(")")[2]
                .split()[19]
            )
        except (OSError, ValueError, KeyError):
            continue
        if int(started) == document["starttime"] and not record.with_name("exit.json").exists():
            found.append(int(document["pid"]))
    return sorted(found)


async def stop_keeper(stage: Stage) -> None:
    """SIGSTOP a keeper for a moment."""
    keepers = living_keepers(stage.cluster.layout.root)
    if keepers:
        pid = stage.chance.choice(keepers)
        async with stage.fault("SIGSTOP", f"keeper {pid}"):
            try:
                kill_quietly(pid, signal.SIGSTOP)
                await asyncio.sleep(stage.chance.uniform(0.2, 1.5))
            finally:
                kill_quietly(pid, signal.SIGCONT)


async def kill_host(stage: Stage) -> None:
    """A worker, its spawner, keepers and agents die at one stroke, as when a machine loses its power."""
    member = stage.chance.choice(stage.cluster.workers)
    away_s = stage.cluster.layout.lease_s + stage.chance.uniform(0, 4)
    async with stage.fault("power lost", member.name, f"for {away_s:.1f} s", lost=member):
        try:
            for pid in _of_host(stage, member):
                kill_quietly(pid)
            await member.program.kill()
            await asyncio.sleep(away_s)
        finally:
            await member.start()


async def freeze_host(stage: Stage) -> None:
    """A worker, its spawner and its keepers stand still past their leases while the agents go on: nobody ends them."""
    member = stage.chance.choice(stage.cluster.workers)
    seconds = stage.cluster.layout.lease_s + stage.chance.uniform(2, 5)
    agents = {life.pid for life in read_agents(stage.cluster.layout.agents)}
    pids = [pid for pid in _of_host(stage, member) if pid not in agents]
    async with stage.fault("SIGSTOP", f"{member.name} and its keepers", f"for {seconds:.1f} s", lost=member):
        try:
            for pid in pids:
                kill_quietly(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                kill_quietly(pid, signal.SIGCONT)
    await member.ready()


def _of_host(stage: Stage, member: Member) -> list[int]:
    return processes_of(stage.cluster.layout.root / member.name)


PROCESSES = (
    Nemesis(name="kill server", act=kill_server, weight=3),
    Nemesis(name="kill worker", act=kill_worker, missing=has_workers, weight=3),
    Nemesis(name="stop server", act=stop_server),
    Nemesis(name="stop worker", act=stop_worker, missing=has_workers, weight=2),
    Nemesis(name="kill host", act=kill_host, missing=has_workers),
    Nemesis(name="freeze host", act=freeze_host, missing=has_workers),
    Nemesis(name="restart", act=restart),
    Nemesis(name="kill agent", act=kill_agent, weight=2),
    Nemesis(name="kill keeper", act=kill_keeper, weight=2),
    Nemesis(name="stop keeper", act=stop_keeper),
)

__all__ = ["PROCESSES", "living_keepers"]
