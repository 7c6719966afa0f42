"""SQLite passes every store suite, the in-process notifier the notifier's."""

import pytest

from overnight.ports.notifier import Notifier
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.testing.conformance.approvals import ApprovalSuite
from overnight.testing.conformance.lanes import LaneSuite
from overnight.testing.conformance.log import LogSuite
from overnight.testing.conformance.model_calls import ModelCallSuite
from overnight.testing.conformance.notices import NotifierSuite
from overnight.testing.conformance.queue import ClaimSuite, LeaseSuite
from overnight.testing.conformance.queue_walk import QueueWalkSuite
from overnight.testing.conformance.records import RecordSuite
from overnight.testing.conformance.room import RateSuite, RoomSuite
from overnight.testing.conformance.sessions import SessionSuite
from overnight.testing.conformance.tables import TableSuite
from overnight.testing.conformance.units import UnitSuite
from overnight.testing.conformance.walk import WalkSuite
from overnight.testing.conformance.workers import ExpirySuite, WorkerSuite


class TestUnits(UnitSuite):
    pass


class TestLog(LogSuite):
    pass


class TestRecords(RecordSuite):
    pass


class TestApprovals(ApprovalSuite):
    pass


class TestClaims(ClaimSuite):
    pass


class TestLeases(LeaseSuite):
    pass


class TestWalks(WalkSuite):
    pass


class TestTables(TableSuite):
    pass


class TestSessions(SessionSuite):
    pass


class TestInprocNotifier(NotifierSuite):
    @pytest.fixture
    def notifier(self) -> Notifier:
        return InprocNotifier()


class TestModelCalls(ModelCallSuite):
    pass


class TestLanes(LaneSuite):
    pass


class TestRooms(RoomSuite):
    pass


class TestRates(RateSuite):
    pass


class TestWorkers(WorkerSuite):
    pass


class TestExpiries(ExpirySuite):
    pass


class TestQueueWalks(QueueWalkSuite):
    pass
