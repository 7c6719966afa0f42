"""The port, over real keepers: what a turn says is said once, across stops, adoptions and deaths."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.keeper.harness import PYTHON, Place, end_keeper, kill, lives

from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.program import Command, Exit, Verdict
from overnight.backends.process.turn import ProcessTurn
from overnight.clock import SystemClock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.run import Position
from overnight.domain.update import Message, Output, TurnOutcome, Update
from overnight.domain.values import Failure
from overnight.errors import BackendFailure, LeaseLost
from overnight.keeper_protocol import Interrupt, read_identity
from overnight.ports.backend import Backend, Batch, TurnLimits, TurnStart
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

LIMITS = TurnLimits(timeout_s=60, output_bytes=1 << 30, children=100, grace_s=20)


@dataclass
class CountingCodec:
    """Numbers the lines it has seen, so that a replay that is not silent or not complete shows."""

    seen: int = 0

    def stdout(self, line: bytes, total: int | None = None) -> list[Update]:
        self.seen += 1
        return [Message(item_id=str(self.seen), text=line.decode())]

    def stderr(self, line: bytes, total: int | None = None) -> list[Update]:
        return [Output(stream="stderr", data=line, total=total)]

    def inject(self, text: str) -> bytes | None:
        return None if text == "no" else f"{text}\n".encode()

    def finish(self, exit: Exit) -> Verdict:
        failure = Failure(code="agent_exit", message=str(exit))
        outcome = TurnOutcome(stop_reason="end_turn") if exit.code == 0 else TurnOutcome(failure=failure)
        return Verdict(outcome=outcome, updates=(Message(item_id="end", text=f"{self.seen} lines"),))


@dataclass
class Script:
    """A program that is a piece of shell or Python."""

    argv: tuple[str, ...]
    stdin: bytes = b"prompt\n"
    close_stdin: bool = True
    interrupt: Interrupt | None = None
    name: str = "script"
    capabilities: Capabilities = field(default_factory=Capabilities)

    def command(self, start: TurnStart) -> Command:
        env = {"PATH": os.environ["PATH"]}
        return Command(
            argv=self.argv, env=env, cwd=start.workspace, stdin=self.stdin,
            close_stdin=self.close_stdin, interrupt=self.interrupt,
        )  # fmt: skip

    def codec(self, start: TurnStart) -> CountingCodec:
        return CountingCodec()

    async def check(self) -> BackendCheck:
        return BackendCheck(name="script", status="ok", capabilities=self.capabilities, checked_at=0)

    def stamp(self) -> str:
        return "1"


async def forget(number: int, data: bytes) -> None:
    """An engine that stores no inputs."""


class Stage:
    """One script as a backend, and the start of a turn."""

    def __init__(self, place: Place, script: Script, limits: TurnLimits = LIMITS) -> None:
        turn = place.data_dir / "the-turn"
        turn.mkdir(exist_ok=True)
        place.turns.append(turn)
        self.turn = turn
        self.backend: Backend = ProcessBackend(
            script,
            place.spawner,
            clock=SystemClock(),
            data_dir=place.data_dir,
            fence=lambda held_until: held_until,
        )
        self.begin = TurnStart(
            run_id="run_x", turn=1, attempt=1, token=1, folder=turn, workspace=place.data_dir, home=place.data_dir,
            prompt="unused", limits=limits,
        )  # fmt: skip

    async def start(self) -> ProcessTurn:
        turn = await self.backend.start(self.begin, forget)
        assert isinstance(turn, ProcessTurn)
        return turn

    async def adopt(self, token: int, **changes: object) -> ProcessTurn:
        turn = await self.backend.adopt(replace(self.begin, token=token, **changes), forget)  # type: ignore[arg-type]
        assert isinstance(turn, ProcessTurn)
        return turn


def sh(script: str, **more: object) -> Script:
    return Script(argv=("/bin/sh", "-c", script), **more)  # type: ignore[arg-type]


async def read(batches: AsyncIterator[Batch]) -> tuple[list[Update], Position]:
    updates: list[Update] = []
    position = Position()
    async for batch in batches:
        updates += batch.updates
        position = batch.position
    return updates, position


def said(updates: list[Update]) -> list[str]:
    return [update.text for update in updates if isinstance(update, Message)]


async def test_a_turn_from_start_to_release(place: Place) -> None:
    stage = Stage(place, sh("cat; echo two; echo oops >&2; printf 'no line end'"))
    turn = await stage.start()
    pid = turn.pid
    assert pid is not None
    updates, position = await read(turn.batches())
    assert said(updates) == ["prompt\n", "two\n", "no line end", "3 lines"]
    assert [update.data for update in updates if isinstance(update, Output)] == [b"oops\n"]
    assert position == Position(stdout=len("prompt\ntwo\nno line end"), stderr=5)
    assert turn.ended().outcome == TurnOutcome(stop_reason="end_turn")
    assert (turn.ended().cause, turn.ended().stopped) == ("exit", None)
    await turn.release()
    await turn.release()
    assert not lives(pid)
    await eventually(lambda: not (stage.turn / "keeper.sock").is_symlink())


async def test_updates_come_while_the_agent_works(place: Place) -> None:
    stage = Stage(place, sh("echo first; cat; echo last", stdin=b"", close_stdin=False))
    turn = await stage.start()
    batches = turn.batches()
    assert said(list((await anext(batches)).updates)) == ["first\n"]
    assert await turn.inject("steer")
    assert said(list((await anext(batches)).updates)) == ["steer\n"]
    assert not await turn.inject("no")
    await turn.stop(reason="manual", interrupt=False)
    await read(batches)
    assert not await turn.inject("too late")
    await turn.release()


async def test_a_program_that_is_not_there(place: Place) -> None:
    stage = Stage(place, Script(argv=("/no/such/agent",)))
    with pytest.raises(BackendFailure) as failure:
        await stage.start()
    assert (failure.value.failure_code, failure.value.retryable) == ("start_failed", False)


async def test_stopping_runs_the_ladder_with_the_programs_own_interrupt(place: Place) -> None:
    trap = "trap 'echo interrupted; exit 0' INT; echo ready; while :; do sleep 0.01; done"
    stage = Stage(place, sh(trap, interrupt=Interrupt(signal=signal.SIGINT, wait_s=20)))
    turn = await stage.start()
    batches = turn.batches()
    await anext(batches)
    await turn.stop(reason="manual", interrupt=True)
    await turn.stop(reason="manual", interrupt=True)
    updates, _ = await read(batches)
    assert said(updates) == ["interrupted\n"]
    end = turn.ended()
    assert (end.cause, end.outcome) == ("stopped", TurnOutcome(stop_reason="stopped"))
    assert end.stopped is not None
    assert end.stopped.steps[0] == "interrupt"
    assert end.stopped.survivors == 0
    await turn.release()


@pytest.mark.parametrize("take", [1, 2, 3])
async def test_an_adopted_turn_goes_on_where_the_record_ends(place: Place, take: int) -> None:
    stage = Stage(
        place, sh("echo one; cat; echo two; echo three; read go; echo end", stdin=b"", close_stdin=False)
    )
    first = await stage.start()
    assert await first.inject("go")
    path = stage.turn / "stdout"
    await eventually(lambda: path.read_bytes().startswith(b"one\ngo\n"))
    lines = [b"one\n", b"go\n", b"two\n", b"three\n"]
    position = Position(stdout=len(b"".join(lines[: take - 1])))
    await first.leave()
    second = await stage.adopt(2, position=position, inputs_sent=1, inputs=((1, b"go\n"),))
    await second._keeper.close_stdin()  # type: ignore[union-attr]
    updates, end = await read(second.batches())
    expected = [line.decode() for line in [*lines[take - 1 :], b"end\n"]]
    assert said(updates) == [*expected, "5 lines"]
    assert end.stdout == path.stat().st_size
    # The codec has seen everything, in its place: item ids go on from what was replayed.
    first_update = updates[0]
    assert isinstance(first_update, Message)
    assert first_update.item_id == str(take)
    await second.release()


async def test_a_stored_input_that_was_not_sent_is_sent_on_adoption(place: Place) -> None:
    stage = Stage(place, sh("cat", close_stdin=False))
    first = await stage.start()
    await first.inject("two")
    await first.leave()
    stored = ((2, b"two\n"), (3, b"three\n"))
    second = await stage.adopt(2, inputs_sent=3, inputs=stored)
    assert await second.inject("four")
    await eventually(lambda: (stage.turn / "stdout").read_bytes() == b"prompt\ntwo\nthree\nfour\n")
    await second.stop(reason="manual", interrupt=False)
    await read(second.batches())
    await second.release()


async def test_a_turn_that_ended_meanwhile_is_still_adopted(place: Place) -> None:
    stage = Stage(place, sh("echo one; echo two; exit 0"))
    first = await stage.start()
    await first.leave()
    await eventually((stage.turn / "exit.json").exists)
    end_keeper(stage.turn)
    second = await stage.adopt(2, position=Position(stdout=4))
    updates, _ = await read(second.batches())
    assert said(updates) == ["two\n", "2 lines"]
    assert second.ended().outcome == TurnOutcome(stop_reason="end_turn")
    assert second.pid is None
    await second.stop(reason="manual", interrupt=True)
    await second.renew(0, 1)
    await second.release()


async def test_a_turn_whose_keeper_was_killed_is_not_adopted(place: Place) -> None:
    stage = Stage(place, sh("echo $$; (setsid sleep 600 & echo $!); sleep 600"))
    first = await stage.start()
    path = stage.turn / "stdout"
    await eventually(lambda: path.read_bytes().count(b"\n") == 2)
    await first.leave()
    identity = read_identity(str(stage.turn))
    assert identity is not None
    kill(place.spawner_pid())
    kill(identity.pid)
    assert await stage.backend.adopt(replace(stage.begin, token=2), forget) is None
    assert not any(lives(int(pid)) for pid in path.read_text().split())


async def test_a_keeper_that_is_killed_under_a_living_server(place: Place) -> None:
    stage = Stage(place, sh("echo $$; setsid sleep 600"))
    turn = await stage.start()
    batches = turn.batches()
    pid = int(said(list((await anext(batches)).updates))[0])
    identity = read_identity(str(stage.turn))
    assert identity is not None
    kill(identity.pid)
    await read(batches)
    end = turn.ended()
    assert end.outcome.failure is not None
    assert (end.outcome.failure.code, end.outcome.failure.retryable) == ("keeper_lost", True)
    assert end.stopped is not None
    assert end.stopped.survivors == 0
    assert not lives(pid)
    await turn.release()


async def test_a_broken_connection_is_made_anew(place: Place) -> None:
    stage = Stage(place, sh("echo one; cat", close_stdin=False, stdin=b""))
    turn = await stage.start()
    batches = turn.batches()
    assert said(list((await anext(batches)).updates)) == ["one\n"]
    turn._keeper._channel.close()  # type: ignore[union-attr]
    # Stored, and sent once the connection is back.
    assert await turn.inject("two")
    assert said(list((await anext(batches)).updates)) == ["two\n"]
    assert await turn.inject("three")
    assert said(list((await anext(batches)).updates)) == ["three\n"]
    await turn.stop(reason="manual", interrupt=False)
    await read(batches)
    assert turn.ended().cause == "stopped"
    await turn.release()


async def test_the_old_holder_notices_that_it_lost_the_turn(place: Place) -> None:
    stage = Stage(place, sh("cat; sleep 600"))
    old = await stage.start()
    reading = asyncio.ensure_future(read(old.batches()))
    new = await stage.adopt(2)
    with pytest.raises(LeaseLost):
        await reading
    for order in (old.renew(0, 1), old.stop(reason="manual", interrupt=False), old.inject("x")):
        with pytest.raises(LeaseLost):
            await order
    with pytest.raises(LeaseLost):
        await stage.adopt(1)
    await old.release()
    await new.stop(reason="manual", interrupt=False)
    assert said((await read(new.batches()))[0]) == ["prompt\n"]
    await new.release()


async def test_leaving_ends_the_batches_and_nothing_else(place: Place) -> None:
    stage = Stage(place, sh("cat; sleep 600"))
    turn = await stage.start()
    pid = turn.pid
    assert pid is not None
    reading = asyncio.ensure_future(read(turn.batches()))
    await turn.leave()
    await turn.leave()
    await reading
    with pytest.raises(RuntimeError):
        turn.ended()
    assert lives(pid)


async def test_a_lease_that_is_not_renewed_ends_the_agent(place: Place) -> None:
    stage = Stage(place, sh("sleep 600"))
    turn = await stage.start()
    await turn.renew(SystemClock().boot(), 0.1)
    await read(turn.batches())
    assert turn.ended().cause == "fenced"
    assert turn.ended().outcome.failure is not None
    await turn.release()


async def test_an_agent_is_fenced_by_the_hold_with_which_it_was_started(place: Place) -> None:
    stage = Stage(place, sh("trap '' INT; sleep 600", interrupt=Interrupt(signal=2, wait_s=600)))
    until = SystemClock().boot() + 0.3
    stage.begin = replace(stage.begin, held_until=lambda: until)
    turn = await stage.start()
    await read(turn.batches())
    ended = turn.ended()
    assert (ended.cause, ended.stopped.steps if ended.stopped else ()) == ("fenced", ("sigterm",))
    await turn.release()


async def test_whoever_takes_a_turn_up_renews_it_before_anything_else(place: Place) -> None:
    stage = Stage(place, sh("sleep 600"))
    clock = SystemClock()
    stage.begin = replace(stage.begin, held_until=lambda: clock.boot() + 60)
    await (await stage.start()).leave()
    until = clock.boot() + 0.3
    turn = await stage.adopt(2, held_until=lambda: until)
    await read(turn.batches())
    assert turn.ended().cause == "fenced"
    await turn.release()


@pytest.mark.parametrize(
    "script, limits, cause",
    [
        ("sleep 600", replace(LIMITS, timeout_s=0.1), "deadline"),
        ("yes", replace(LIMITS, output_bytes=100_000), "output_limit"),
        ("for n in 1 2 3 4 5; do sleep 600 & done; wait", replace(LIMITS, children=3), "children_limit"),
    ],
)
async def test_limits_say_which(place: Place, script: str, limits: TurnLimits, cause: str) -> None:
    turn = await Stage(place, sh(script), limits).start()
    await read(turn.batches())
    assert turn.ended().cause == cause
    assert turn.ended().outcome.failure is not None
    await turn.release()


async def test_output_that_somebody_cut_ends_the_turn(place: Place) -> None:
    stage = Stage(place, sh("echo one; read go; echo two; sleep 600", close_stdin=False, stdin=b""))
    turn = await stage.start()
    batches = turn.batches()
    await anext(batches)
    os.truncate(stage.turn / "stdout", 0)
    await turn.inject("go")
    await read(batches)
    assert turn.ended().outcome.failure is not None
    assert turn.ended().outcome.failure.code == "output_truncated"  # type: ignore[union-attr]
    await turn.release()


async def test_fifty_turns_show_no_foreign_output(place: Place, tmp_path: Path) -> None:
    async def one(number: int) -> list[str]:
        folder = tmp_path / f"many-{number}"
        folder.mkdir()
        stage = Stage(place, Script(argv=(*PYTHON, f"for _ in range(50): print('turn {number}')")))
        turn = await stage.backend.start(replace(stage.begin, folder=folder), forget)
        place.turns.append(folder)
        updates, _ = await read(turn.batches())
        await turn.release()
        return said(updates)

    for number, lines in enumerate(await asyncio.gather(*map(one, range(50)))):
        assert lines == [f"turn {number}\n"] * 50 + ["50 lines"]
