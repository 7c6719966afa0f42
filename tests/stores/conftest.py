"""The stages on which the store suites play."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    clock, notifier = ManualClock(), InprocNotifier()
    store = SqliteStore(tmp_path / "overnight.db", clock, notifier)
    await store.start()
    yield Stage(uow=store, notifier=notifier, clock=clock)
    await store.close()
