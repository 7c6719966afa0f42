"""Whoever looks after the connections goes on looking, whatever comes and goes."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from overnight.stores.sql import postgres_watch
from overnight.stores.sql.postgres_watch import Watch


class Resting:
    """A connection that waits for nothing."""

    waiting_since: float | None = None
    answers_within: float | None = None


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads take turns as often as they can, and the watch looks without a pause."""
    monkeypatch.setattr(postgres_watch, "_LOOKS_S", 0.0)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
def test_connections_come_and_go_while_they_are_looked_at() -> None:
    watch, kept = Watch(), list[Any]()
    watch.start()
    thread = watch._thread
    assert thread is not None
    for n in range(20_000):
        kept.append(Resting())
        watch.add(kept[-1])
        if n % 3 == 0:
            kept.pop(0)
        if not thread.is_alive():
            break
    assert thread.is_alive()
    watch.stop()
