"""Disks that are full to the last byte, and writes and syncs that fail or never return."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence

from overnight.testing.cluster.members import Member
from overnight.testing.cluster.nemeses.nemesis import Nemesis
from overnight.testing.cluster.stage import Stage
from overnight.testing.history.checks.storage import FULL

PROBES = 4
SPEC = {"goal": "witness {}", "backend": "witness", "mode": "oneshot"}


async def full_disk(stage: Stage) -> None:
    """A server's or worker's disk is full for a while; meanwhile submissions are refused and reads go on."""
    disks = stage.cluster.disks
    name = stage.chance.choice(sorted(name for name in disks.mounted if name != "postgres"))
    async with stage.fault(FULL, name):
        try:
            disks.fill(name)
            if name.startswith("s"):
                await _probe(stage, name)
            else:
                await asyncio.sleep(stage.chance.uniform(1, 3))
        finally:
            disks.empty(name)


async def _probe(stage: Stage, name: str) -> None:
    url = stage.cluster.member(name).url
    runs = list(stage.workload.runs.values())
    if url is None or not runs:
        return
    for _ in range(PROBES):
        key = f"probe-{stage.chance.getrandbits(48):x}"
        cancel = next(iter(stage.workload.to_be_cancelled), None)
        await stage.workload.client.probe(FULL, url, stage.chance.choice(runs), SPEC, key, cancel=cancel)
        stage.workload.unsettled[key] = SPEC
        await asyncio.sleep(0.3)


async def full_postgres(stage: Stage) -> None:
    """The disk of Postgres is full for a while: it refuses what it cannot store, or goes down and comes back."""
    assert stage.cluster.postgres is not None
    async with stage.fault("full disk of Postgres", "postgres"):
        try:
            stage.cluster.disks.fill("postgres")
            await asyncio.sleep(stage.chance.uniform(1, 4))
        finally:
            stage.cluster.disks.empty("postgres")
            if not stage.cluster.postgres.program.running:
                await stage.cluster.postgres.start()
            await stage.cluster.postgres.ready()


def injecting(syscalls: str, what: str, when: str) -> Sequence[str]:
    """The words before a program that let strace do `what` at a system call: `-D` leaves the program our child."""
    return (
        "strace", "-D", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf",
        "-e", f"trace={syscalls}", "-e", f"inject={syscalls}:{what}:when={when}",
    )  # fmt: skip


async def die_at_a_sync(stage: Stage) -> None:
    """A server on SQLite dies in the middle of its Nth sync; it is started again without that."""
    member = stage.chance.choice(stage.cluster.servers)
    number = stage.chance.randint(3, 60)
    async with stage.fault("killed at sync", member.name, f"number {number}"):
        await member.program.kill()
        member.program.wrapper = injecting("fdatasync,fsync", "signal=SIGKILL", str(number))
        await _until_dead(member, 4)
    await member.start()


async def failing_syncs(stage: Stage) -> None:
    """For a while every Nth sync of a server on SQLite fails with an input/output error."""
    await _failing(stage, "fdatasync,fsync", "error=EIO", "sync fails")


async def failing_writes(stage: Stage) -> None:
    """For a while every Nth positioned write of a server on SQLite fails as on a full disk."""
    await _failing(stage, "pwrite64", "error=ENOSPC", "write fails")


async def _failing(stage: Stage, syscalls: str, what: str, name: str) -> None:
    member = stage.chance.choice(stage.cluster.servers)
    number = stage.chance.randint(20, 60)
    async with stage.fault(name, member.name, f"every {number}th"):
        await member.program.kill()
        member.program.wrapper = injecting(syscalls, what, f"{number}+{number}")
        await _until_dead(member, 3)
    await member.start()


async def _until_dead(member: Member, most_s: float) -> None:
    """Let it run until it dies by itself, at most so long; afterwards it is no longer traced when it starts."""
    program = member.program
    try:
        program.start()
        try:
            await member.ready(60)  # being traced, it takes its time
            await program.ended(most_s)
        except AssertionError:
            return  # it has lived through it, or died before it was ready
    finally:
        program.wrapper = ()
        await program.kill()


async def failing_postgres(stage: Stage) -> None:
    """Postgres meets an input/output error at a sync, panics and recovers, as it should."""
    postgres = stage.cluster.postgres
    assert postgres is not None
    number = stage.chance.randint(5, 40)
    async with stage.fault("sync of Postgres fails", "postgres", f"number {number} of each process"):
        await postgres.stop("fast")
        postgres.program.wrapper = injecting("fdatasync,fsync", "error=EIO", f"{number}+{number}")
        try:
            postgres.program.start()
            await asyncio.sleep(stage.chance.uniform(2, 5))
        finally:
            postgres.program.wrapper = ()
            await postgres.stop("kill")
            await postgres.start()


def _small(stage: Stage) -> str | None:
    disks = stage.cluster.disks
    if disks.why_not:
        return disks.why_not
    return None if set(disks.mounted) - {"postgres"} else "no member of this cluster has a small disk"


def _small_postgres(stage: Stage) -> str | None:
    disks = stage.cluster.disks
    if disks.why_not:
        return disks.why_not
    return None if "postgres" in disks.mounted else "Postgres has no small disk in this cluster"


def _traced(stage: Stage) -> str | None:
    if stage.cluster.layout.store != "sqlite":
        return "only where a server writes its own database"
    return None if shutil.which("strace") else "strace is not installed"


def _traced_postgres(stage: Stage) -> str | None:
    if stage.cluster.postgres is None:
        return "this cluster has no Postgres"
    return None if shutil.which("strace") else "strace is not installed"


DISKS = (
    Nemesis(name="full disk", act=full_disk, missing=_small),
    Nemesis(name="full disk of Postgres", act=full_postgres, missing=_small_postgres),
    Nemesis(name="killed at a sync", act=die_at_a_sync, missing=_traced, weight=2),
    Nemesis(name="failing syncs", act=failing_syncs, missing=_traced),
    Nemesis(name="failing writes", act=failing_writes, missing=_traced),
    Nemesis(name="failing Postgres", act=failing_postgres, missing=_traced_postgres),
)
