"""What `overnight doctor` says where no server runs: the same facts, without listening or carrying anything out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from overnight.compose.parts import running
from overnight.config.settings import Settings


def diagnose(settings: Settings) -> Mapping[str, object]:
    """`{status, checks}` as `GET /doctor` answers. Raises StartRefused in its kinds when no server could start."""
    return asyncio.run(_diagnose(settings))


async def _diagnose(settings: Settings) -> Mapping[str, object]:
    async with running(settings, worker=False, handover=lambda: None) as parts:
        try:
            return await parts.services.doctor()
        finally:
            await parts.supervisor.shutdown()  # nobody is to take this process for a server
