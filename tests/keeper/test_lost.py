"""Keeper, spawner, socket: whatever is killed or removed, nothing of a turn lives on unseen."""

import asyncio
import fcntl
import os
import signal

import pytest
from tests.keeper.harness import PYTHON, Place, end_keeper, kill, lives, numbers
from tests.keeper.test_ladder import DAEMONS, FORKS, SUBREAPERS

from overnight.backends.process.adoption import Dead, keeper_lives
from overnight.backends.process.sweep import sweep
from overnight.errors import BackendFailure
from overnight.keeper_protocol import read_record
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("code, processes", [(DAEMONS, 11), (SUBREAPERS, 13), (FORKS, 201)])
async def test_the_spawner_sweeps_after_a_keeper_that_was_killed(
    place: Place, code: str, processes: int
) -> None:
    turn = await place.launch(*PYTHON, code)
    pids = numbers(turn, processes)
    kill(turn.identity.pid)
    await eventually(lambda: not any(map(lives, pids)))
    await eventually(lambda: read_record(str(place.turns[0])) is not None)
    while turn.view.link == "up":
        await turn.changed(turn.view)
    found = await place.attach(place.turns[0], 2)
    assert isinstance(found, Dead)
    assert found.record is not None
    assert (found.record.reason, found.record.exit_code, found.record.survivors) == ("keeper_lost", None, 0)
    assert found.survivors == 0
    assert found.record.stdout_bytes == (place.turns[0] / "stdout").stat().st_size
    assert not os.path.lexists(turn.identity.socket)
    assert turn.identity.cgroup is None or not os.path.exists(turn.identity.cgroup)


async def test_other_keepers_do_not_notice(place: Place) -> None:
    first = await place.launch(*PYTHON, DAEMONS)
    second = await place.launch(*PYTHON, DAEMONS)
    doomed, spared = numbers(first, 11), numbers(second, 11)
    kill(first.identity.pid)
    await eventually(lambda: not any(map(lives, doomed)))
    assert all(map(lives, spared))
    await second.renew()
    kill(second.identity.pid)
    await eventually(lambda: not any(map(lives, spared)))


@pytest.mark.parametrize("marks", ["pipes", "cgroup"])
async def test_with_keeper_and_spawner_dead_the_server_sweeps(place: Place, marks: str) -> None:
    turn = await place.launch(*PYTHON, DAEMONS)
    pids = numbers(turn, 11)
    if marks == "cgroup" and turn.identity.cgroup is None:
        pytest.skip("no cgroup of version 2 can be made here")
    kill(place.spawner_pid())
    kill(turn.identity.pid)
    await eventually(lambda: not keeper_lives(place.turns[0]))
    # PDEATHSIG takes the agent along; its daemons are nobody's now.
    await eventually(lambda: not lives(turn.identity.agent_pid))
    assert sum(map(lives, pids)) == 10
    if marks == "pipes":
        assert sweep(turn.identity._replace(cgroup=None)) == 0
    else:
        assert sweep(turn.identity._replace(pipes=())) == 0
    assert not any(map(lives, pids))
    found = await place.attach(place.turns[0], 2)
    assert found == Dead(record=None, survivors=0)


async def test_a_sweep_touches_nobody_else(place: Place) -> None:
    doomed = await place.launch(*PYTHON, DAEMONS)
    spared = await place.launch(*PYTHON, DAEMONS)
    pids, others = numbers(doomed, 11), numbers(spared, 11)
    assert sweep(doomed.identity) == 0
    assert not any(map(lives, pids))
    assert all(map(lives, others))
    # Numbers that were written down in another boot mean other processes.
    assert sweep(spared.identity._replace(boot_id="another")) == 0
    assert all(map(lives, others))


async def test_keepers_outlive_their_spawner(place: Place) -> None:
    turn = await place.launch("/bin/cat")
    kill(place.spawner_pid())
    await turn.send_stdin(1, b"still here\n")
    await turn.close()
    again = await place.adopt(turn, 2)
    other = await place.launch("/bin/true")
    assert (await other.ended()).exit_code == 0
    await again.close_stdin()
    assert (await again.ended()).stdout_bytes == len("still here\n")


async def test_a_spawner_told_to_end_makes_room_and_still_sweeps(place: Place) -> None:
    turn = await place.launch(*PYTHON, DAEMONS)
    pids = numbers(turn, 11)
    old = place.spawner_pid()
    kill(old, signal.SIGTERM)
    await eventually(lambda: not list(place.runtime_dir.glob("s-*.sock")))
    other = await place.launch("/bin/true")
    assert (await other.ended()).exit_code == 0
    assert place.spawner_pid() != old
    assert lives(old)
    kill(turn.identity.pid)
    await eventually(lambda: not any(map(lives, pids)))
    await eventually(lambda: not lives(old))


async def test_a_spawner_without_its_socket_is_replaced(place: Place) -> None:
    first = await place.launch("/bin/sleep", "600")
    old = place.spawner_pid()
    next(place.runtime_dir.glob("s-*.sock")).unlink()
    second = await place.launch("/bin/true")
    assert (await second.ended()).exit_code == 0
    assert place.spawner_pid() != old
    await first.renew()
    end_keeper(place.turns[0])
    await eventually(lambda: not lives(old))


async def test_a_keeper_without_its_socket_is_told_to_end(place: Place) -> None:
    turn = await place.launch(*PYTHON, DAEMONS)
    pids = numbers(turn, 11)
    await turn.close()
    os.unlink(turn.identity.socket)
    found = await place.attach(place.turns[0], 2)
    assert isinstance(found, Dead)
    assert found.record is not None
    assert (found.record.reason, found.survivors) == ("terminated", 0)
    assert not any(map(lives, pids))


async def test_what_ended_meanwhile_is_read_from_its_record(place: Place) -> None:
    turn = await place.launch("/bin/sh", "-c", "echo out; exit 9", linger_s=0.01)
    await turn.close()
    await eventually(lambda: not keeper_lives(place.turns[0]))
    found = await place.attach(place.turns[0], 2)
    assert isinstance(found, Dead)
    assert found.record is not None
    assert (found.record.reason, found.record.exit_code, found.record.stdout_bytes) == ("exit", 9, 4)


async def test_a_launch_that_comes_after_its_successor_is_refused(place: Place) -> None:
    spec = place.spec(("/bin/sleep", "600"))
    assert await place.attach(place.turns[0], 2) == Dead(record=None, survivors=0)
    with pytest.raises(BackendFailure) as failure:
        await place.spawner.launch(spec, 1)
    assert failure.value.failure_code == "turn_used"


async def test_a_launch_that_is_on_its_way_is_waited_for(place: Place) -> None:
    """Its server is dead, the keeper has the lock and has not said who it is."""
    spec = place.spec(("/bin/sleep", "600"))
    lock = os.open(place.turns[0] / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    attaching = asyncio.ensure_future(place.attach(place.turns[0], 2))
    with pytest.raises(BackendFailure, match="lives in"):
        await place.spawner.launch(spec, 1)
    assert not attaching.done()
    os.close(lock)
    assert await attaching == Dead(record=None, survivors=0)
    with pytest.raises(BackendFailure, match="launched before"):
        await place.spawner.launch(spec, 1)
