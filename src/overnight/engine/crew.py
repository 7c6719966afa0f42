"""Whether there is somebody for the work that waits: what doctor says about workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overnight.clock import Clock
from overnight.domain.worker import Worker, why_unserved
from overnight.engine.doctor import Finding, Look
from overnight.ports.unit_of_work import UnitOfWork

_NAMED: Final = 3
"""Of several things that are wrong, so many are told."""


def crew(uow: UnitOfWork, clock: Clock, *, stale_after_s: float) -> Look:
    """A look at the workers: who has not been heard of, who is in quarantine, and what nobody offers."""

    async def look() -> Finding:
        workers, lanes = await uow.read(lambda tx: (tx.workers.all(), tx.leases.lanes()))
        now = clock.wall_ms()
        present = [worker for worker in workers if worker.state != "gone" and worker.slots]
        fresh = [worker for worker in present if now - worker.seen_at < stale_after_s * 1000]
        stale = [worker for worker in present if worker not in fresh]
        unserved = [why for lane in lanes if lane.runs and (why := why_unserved(lane, tuple(fresh)))]
        return _finding(fresh, stale, unserved)

    return look


def _finding(fresh: Sequence[Worker], stale: Sequence[Worker], unserved: Sequence[str]) -> Finding:
    quarantined = [worker for worker in fresh if worker.state == "quarantined"]
    words = f"{len(fresh)} with {sum(worker.slots for worker in fresh)} slots"
    if unserved:
        mend = "start a worker that offers it (`overnight worker`), or cancel those runs; overnight workers lists them"
        return _warning(f"{words}; runs wait for what nobody offers: {_some(unserved)}", mend)
    if quarantined:
        told = [f"{worker.host_name} ({worker.reason})" for worker in quarantined]
        return _warning(
            f"{words}; in quarantine: {_some(told)}", "mend what it says, then: overnight workers release ID"
        )
    if stale:
        told = [worker.host_name for worker in stale]
        mend = "look whether they still run; what they held is taken over once their lease is over"
        return _warning(f"{words}; not heard of lately: {_some(told)}", mend)
    return Finding(name="workers", status="ok", message=words if fresh else "none, and no run waits for one")


def _warning(words: str, mend: str) -> Finding:
    return Finding(name="workers", status="warn", message=words, mend=mend)


def _some(told: Sequence[str]) -> str:
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return "; ".join(told[:_NAMED]) + more
