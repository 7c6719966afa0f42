"""One long poll for all runs of a worker: what people ask of them, and new work, is heard of at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Never

import structlog

from overnight.client.worker.unit_of_work import RemoteUnitOfWork
from overnight.clock import Clock
from overnight.domain.worker import Worker
from overnight.errors import OvernightError
from overnight.ids import RunId
from overnight.ports.lease_desk import LeaseDesk
from overnight.ports.notifier import QUEUE, Notice, Notifier, requests_topic
from overnight.ports.remote import News

WAIT_S: Final = 25.0
FIRST_REST_S: Final = 0.1
LONGEST_REST_S: Final = 5.0
BREATH_S: Final = 0.02
"""Between two answers about new work: a busy queue is not worth a call for each run."""

log = structlog.get_logger(__name__)


class Watch:
    """Turns the server's news into notices of this process. What is lost on the way is found by the slow poll."""

    def __init__(
        self, desk: LeaseDesk, uow: RemoteUnitOfWork, clock: Clock, notifier: Notifier, worker: Worker,
        *, hungry: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._desk = desk
        self._uow = uow
        self._clock = clock
        self._notifier = notifier
        self._worker = worker
        self._hungry = hungry
        self._seen: dict[RunId, int] = {}

    async def follow(self) -> Never:
        """Until cancelled, whatever goes wrong."""
        rest = FIRST_REST_S
        away = False
        while True:
            try:
                tokens = self._uow.tokens()
                news = await self._news(tokens)
            except OvernightError as error:
                if not away:
                    log.warning("server.away", code=error.code, error=str(error))
                away = True
                await self._clock.sleep(rest)
                rest = min(LONGEST_REST_S, rest * 2)
                continue
            if away:
                log.info("server.back")
                self._notifier.publish([Notice(topic=QUEUE)])
            rest, away = FIRST_REST_S, False
            if news is not None:
                await self._tell(news, tokens)

    async def _news(self, tokens: Mapping[RunId, int]) -> News | None:
        """What has happened; None when the runs that are held have become others meanwhile."""
        self._uow.changed.clear()
        self._seen = {run_id: self._seen.get(run_id, 0) for run_id in tokens}
        call = asyncio.ensure_future(
            self._desk.watch(self._worker, tokens, self._seen, WAIT_S, work=self._hungry())
        )
        changed = asyncio.ensure_future(self._uow.changed.wait())
        try:
            await asyncio.wait({call, changed}, return_when=asyncio.FIRST_COMPLETED)
            return call.result() if call.done() else None
        finally:
            for task in (call, changed):
                task.cancel()
            await asyncio.gather(call, changed, return_exceptions=True)

    async def _tell(self, news: News, tokens: Mapping[RunId, int]) -> None:
        self._seen |= news.requests
        pks = [self._uow.pk_of(run_id) for run_id in news.requests]
        notices = [Notice(topic=requests_topic(pk)) for pk in pks if pk is not None]
        if news.work:
            notices.append(Notice(topic=QUEUE))
        self._notifier.publish(notices)
        for run_id in news.lost:
            pk, token = self._uow.pk_of(run_id), tokens.get(run_id, 0)
            if pk is not None and await self._uow.heard_lost(pk, token, "another holder has taken it"):
                log.warning("run.lost", run=run_id)
        if news.work:
            await self._clock.sleep(BREATH_S)
