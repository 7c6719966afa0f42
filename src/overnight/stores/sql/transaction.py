"""The tables of one connection, put together as the transaction that units are given."""

from __future__ import annotations

from overnight.clock import Clock
from overnight.ports.notifier import Notice
from overnight.stores.sql.approvals import SqlApprovalTable
from overnight.stores.sql.changes import keep_numbers
from overnight.stores.sql.client_connections import SqlConnectionTable
from overnight.stores.sql.context import Context
from overnight.stores.sql.events import SqlEventLog
from overnight.stores.sql.installation import SqlInstallation
from overnight.stores.sql.leases import SqlLeaseTable
from overnight.stores.sql.model_calls import SqlModelCallTable
from overnight.stores.sql.queue import SqlKeyTable, SqlQueueTable
from overnight.stores.sql.remote import SqlRemoteTable
from overnight.stores.sql.requests import SqlRequestTable
from overnight.stores.sql.runs import SqlRunTable
from overnight.stores.sql.sessions import SqlSessionTable
from overnight.stores.sql.shares import SqlShareTable
from overnight.stores.sql.statements import Link
from overnight.stores.sql.tokens import SqlTokenTable
from overnight.stores.sql.turns import SqlTurnTable
from overnight.stores.sql.workers import SqlWorkerTable


class SqlTransaction:
    """See `ports.unit_of_work.Transaction`. One for each connection, used by one unit after another."""

    __slots__ = (
        "_context", "approvals", "connections", "events", "installation", "keys", "leases", "model_calls", "queue",
        "remote", "requests", "runs", "sessions", "shares", "tokens", "turns", "workers",
    )  # fmt: skip

    def __init__(self, link: Link, clock: Clock, lease_clock: Clock) -> None:
        self._context = Context(link, clock)
        self.runs = SqlRunTable(self._context)
        self.leases = SqlLeaseTable(self._context, self.runs, lease_clock)
        self.turns = SqlTurnTable(self._context)
        self.events = SqlEventLog(self._context)
        self.requests = SqlRequestTable(self._context)
        self.sessions = SqlSessionTable(self._context)
        self.queue = SqlQueueTable(self._context)
        self.keys = SqlKeyTable(self._context)
        self.shares = SqlShareTable(self._context)
        self.approvals = SqlApprovalTable(self._context)
        self.connections = SqlConnectionTable(self._context)
        self.tokens = SqlTokenTable(self._context)
        self.workers = SqlWorkerTable(self._context)
        self.remote = SqlRemoteTable(self._context, self.workers)
        self.model_calls = SqlModelCallTable(self._context)
        self.installation = SqlInstallation(self._context)

    def notify(self, topic: str) -> None:
        """See the port."""
        self._context.wake(topic)

    def finish(self) -> None:
        """Before the commit: write down what was only kept in mind."""
        keep_numbers(self._context)
        self.forget()

    def forget(self) -> None:
        """The transaction is over; the next one knows nothing of it."""
        self._context.forget()

    def take_notices(self) -> list[Notice]:
        """What the unit that has just run has to say after the commit."""
        return self._context.take_notices()
