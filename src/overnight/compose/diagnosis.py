"""What `overnight doctor` says where no server runs: the same facts, without listening or carrying anything out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from overnight.clock import SystemClock
from overnight.compose import shared_looks
from overnight.compose.parts import running
from overnight.config.settings import Settings
from overnight.engine import host
from overnight.engine.doctor import Finding, Look
from overnight.errors import StartRefused


def diagnose(settings: Settings) -> Mapping[str, object]:
    """`{status, checks}` as `GET /doctor` answers. What keeps a server from starting is the first of the findings."""
    return asyncio.run(_diagnose(settings))


async def _diagnose(settings: Settings) -> Mapping[str, object]:
    try:
        async with running(settings, worker=False, handover=lambda: None) as parts:
            try:
                return await parts.services.doctor()
            finally:
                await parts.supervisor.shutdown()  # nobody is to take this process for a server
    except StartRefused as error:
        return await _beneath(settings, error)


async def _beneath(settings: Settings, error: StartRefused) -> Mapping[str, object]:
    """What can be looked at without a server: the machine, and what is shared with others."""
    looks: Sequence[Look] = (host.python, host.system, host.git, host.cgroup)
    if settings.postgres:
        looks = (
            *looks,
            *shared_looks.postgres(settings.database_url, settings.database_shown, SystemClock()),
        )
    if settings.redis_url is not None:
        looks = (*looks, shared_looks.redis(settings.redis_url, settings.redis_shown or ""))
    mend = "" if "overnight doctor" in error.mend else error.mend
    refused = Finding(name=error.code, status="fail", message=error.detail, mend=mend)
    findings = [refused, *await asyncio.gather(*(look() for look in looks))]
    return {"status": "fail", "checks": [finding.to_json() for finding in findings]}
