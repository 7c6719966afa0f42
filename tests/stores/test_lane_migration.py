"""From the schema of hosts to the one of lanes, with runs in the queue, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.stores.test_migrations import CLOCK, OLD_ROWS, made, shape

from overnight.domain.placement import at_host
from overnight.domain.worker import Worker
from overnight.ids import HostId, new_worker_id
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import admin
from overnight.stores.sql.library import driver
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.conformance.stage import Stage

QUEUED = """
INSERT INTO streams (pk, kind, owner, run_id, session_id) VALUES ({pk}, 'run', 'usr_local', 'run_{pk}', 'ses_a');
INSERT INTO runs (pk, id, owner, state, session_pk, session_id, host_id, mode, backend, priority, shared, gate, gate_by,
  created_at, updated_at, token, attempt, turn, fallback, stats, idle_turns, sandbox_effective, change, parent_id)
  VALUES ({pk}, 'run_{pk}', 'usr_local', 'queued', 1, 'ses_a', 'hst', 'oneshot', 'echo', 0, 0, {gate}, 2, 5, 5, 0, 1, 0,
  0, '{{"turns":0,"usage":{{}},"files":{{}},"tests":null,"wall_ms":0}}', 0, 'none', {pk}, 'run_a');
INSERT INTO run_specs (run_pk, spec, goal_folded, environment) VALUES ({pk},
  '{{"goal":"g","mode":"oneshot","backend":"echo","labels":{labels}}}', 'g', '{{}}');
"""
NEEDS = """
INSERT INTO run_labels (run_pk, name, value) VALUES (6, 'worker/gpu', 'x');
INSERT INTO run_labels (run_pk, name, value) VALUES (6, 'team', 'a');
UPDATE counters SET value = 10 WHERE name = 'change';
INSERT INTO workers (id, host_id, host_name, pid, version, slots, backends, labels, state, started_at, seen_at)
  VALUES ('wrk_old', 'hst', 'h', 1, '1', 1, '["echo"]', '{}', 'draining', 5, 5);
"""


def test_runs_in_the_queue_find_their_lanes(tmp_path: Path) -> None:
    path = made(tmp_path / "o.db")
    assert admin.downgrade(path, CLOCK, "0002")
    before = shape(path)
    connection = driver().connect(str(path))
    connection.executescript(
        OLD_ROWS
        + QUEUED.format(pk=4, gate="NULL", labels="{}")
        + QUEUED.format(pk=5, gate="'workspace'", labels="{}")
        + QUEUED.format(pk=6, gate="NULL", labels='{"worker/gpu":"x","team":"a"}')
        + NEEDS
    )
    connection.commit()
    connection.close()
    assert admin.upgrade(path, CLOCK)
    assert asyncio.run(claimed(path)) == ([4, 5], [6])
    assert admin.downgrade(path, CLOCK, "0002")
    assert shape(path) == before
    assert admin.upgrade(path, CLOCK)


async def claimed(path: Path) -> tuple[list[int], list[int]]:
    """By a worker without labels, and by one that bears what the third run needs."""
    store = SqliteStore(path, CLOCK, InprocNotifier())
    await store.start()
    stage = Stage(uow=store, notifier=InprocNotifier(), clock=CLOCK, host=HostId("hst"))  # type: ignore[arg-type]
    now = CLOCK.wall_ms()
    row = Worker(
        pk=0, id=new_worker_id(now), host_id=stage.host, host_name="h", pid=1, version="1", slots=1,
        backends=("echo",), started_at=now, seen_at=now,
    )  # fmt: skip
    worker = await store.write(lambda tx: tx.workers.add(row))
    old = next(one for one in await store.read(lambda tx: tx.workers.all()) if one.id == "wrk_old")
    assert (old.state, old.reason, old.places) == ("draining", None, ())
    plain = await stage.claim(worker, 9)
    assert {run.place for run in plain} == {at_host("hst")}
    strong = await stage.claim(worker, 9, labels={"gpu": "x"})
    await store.close()
    return [run.pk for run in plain], [run.pk for run in strong]
