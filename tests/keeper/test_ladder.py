"""However an agent and its children defend themselves: at the end none of them lives, and the record says how."""

import base64
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.keeper.harness import PYTHON, Place, kill, lives, numbers, state, text

from overnight.backends.process.keeper_client import KeeperClient
from overnight.keeper_protocol import ExitRecord, Interrupt, read_record
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

SAY = """
import ctypes, os, signal, sys, time
def say(): os.write(1, b"%d\\n" % os.getpid())
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)
def stay():
    say()
    while True: time.sleep(60)
"""
DEAF = SAY + "deaf(); stay()"
DAEMONS = (
    SAY
    + """
deaf()
for _ in range(10):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            say()
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c",
                "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"], {})
        os._exit(0)
stay()
"""
)
SUBREAPERS = (
    SAY
    + """
deaf()
for _ in range(2):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        for _ in range(5):
            if os.fork() == 0:
                if os.fork() == 0: stay()
                os._exit(0)
        stay()
stay()
"""
)
FORKS = SAY + "deaf()\nfor _ in range(200):\n    if os.fork() == 0: stay()\nstay()"
STOPPED = (
    SAY
    + """
deaf()
for _ in range(10):
    if os.fork() == 0:
        say(); os.kill(os.getpid(), signal.SIGSTOP); os._exit(0)
stay()
"""
)
RESPAWNS = (
    SAY
    + """
deaf()
def hop():
    while True:
        if os.fork() > 0: os._exit(0)
        os.setsid()
        time.sleep(0.001)
for _ in range(5):
    if os.fork() == 0: hop()
stay()
"""
)


async def end(turn: KeeperClient, **how: object) -> ExitRecord:
    await turn.ladder(**how)  # type: ignore[arg-type]
    return await turn.ended()


def names(record: ExitRecord) -> list[str]:
    return [step.name for step in record.steps]


@pytest.mark.parametrize(
    "code, processes",
    [(DEAF, 1), (DAEMONS, 11), (SUBREAPERS, 13), (FORKS, 201), (STOPPED, 11)],
    ids=["deaf", "daemons", "subreapers", "forks", "stopped"],
)
async def test_whoever_ignores_sigterm_is_killed_after_the_grace(
    place: Place, code: str, processes: int
) -> None:
    turn = await place.launch(*PYTHON, code)
    pids = numbers(turn, processes)
    record = await end(turn, grace_s=0.1)
    assert [pid for pid in pids if lives(pid)] == []
    assert (record.reason, record.survivors, record.signal) == ("stopped", 0, signal.SIGKILL)
    assert names(record)[:2] == ["sigterm", "sigkill"]
    assert record.steps[0].processes >= processes
    assert record.steps[1].at_s - record.steps[0].at_s > 0.09


async def test_a_chain_that_forks_away_from_every_signal_is_caught(place: Place) -> None:
    turn = await place.launch(*PYTHON, RESPAWNS)
    numbers(turn, 1)
    record = await end(turn, grace_s=0.1)
    assert (record.reason, record.survivors) == ("stopped", 0)
    # Our only child being gone, every descendant is: and no process with our pipes is left either.
    assert holders(turn) == []


