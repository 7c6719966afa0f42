"""A keeper and the sandbox between it and the agent: signals, statuses, limits and ends are those of the agent."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.keeper.harness import kill, lives
from tests.sandbox.estate import Estate, Script, finish, no_input

from overnight.backends.process.turn import ProcessTurn
from overnight.domain.run import Position
from overnight.domain.update import Message
from overnight.keeper.wrappers import Wrappers
from overnight.keeper_protocol import Interrupt, read_identity, read_record
from overnight.ports.backend import Stopped
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


def sh(line: str, **more: object) -> Script:
    return Script(argv=("/bin/sh", "-c", line), **more)  # type: ignore[arg-type]


def below(pid: int) -> list[int]:
    """Every living process beneath one of the host's."""
    found: list[int] = []
    layer = [pid]
    while layer:
        layer = [child for parent in layer for child in children(parent)]
        found += layer
    return found


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def inside(turn: ProcessTurn) -> list[int]:
    """The agent and what it has started, by the host's numbers; the two processes above it left out."""
    assert turn.pid is not None
    return below(turn.pid)[1:]


async def ready(turn: ProcessTurn, folder: Path) -> None:
    """The agent has said something."""
    await eventually(lambda: (folder / "stdout").stat().st_size > 0)


async def stop(turn: ProcessTurn, *, interrupt: bool) -> Stopped:
    reading = asyncio.ensure_future(finish(turn))
    await turn.stop(reason="manual", interrupt=interrupt)
    told = await reading
    assert told.ended.stopped is not None
    return told.ended.stopped


async def test_the_agent_alone_gets_the_interrupt(place: Estate) -> None:
    start = place.start_of("run_interrupt")
    line = "trap 'echo interrupted > a.txt; exit 0' INT; echo ready; while :; do sleep 0.02; done"
    turn = await place.begin(sh(line, interrupt=Interrupt(signal=signal.SIGINT, wait_s=10)), start)
    await ready(turn, start.folder)
    stopped = await stop(turn, interrupt=True)
    assert (start.workspace / "a.txt").read_text() == "interrupted\n"
    assert stopped == Stopped(steps=("interrupt",), survivors=0)


async def test_an_interrupt_waits_for_a_sandbox_that_is_being_made(place: Estate) -> None:
    """Stopped at once, before there is any agent to be interrupted: `sleep` ends by the signal, long before 10 s."""
    start = place.start_of("run_interrupt")
    script = Script(argv=("/bin/sleep", "60"), interrupt=Interrupt(signal=signal.SIGINT, wait_s=30))
    turn = await place.begin(script, start)
    stopped = await stop(turn, interrupt=True)
    assert stopped == Stopped(steps=("interrupt",), survivors=0)


async def test_the_agent_has_its_grace(place: Estate) -> None:
    """SIGTERM must not take the sandbox away from an agent that is still tidying up."""
    start = place.start_of("run_grace")
    line = "trap 'sleep 0.2; echo tidied > a.txt; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    turn = await place.begin(sh(line), start)
    await ready(turn, start.folder)
    stopped = await stop(turn, interrupt=False)
    assert (start.workspace / "a.txt").read_text() == "tidied\n"
    assert (stopped.steps, stopped.survivors) == (("sigterm",), 0)
    record = read_record(str(start.folder))
    assert record is not None
    assert (record.reason, record.exit_code, record.signal) == ("stopped", 7, None)


async def test_nothing_is_left_of_an_agent_that_resists(place: Estate) -> None:
    start = place.start_of("run_resists")
    start = replace(start, limits=replace(start.limits, grace_s=0.5))
    line = (
        "trap '' TERM INT HUP; "
        "for i in 1 2 3; do (setsid sh -c 'trap \"\" TERM; exec >&- 2>&- <&-; sleep 300' &) ; done; "
        "echo ready; while :; do sleep 1; done"
    )
    turn = await place.begin(sh(line), start)
    await ready(turn, start.folder)
    pids = await eventually(lambda: found if len(found := inside(turn)) >= 7 else [])
    stopped = await stop(turn, interrupt=False)
    assert [pid for pid in pids if lives(pid)] == []
    assert (stopped.steps[:2], stopped.survivors) == (("sigterm", "sigkill"), 0)


async def test_what_an_agent_leaves_running_goes_with_it(place: Estate) -> None:
    start = place.start_of("run_leaves")
    line = (
        "(trap 'echo polite > a.txt; exit' TERM; touch set; sleep 300 & wait) & "
        "until [ -e set ]; do sleep 0.02; done; echo ready"
    )
    turn = await place.begin(sh(line), start)
    await ready(turn, start.folder)
    told = await finish(turn)
    assert told.ended.outcome.stop_reason == "end_turn"
    assert (start.workspace / "a.txt").read_text() == "polite\n"
    assert told.ended.stopped is not None
    assert told.ended.stopped.steps[0] == "sigterm"


