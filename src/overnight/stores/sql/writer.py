"""The one writer: a thread that puts all waiting units into one transaction and commits them together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from overnight.errors import OvernightError, Unavailable
from overnight.ports.notifier import Notice
from overnight.ports.unit_of_work import Unit
from overnight.stores.sql.ground import Ground
from overnight.stores.sql.statements import Link, Unreached
from overnight.stores.sql.transaction import SqlTransaction

BATCH_S: Final = 0.005
"""A transaction takes in newcomers for at most this long, so that the first does not wait for a flood behind it."""
MOST_AT_ONCE: Final = 8
"""So many of those that wait already when it begins are taken in however long that lasts: on a slow database each of
them would else pay for a commit of its own."""


@dataclass(slots=True, eq=False)
class Job:
    """A unit on its way: waiting, then settled with a result or an error."""

    unit: Unit[Any]
    is_abandoned: Callable[[], bool]
    """Whether nobody waits for it any more: it may be left out while it has not begun."""
    result: Any = None
    error: BaseException | None = None
    notices: list[Notice] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    """When it came."""


Release = Callable[[list[Job]], None]


class Writer:
    """Runs jobs on its own thread; `release` is called on that thread with each settled batch, after its commit.

    A unit that fails rolls back its savepoint alone; the first of a transaction, which is alone in it, needs none.
    When the disk or the connection fails, everything may be rolled back: then each unit of the batch runs again in
    a transaction of its own (units are safe to run again), so that every caller learns its own fate. After a
    commit that failed the connection is opened anew.
    """

    def __init__(self, ground: Ground, release: Release) -> None:
        self._ground = ground
        self._release = release
        self._urgent: deque[Job] = deque()
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._link: Link | None = None
        self._transaction: SqlTransaction | None = None
        self._thread = threading.Thread(target=self._work, name="overnight-writer", daemon=True)

    def start(self) -> None:
        """Open the connection (raises what that raises) and begin."""
        self._link, self._transaction = self._ground.open(writing=True)
        self._thread.start()

    def submit(self, job: Job, *, urgent: bool) -> None:
        """Hand over a job; it will be settled, whatever happens. Raises Unavailable after `close`."""
        with self._wake:
            if self._closing:
                raise Unavailable("the store is closed")
            (self._urgent if urgent else self._waiting).append(job)
            self._wake.notify()

    def close(self) -> None:
        """Carry out what waits, then end the thread and the connection. Blocks."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join()
        self._drop_link()

    def _work(self) -> None:
        while self._wait():
            self._batch()

    def _wait(self) -> bool:
        with self._wake:
            while not (self._urgent or self._waiting or self._closing):
                self._wake.wait()
            return bool(self._urgent or self._waiting)

    def _next(self) -> Job | None:
        with self._wake:
            for queue in (self._urgent, self._waiting):
                while queue:
                    job = queue.popleft()
                    if not job.is_abandoned():
                        return job
        return None

    def _come_before(self, moment: float) -> list[Job]:
        """Those that have waited since before `moment`: where it took long to fail, each of them would else wait as
        long once more, one after the other.
        """
        found: list[Job] = []
        with self._wake:
            for queue in (self._urgent, self._waiting):
                while queue and queue[0].since < moment:
                    found.append(queue.popleft())
        return found

    def _batch(self) -> None:
        """One shared transaction: take in what waits and, for `BATCH_S`, what comes; commit, release."""
        job = self._next()
        if job is None:
            return
        begun = time.perf_counter()
        batch = [job]
        waiting = min(len(self._urgent) + len(self._waiting), MOST_AT_ONCE)
        asked = time.monotonic()
        try:
            link, transaction = self._begin()
            link.defer()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the callers must hear of it
            self._drop_link()
            self._fail([job, *self._come_before(asked)], self._explain(self._ground.in_unit, error))
            return
        if not self._first(link, transaction, job):
            return
        while True:
            if len(batch) > waiting and time.perf_counter() - begun >= BATCH_S:
                break
            job = self._next()
            if job is None:
                break
            batch.append(job)
            if not self._run(link, transaction, job):
                self._one_by_one(batch)
                return
        if self._settle(link, transaction):
            self._commit(link, batch)
        else:
            self._one_by_one(batch)

    def _begin(self) -> tuple[Link, SqlTransaction]:
        if self._link is not None and self._transaction is not None:
            try:
                self._ground.begin(self._link)
                return self._link, self._transaction
            except Exception as error:
                if not self._ground.is_cut(error):
                    raise
                self._drop_link()  # it was cut while nobody used it, so nothing is lost
        self._link, self._transaction = self._ground.open(writing=True)
        self._ground.begin(self._link)
        return self._link, self._transaction

    def _first(self, link: Link, transaction: SqlTransaction, job: Job) -> bool:
        """Run the first job of a transaction; False when it failed: it has been told, and the transaction is over."""
        error = self._carry_out(link, transaction, job, alone=True)
        if error is None:
            return True
        if self._is_lost(link, error) or not self._start_over(link, transaction):
            self._one_by_one([job])
        else:
            self._release([job])
        return False

    def _run(self, link: Link, transaction: SqlTransaction, job: Job) -> bool:
        """Run a job in its savepoint; False when the disk failed and the shared transaction is lost.

        Also when the database has refused something that may have been told by an earlier unit.
        """
        error = self._carry_out(link, transaction, job, alone=False)
        return error is None or (not self._is_lost(link, error) and self._roll_back(link))

    def _carry_out(
        self, link: Link, transaction: SqlTransaction, job: Job, *, alone: bool
    ) -> Exception | None:
        """Run a job; what went wrong with it, which it knows too."""
        job.result, job.error, job.notices = None, None, []
        try:
            if not alone:
                link.enter()
            job.result = job.unit(transaction)
            link.leave()
        except Exception as error:  # noqa: BLE001 -- it belongs to the caller, whatever it is
            transaction.take_notices()
            job.error = error
            return error
        job.notices = transaction.take_notices()
        return None

    def _is_lost(self, link: Link, error: Exception) -> bool:
        """Whether an error may be that of something told before, or has taken the whole transaction with it."""
        doubtful = isinstance(error, Unreached) or (link.doubtful and not isinstance(error, OvernightError))
        return doubtful or self._ground.is_storage_failure(error)

    def _settle(self, link: Link, transaction: SqlTransaction) -> bool:
        """Whether all is ready for the commit."""
        with suppress(Exception):  # each unit then hears of its own
            transaction.finish()
            self._ground.seal(link)
            return True
        return False

    def _start_over(self, link: Link, transaction: SqlTransaction) -> bool:
        """Undo the whole transaction; False when the connection is of no use any more."""
        with suppress(Exception):  # then it is lost, which is what is told
            link.abandon()
            transaction.forget()
            return True
        return False

    def _roll_back(self, link: Link) -> bool:
        """Undo the unit alone; False when the whole transaction is lost."""
        with suppress(Exception):  # then it is lost, which is what is told
            link.undo()
            return True
        return False

    def _commit(self, link: Link, batch: list[Job], *, again: bool = True) -> None:
        try:
            link.commit()
        except Unreached as error:
            if again:
                self._one_by_one(batch)
            else:
                self._drop_link()
                self._fail(batch, self._explain(self._ground.in_unit, error.__cause__ or error))
            return
        except Exception as error:  # noqa: BLE001 -- every caller must hear of it
            fate = self._fate(error)
            if fate is False and again:
                self._one_by_one(batch)
                return
            if not fate:
                meaning = self._ground.at_commit if fate is None else self._ground.in_unit
                self._fail(batch, self._explain(meaning, error))
                return
        self._release(batch)

    def _fate(self, error: Exception) -> bool | None:
        """After a failed commit: a new connection, which sees what is there."""
        was_cut = self._ground.is_cut(error)
        self._drop_link()
        fate = None
        with suppress(Exception):  # then nobody knows; the next transaction tries to open again
            self._link, self._transaction = self._ground.open(writing=True)
            fate = self._ground.fate(self._link)
        if not was_cut:
            self._drop_link()  # the next one takes the room again that the log has lost
            return None
        return fate

    def _one_by_one(self, batch: list[Job]) -> None:
        """The shared transaction is lost: give each job one of its own."""
        self._drop_link()
        for n, job in enumerate(batch):
            try:
                link, transaction = self._begin()
            except Exception as error:  # noqa: BLE001 -- the callers must hear of it
                self._drop_link()
                self._fail(batch[n:], self._explain(self._ground.in_unit, error))
                return
            try:
                failure = self._carry_out(link, transaction, job, alone=True)
                if failure is None:
                    transaction.finish()
                    self._ground.seal(link)
                    self._commit(link, [job], again=False)
                    continue
                if not self._ground.is_storage_failure(failure) and self._start_over(link, transaction):
                    self._release([job])
                    continue
            except Exception as error:  # noqa: BLE001 -- the caller must hear of it
                failure = error
            self._drop_link()
            self._fail([job], self._explain(self._ground.in_unit, failure))

    def _explain(self, meaning: Callable[[Exception], OvernightError], error: BaseException) -> BaseException:
        if isinstance(error, OvernightError) or not isinstance(error, Exception):
            return error
        explained = meaning(error)
        explained.__cause__ = error
        return explained

    def _fail(self, batch: list[Job], error: BaseException) -> None:
        for job in batch:
            job.result, job.error, job.notices = None, error, []
        self._release(batch)

    def _drop_link(self) -> None:
        """Close the connection, whose state is not known any more; the next transaction opens another."""
        link, self._link, self._transaction = self._link, None, None
        if link is not None:
            with suppress(Exception):  # it is given up; closing can only fail for the same reason
                link.close()
