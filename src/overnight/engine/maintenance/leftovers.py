"""Folders of runs that were removed by a server of another host: only the host that has them can remove them."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from overnight.engine import hosts
from overnight.engine.folders import remove_folders
from overnight.engine.workshop import Workshop

EVERY_S: Final = 60.0
BATCH: Final = 100

log = structlog.get_logger(__name__)


class Leftovers:
    """Removes them."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def once(self) -> int:
        """Remove what is left; how many folders."""
        host, data_dir, uow = self._shop.worker.host_id, self._shop.folders.data_dir, self._shop.uow
        count = 0
        while found := await uow.read(lambda tx: hosts.left_behind(tx, host, BATCH)):
            inside = [data_dir / name for name in found if not {"..", "."} & set(name.split("/"))]
            await asyncio.to_thread(remove_folders, inside)
            await uow.write(lambda tx: hosts.removed(tx, host, found))
            count += len(inside)
        if count:
            log.info("folders.removed", count=count)
        return count