@pytest.mark.parametrize(
    "line, code, signum",
    [
        ("exit 3", 3, None),
        ("sleep 0.1; kill -KILL $$", None, signal.SIGKILL),
        ("sleep 0.1; kill -SEGV $$", None, signal.SIGSEGV),
        ("kill -TERM $$", None, signal.SIGTERM),
    ],
)
async def test_the_end_is_told_as_the_agents_own(
    place: Estate, line: str, code: int | None, signum: int | None
) -> None:
    start = place.start_of("run_ends")
    await place.tell(sh(line), start)
    record = read_record(str(start.folder))
    assert record is not None
    assert (record.reason, record.exit_code, record.signal) == ("exit", code, signum)


def kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()))


async def test_an_exit_code_that_looks_like_a_signal(place: Estate) -> None:
    """Kernels from 6.15 on know the difference; older ones leave only what shells mean by it."""
    start = place.start_of("run_ends")
    await place.tell(sh("sleep 0.3; exit 143"), start)
    record = read_record(str(start.folder))
    assert record is not None
    expected = (143, None) if kernel() >= (6, 15) else (None, signal.SIGTERM)
    assert (record.exit_code, record.signal) == expected


def test_without_the_kernels_word_a_code_is_read_as_shells_mean_it() -> None:
    wrapped = Wrappers(1, 2)
    assert wrapped.ended((128 + 15) << 8) == (None, 15)
    assert wrapped.ended(3 << 8) == (3, None)
    assert wrapped.ended(255 << 8) == (255, None)
    assert Wrappers(1, 0).ended((128 + 15) << 8) == (143, None)


async def test_the_sandbox_counts_for_no_limit(place: Estate) -> None:
    """Two children are allowed; two more processes belong to the sandbox."""
    start = place.start_of("run_children")
    start = replace(start, limits=replace(start.limits, children=2))
    calm = await place.tell(sh("sleep 1.5 & sleep 1.5 & wait; echo fine"), start)
    assert (calm.ended.cause, calm.last) == ("exit", "fine")
    start = place.start_of("run_children")
    start = replace(start, limits=replace(start.limits, children=2))
    storm = await place.tell(sh("for i in 1 2 3 4; do sleep 30 & done; wait"), start)
    assert storm.ended.cause == "children_limit"


async def test_the_keeper_names_what_stands_above_the_agent(place: Estate) -> None:
    """For a sweep without keeper and spawner: these processes need not show which pipes they hold."""
    start = place.start_of("run_named")
    turn = await place.begin(sh("echo ready; sleep 300"), start)
    await ready(turn, start.folder)
    assert turn.pid is not None

    def named() -> tuple[tuple[int, int], ...]:
        identity = read_identity(str(start.folder))
        return identity.wrappers if identity is not None else ()

    known = await eventually(named)
    assert {pid for pid, _ in known} == {turn.pid, children(turn.pid)[0]}
    assert (await stop(turn, interrupt=False)).survivors == 0


async def test_another_server_takes_the_turn_up(place: Estate) -> None:
    start = place.start_of("run_adopted")
    script = sh("echo one; until [ -e gate ]; do sleep 0.02; done; echo two")
    backend = place.backend(script)
    first = await backend.start(start, no_input)
    position, said = Position(), []
    async for batch in first.batches():
        position = batch.position
        said += [update.text for update in batch.updates if isinstance(update, Message)]
        if said:
            await first.leave()
    second = await place.backend(script).adopt(replace(start, token=2, position=position), no_input)
    assert second is not None
    (start.workspace / "gate").touch()
    told = await finish(second)
    assert (said, told.last) == (["one\n"], "two")
    assert told.ended.outcome.stop_reason == "end_turn"


@pytest.mark.parametrize("with_spawner", [False, True], ids=["keeper", "keeper and spawner"])
async def test_nothing_outlives_its_keeper(place: Estate, with_spawner: bool) -> None:
    """Not even what has let go of every pipe: with the first process of its pid namespace everything ends."""
    start = place.start_of("run_orphans")
    line = "for i in 1 2 3; do (setsid sh -c 'exec >&- 2>&- <&-; sleep 300' &); done; echo ready; sleep 300"
    turn = await place.begin(sh(line), start)
    await ready(turn, start.folder)
    pids = await eventually(lambda: found if len(found := inside(turn)) >= 7 else [])
    identity = read_identity(str(start.folder))
    assert identity is not None
    if with_spawner:
        kill(place.keepers.spawner_pid())
    kill(identity.pid)
    told = await finish(turn)
    assert [pid for pid in pids if lives(pid)] == []
    assert told.ended.outcome.failure is not None
    assert told.ended.outcome.failure.code == "keeper_lost"
    assert told.ended.stopped is not None
    assert told.ended.stopped.survivors == 0
