"""Keepers and spawners that an agent has stopped: it may, being of the same user, and gains nothing by it."""

import contextlib
import os
import signal

import pytest
from tests.keeper.harness import Place, lives
from tests.keeper.test_backend import Stage, read, sh

from overnight.backends.process import keeper_client
from overnight.errors import KeeperGone
from overnight.keeper_protocol import read_identity, read_spawner

pytestmark = pytest.mark.anyio


async def test_an_agent_that_stops_its_keeper_is_stopped_all_the_same(place: Place) -> None:
    stage = Stage(place, sh("kill -STOP $PPID; setsid sleep 600"))
    turn = await stage.start()
    batches = turn.batches()
    identity = read_identity(str(stage.turn))
    assert identity is not None
    os.kill(identity.pid, signal.SIGSTOP)
    await turn.stop(reason="cancel", interrupt=False)
    await read(batches)
    end = turn.ended()
    assert end.stopped is not None
    assert (end.cause, end.stopped.survivors) == ("stopped", 0)
    assert not lives(identity.agent_pid)
    await turn.release()


async def test_an_agent_that_stops_its_keeper_again_and_again_loses_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_client, "ANSWER_WITHIN_S", 0.5)
    stage = Stage(place, sh("sleep 0.2; while :; do kill -STOP $PPID; sleep 0.001; done"))
    turn = await stage.start()
    batches = turn.batches()
    identity = read_identity(str(stage.turn))
    assert identity is not None
    with contextlib.suppress(KeeperGone):  # or it finds time for an answer
        await turn.stop(reason="cancel", interrupt=False)
    await read(batches)
    stopped = turn.ended().stopped
    assert stopped is not None
    assert stopped.survivors == 0
    assert not lives(identity.agent_pid)
    await turn.release()


async def test_a_spawner_that_an_agent_has_stopped_is_let_go_on(place: Place) -> None:
    await place.spawner.ping()
    holder = read_spawner(str(place.data_dir))
    assert holder is not None
    os.kill(holder.pid, signal.SIGSTOP)
    turn = await Stage(place, sh("exit 0")).start()
    await read(turn.batches())
    await turn.release()
    await place.spawner.close()
