"""The notifier that reaches other processes through Postgres itself: LISTEN and NOTIFY.

A payload names topics, and of streams the newest seq: whoever follows then reads the log. Deltas do not travel. The
listening connection is never inside a transaction, so that it cannot make the server's queue of notifications grow.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
import psycopg

from overnight.ports.meter import RelayMeter
from overnight.ports.notifier import STREAM, Notice
from overnight.stores.inproc.notifier import InprocNotifier, InprocSubscription
from overnight.stores.relay.figures import Figures
from overnight.stores.relay.line import Health, tend
from overnight.stores.relay.outbox import Batch, Outbox
from overnight.stores.sql.postgres_notices import NoticeLine

CHANNEL: Final = "overnight"
MOST_PAYLOAD: Final = 7900
"""Bytes of one payload; Postgres refuses 8000."""
MOST_NOTICES: Final = 2000
MOST_BYTES: Final = 64 * 1024 * 1024
ANSWER_S: Final = 3.0
"""A server that has not answered by then counts as gone."""
QUIET_S: Final = 5.0
"""After so long without a word a connection is tried."""
START_S: Final = 3.0
CLOSE_S: Final = 1.0
_OPTIONS: Final[Mapping[str, Any]] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",  # where several servers are named: a standby carries no notices
    "application_name": "overnight notices",
}
_NOTIFY: Final = f"SELECT pg_notify('{CHANNEL}', $1)"
_LISTEN: Final = f"LISTEN {CHANNEL}"


class PostgresNotifier:
    """See `ports.notifier.Notifier`. Belongs to the loop on which it was started; one for each process.

    `url` names the database itself: a pooler that hands out connections by the transaction loses notifications.
    """

    def __init__(self, url: str, *, meter: RelayMeter | None = None) -> None:
        self._url = url
        self._by = secrets.token_hex(4)
        self._hub = InprocNotifier()
        self._figures = Figures("postgres", meter)
        self._outbox = Outbox(self._figures)
        self._health = Health("postgres", _shown(url), self._figures, ("sending", "listening"))
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def figures(self) -> Figures:
        """What was carried, and what was not."""
        return self._figures

    @property
    def trouble(self) -> str | None:
        """Why nothing is carried at this moment; holds no secret."""
        return self._health.trouble

    async def start(self) -> None:
        """Connect. Does not fail: a database that is not to be had is tried again for as long as this lives."""
        for line, session in (("sending", self._send), ("listening", self._listen)):
            task = asyncio.create_task(tend(line, session, self._health), name=f"notifier {line}")
            self._tasks.append(task)
        await self._health.tried(START_S)

    async def close(self) -> None:
        """Send what waits, if that is quickly done, and end; idempotent."""
        if not self._tasks:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._outbox.drained()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._figures.stands(connected=False)

    def publish(self, notices: Sequence[Notice]) -> None:
        """See the port: delivered here at once, said to the others soon."""
        self._hub.publish(notices)
        telling = [notice for notice in notices if notice.events or not _is_fragment(notice)]
        if telling:
            self._outbox.put(telling)

    def subscribe(self, *topics: str) -> InprocSubscription:
        """See the port."""
        return self._hub.subscribe(*topics)

    async def _send(self) -> None:
        """Say what there is to say until the connection is lost: LineLost."""
        line = await self._connect()
        try:
            await line.ask("SET synchronous_commit = off", answer_s=ANSWER_S)
            self._outbox.open()
            self._health.up("sending")
            while True:
                batch = await self._outbox.take(QUIET_S, most=MOST_NOTICES, most_bytes=MOST_BYTES)
                if batch is None:
                    await line.ask("SELECT 1", answer_s=ANSWER_S)
                else:
                    await self._say(line, batch)
        finally:
            self._outbox.shut()
            await line.close()

    async def _say(self, line: NoticeLine, batch: Batch) -> None:
        try:
            for payload in payloads(self._by, batch):
                await line.ask(_NOTIFY, payload, answer_s=ANSWER_S)
        except BaseException:
            self._outbox.failed(batch)
            raise
        self._figures.add("published", len(batch.notices))

    async def _listen(self) -> None:
        """Hear what others say until the connection is lost: LineLost."""
        line = await self._connect()
        try:
            await line.ask(_LISTEN, answer_s=ANSWER_S)
            self._health.up("listening")
            self._hub.look_again()
            while True:
                heard = await line.heard(QUIET_S)
                if not heard:
                    await line.ask("SELECT 1", answer_s=ANSWER_S)
                for payload in heard:
                    self._take(payload)
        finally:
            await line.close()

    async def _connect(self) -> NoticeLine:
        return await NoticeLine.open(self._url, _OPTIONS, answer_s=2 * ANSWER_S)

    def _take(self, payload: bytes) -> None:
        try:
            said = orjson.loads(payload)
            if said["by"] == self._by:
                return
            if said.get("all"):
                self._hub.look_again()
            topics = [topic for topic in said["topics"] if self._hub.hears(topic)]
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            self._figures.add("missed")
            return
        self._figures.add("heard", len(topics))
        self._hub.publish([Notice(topic=topic) for topic in topics])


def payloads(by: str, batch: Batch) -> Iterator[bytes]:
    """What a batch says, in payloads of bounded size: each topic once, with the newest seq, or 0."""
    topics = dict.fromkeys(sorted(batch.owed), 0)
    for notice in batch.notices:
        topics[notice.topic] = notice.events[-1].seq if notice.events else topics.get(notice.topic, 0)
    head = {"by": by, "all": True} if batch.owes_all else {"by": by}
    for part in _parts(topics):
        yield orjson.dumps({**head, "topics": part})
        head = {"by": by}
    if "all" in head:
        yield orjson.dumps({**head, "topics": {}})


def _parts(topics: Mapping[str, int]) -> Iterator[dict[str, int]]:
    part: dict[str, int] = {}
    size = 0
    for topic, seq in topics.items():
        more = len(orjson.dumps(topic)) + len(str(seq)) + 2
        if part and size + more > MOST_PAYLOAD - 100:
            yield part
            part, size = {}, 0
        part[topic] = seq
        size += more
    if part:
        yield part


def _is_fragment(notice: Notice) -> bool:
    return notice.delta is not None and notice.topic.startswith(STREAM)


def _shown(url: str) -> str:
    """Where, without who and with what password. Raises ValueError for what is no address."""
    try:
        found = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ValueError("the address of Postgres cannot be read") from None
    return f"{found.get('host', 'local')}:{found.get('port', 5432)}/{found.get('dbname', '')}"
