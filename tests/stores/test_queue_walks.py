"""The queue against its model, with walks that hypothesis makes and makes shorter."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stores.test_queue_cost import Bench

from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.queue_walk import QueueWalk


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("walks") / "o.db")
    yield made
    made.link.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.integers(1, 50))
def test_the_queue_agrees_with_a_plain_model(bench: Bench, chance: random.Random, steps: int) -> None:
    bench.link.script("SAVEPOINT walk")
    try:
        bench.stage.clock = ManualClock()
        walk = QueueWalk(bench.stage, chance)
        walk.begin(bench.tx)
        for _ in range(steps):
            walk.step(bench.tx)
        walk.finish(bench.tx)
    finally:
        bench.tx.take_notices()
        bench.link.script("ROLLBACK TO walk")
        bench.link.script("RELEASE walk")