def holders(turn: KeeperClient) -> list[int]:
    """Processes other than the keeper that hold a pipe of this turn."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != turn.identity.pid:
            try:
                links = {os.readlink(link) for link in (entry / "fd").iterdir()}
            except OSError:
                continue
            if links & {f"pipe:[{inode}]" for inode in turn.identity.pipes}:
                found.append(int(entry.name))
    return found


async def test_an_agent_that_obeys_needs_no_second_step(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "600")
    record = await end(turn, grace_s=30)
    assert (names(record), record.signal) == (["sigterm"], signal.SIGTERM)


async def test_the_grace_is_for_the_whole_tree(place: Place) -> None:
    """The agent goes at once; its child in a session of its own may still put things in order."""
    child = "trap 'sleep 0.4; echo in order; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    turn = await place.launch(
        "/bin/sh", "-c", 'setsid /bin/sh -c "$CHILD" & exec sleep 600', env=env(CHILD=child)
    )
    await eventually(lambda: "ready" in text(turn))
    record = await end(turn, grace_s=20)
    assert text(turn).splitlines() == ["ready", "in order"]
    assert names(record) == ["sigterm"]
    assert record.signal == signal.SIGTERM


async def test_what_a_finished_agent_leaves_behind_is_swept(place: Place) -> None:
    turn = await place.launch("/bin/sh", "-c", "setsid sleep 600 & echo $!; exit 7")
    record = await turn.ended()
    assert (record.reason, record.exit_code, names(record)[0]) == ("exit", 7, "sigterm")
    assert not lives(numbers(turn, 1)[0])


async def test_background_children_that_hold_the_pipe_are_not_waited_for(place: Place) -> None:
    code = SAY + "deaf()\nif os.fork() == 0: os.setsid(); stay()\ntime.sleep(0.2); print('done')"
    turn = await place.launch(*PYTHON, code)
    record = await turn.ended()
    assert names(record) == ["sigterm", "sigkill"]
    assert record.exit_code == 0
    assert "done" in text(turn)


async def test_the_first_step_can_be_a_signal_to_the_agent_alone(place: Place) -> None:
    code = SAY + "signal.signal(signal.SIGINT, lambda *_: (print('interrupted'), sys.exit(5)))\nstay()"
    turn = await place.launch(*PYTHON, code, interrupt=Interrupt(signal=signal.SIGINT, wait_s=20))
    numbers(turn, 1)
    record = await end(turn, interrupt=True, grace_s=20)
    assert (record.reason, record.exit_code, names(record)) == ("stopped", 5, ["interrupt"])
    assert "interrupted" in text(turn)


async def test_the_first_step_can_be_bytes_on_stdin(place: Place) -> None:
    turn = await place.launch("/bin/sh", "-c", 'read first; read second; echo "$first $second"; exit 0')
    await turn.send_stdin(1, b"prompt\n")
    asked = Interrupt(data=base64.b64encode(b"cancel\n").decode(), wait_s=20)
    record = await end(turn, interrupt=asked, grace_s=20)
    assert text(turn) == "prompt cancel\n"
    assert (names(record), record.exit_code, record.stdin_last) == (["interrupt"], 0, 1)


async def test_an_interrupt_that_is_ignored_leads_to_the_next_step(place: Place) -> None:
    turn = await place.launch(*PYTHON, DEAF)
    numbers(turn, 1)
    record = await end(turn, interrupt=Interrupt(signal=signal.SIGINT, wait_s=0.05), grace_s=0.05)
    assert names(record) == ["interrupt", "sigterm", "sigkill"]


async def test_a_second_ladder_makes_the_first_one_faster(place: Place) -> None:
    turn = await place.launch(*PYTHON, DEAF)
    numbers(turn, 1)
    await turn.ladder(interrupt=Interrupt(signal=signal.SIGINT, wait_s=600), grace_s=600)
    await turn.ladder(grace_s=600)
    record = await end(turn, grace_s=0.05)
    assert names(record) == ["interrupt", "sigterm", "sigkill"]
    assert record.reason == "stopped"


async def test_a_keeper_told_to_end_takes_its_agent_along(place: Place) -> None:
    turn = await place.launch(*PYTHON, DAEMONS, grace_s=0.1)
    pids = numbers(turn, 11)
    kill(turn.identity.pid, signal.SIGTERM)
    record = await turn.ended()
    assert (record.reason, record.survivors) == ("terminated", 0)
    assert read_record(str(place.turns[0])) == record
    assert [pid for pid in pids if lives(pid)] == []


FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def freezer(tmp_path: Path):  # type: ignore[no-untyped-def]  # a generator of Path
    """A version-1 freezer group: what is frozen in it cannot even be killed."""
    group = FREEZER / f"overnight-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no process can be made unkillable here: {error}")
    yield group
    (group / "freezer.state").write_text("THAWED")
    subprocess.run(["rmdir", group], check=False)


async def test_who_cannot_die_is_reported_and_waited_for(place: Place, freezer: Path) -> None:
    turn = await place.launch(*PYTHON, SAY + "os.fork(); stay()")
    pids = numbers(turn, 2)
    frozen = next(pid for pid in pids if pid != turn.identity.agent_pid)
    (freezer / "cgroup.procs").write_text(str(frozen))
    (freezer / "freezer.state").write_text("FROZEN")
    await eventually(lambda: (freezer / "freezer.state").read_text().strip() == "FROZEN")
    await turn.ladder(grace_s=0.05)
    view = turn.view
    while not view.survivors:
        view = await turn.changed(view)
    assert view.survivors == 1
    assert view.record is None
    interim = read_record(str(place.turns[0]))
    assert interim is not None
    assert interim.survivors == 1
    assert state(frozen) == "D"
    (freezer / "freezer.state").write_text("THAWED")
    record = await turn.ended()
    assert record.survivors == 0
    assert not lives(frozen)
    final = read_record(str(place.turns[0]))
    assert final == record


def env(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **more}
