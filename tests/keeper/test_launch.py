"""What an agent is born with, and what is left when it cannot be born."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from tests.keeper.harness import PYTHON, Place, lives, text

from overnight.backends.process.adoption import Dead, keeper_lives
from overnight.backends.process.spawner_client import SpawnerClient
from overnight.errors import BackendFailure
from overnight.keeper_protocol import (
    boot_id,
    is_same_process,
    pid_namespace,
    read_identity,
    read_record,
    starttime,
)
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio

LOOK_AROUND = """
import json, os, signal
json.dump({
    "fds": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)),
    "env": dict(os.environ), "cwd": os.getcwd(), "sid": os.getsid(0) == os.getpid(),
    "ignored": [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")],
    "blocked": [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigBlk")],
    "umask": os.umask(0),
}, open(1, "w"))
"""


OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33: `make` starts us by glibc's posix_spawn, which ignores them, and glibc lets nobody change that."""


async def test_an_agent_gets_exactly_what_it_was_given(place: Place) -> None:
    env = {"ONLY": "this", "UTF8": "grün", "RAW": os.fsdecode(b"\xff\xfe"), "LC_CTYPE": "C.UTF-8"}
    turn = await place.launch("/bin/ls", "-l", "/proc/self/fd")
    await turn.ended()
    listed = [line.split()[-3:] for line in text(turn).splitlines() if "->" in line]
    pipes = [f"pipe:[{inode}]" for inode in turn.identity.pipes]
    # ls itself opens the folder as its fourth descriptor.
    assert [(number, target) for number, _, target in listed[:3]] == list(zip("012", pipes, strict=True))
    assert len(listed) == 4
    turn = await place.launch(*PYTHON, LOOK_AROUND, env=env, umask=0o027)
    record = await turn.ended()
    assert (record.exit_code, record.signal, record.reason) == (0, None, "exit"), record
    found = json.loads(text(turn))
    assert found["env"] == env
    assert found["cwd"] == str(Path(turn.identity.out_path).parent)
    assert found["sid"]
    # Python itself ignores SIGPIPE and SIGXFSZ once it runs.
    assert int(found["ignored"][0], 16) & ~(1 << 12 | 1 << 24 | OF_THE_C_LIBRARY) == 0
    assert int(found["blocked"][0], 16) == 0
    assert found["umask"] == 0o027


async def test_ignored_signals_are_not_inherited(place: Place) -> None:
    turn = await place.launch("/bin/grep", "SigIgn", "/proc/self/status")
    await turn.ended()
    assert int(text(turn).split()[1], 16) & ~OF_THE_C_LIBRARY == 0


async def test_exit_status_and_signal_are_recorded(place: Place) -> None:
    turn = await place.launch("/bin/sh", "-c", "printf out; printf er >&2; exit 3")
    record = await turn.ended()
    assert (record.exit_code, record.signal, record.stdout_bytes, record.stderr_bytes) == (3, None, 3, 2)
    assert (record.steps, record.survivors, record.discarded_bytes) == ((), 0, 0)
    assert record == read_record(str(place.turns[0]))
    turn = await place.launch("/bin/sh", "-c", "kill -9 $$")
    record = await turn.ended()
    assert (record.exit_code, record.signal) == (None, 9)


@pytest.mark.parametrize(
    "argv, changes, said",
    [
        (("/no/such/program",), {}, "/no/such/program"),
        (("/etc/passwd",), {}, "EACCES"),
        (("/bin/true",), {"cwd": "/no/such/folder"}, "entering /no/such/folder"),
        (("/bin/true",), {"out_path": "/no/such/folder/out"}, "/no/such/folder"),
    ],
)
async def test_a_program_that_cannot_be_started_leaves_nothing(
    place: Place, argv: tuple[str, ...], changes: dict[str, object], said: str
) -> None:
    with pytest.raises(BackendFailure) as failure:
        await place.launch(*argv, **changes)
    assert failure.value.failure_code == "start_failed"
    assert said in failure.value.detail
    await eventually(lambda: not keeper_lives(place.turns[0]))
    assert [path.name for path in place.runtime_dir.iterdir() if path.name.startswith("k-")] == []
    assert read_identity(str(place.turns[0])) is None


async def test_a_turn_folder_is_used_once(place: Place) -> None:
    spec = place.spec(("/bin/sleep", "60"))
    turn = await place.spawner.launch(spec, 1)
    with pytest.raises(BackendFailure, match="lives in") as failure:
        await place.spawner.launch(spec, 2)
    assert failure.value.failure_code == "turn_used"
    await turn.ladder(grace_s=1)
    await turn.ended()
    await turn.release()
    await eventually(lambda: not keeper_lives(place.turns[0]))
    with pytest.raises(BackendFailure, match="launched before"):
        await place.spawner.launch(spec, 3)


async def test_a_keeper_is_known_by_more_than_its_pid(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "60")
    who = turn.identity
    assert who == read_identity(str(place.turns[0]))
    assert (who.boot_id, who.pid_ns) == (boot_id(), pid_namespace())
    assert is_same_process(who.pid, who.starttime, who.boot_id, who.pid_ns)
    assert is_same_process(who.agent_pid, who.agent_starttime, who.boot_id, who.pid_ns)
    # The number alone means nothing: given to another process, in another boot, in another namespace.
    assert not is_same_process(who.pid, who.starttime + 1, who.boot_id, who.pid_ns)
    assert not is_same_process(who.pid, who.starttime, "another boot", who.pid_ns)
    assert not is_same_process(who.pid, who.starttime, who.boot_id, who.pid_ns + 1)
    assert not is_same_process(who.pid, 0, who.boot_id, who.pid_ns)


async def test_a_reused_pid_is_not_taken_for_the_keeper(place: Place) -> None:
    turn = await place.launch("/bin/true")
    await turn.ended()
    await turn.release()
    await eventually(lambda: not keeper_lives(place.turns[0]))
    path = place.turns[0] / "keeper.json"
    # As if a stranger, ourselves, had got both numbers since.
    stored = json.loads(path.read_text()) | {"pid": os.getpid(), "agent_pid": os.getpid()}
    path.write_text(json.dumps(stored))
    found = await place.attach(place.turns[0], 2)
    assert isinstance(found, Dead)
    assert found.record is not None
    assert found.survivors == 0
    assert starttime(os.getpid()) != stored["starttime"]


async def test_sockets_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-rather-long-name"] * 5)
    assert len(str(deep)) > 150
    place = Place.make(tmp_path, runtime_dir=deep)
    try:
        turn = await place.launch("/bin/cat")
        await turn.close()
        again = await place.adopt(turn, 2)
        await again.send_stdin(1, b"hello\n")
        await again.close_stdin()
        await again.ended()
        assert text(again) == "hello\n"
        assert deep.stat().st_mode & 0o777 == 0o700
    finally:
        place.clear()


async def test_many_first_launches_at_once_share_one_spawner(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    servers = [SpawnerClient(tmp_path, place.runtime_dir, idle_s=0.1) for _ in range(5)]
    specs = [(server, place.spec(("/bin/sleep", "60"))) for server in servers for _ in range(4)]
    try:
        turns = await asyncio.gather(*(server.launch(spec, 1) for server, spec in specs))
        parents = {
            (Path(f"/proc/{turn.identity.pid}/stat").read_text().split(") ")[1].split()[1]) for turn in turns
        }
        assert parents == {str(place.spawner_pid())}
    finally:
        place.clear()


async def test_a_keeper_goes_once_released(place: Place) -> None:
    turn = await place.launch("/bin/true")
    await turn.ended()
    assert lives(turn.identity.pid)
    await turn.release()
    await eventually(lambda: not lives(turn.identity.pid))
    assert not os.path.lexists(turn.identity.socket)
    assert not os.path.lexists(place.turns[0] / "keeper.sock")
    assert turn.identity.cgroup is None or not os.path.exists(turn.identity.cgroup)


async def test_a_keeper_that_nobody_releases_goes_too(place: Place) -> None:
    turn = await place.launch("/bin/true", linger_s=0.05)
    await turn.ended()
    await eventually(lambda: not lives(turn.identity.pid))
    assert read_record(str(place.turns[0])) is not None


async def test_an_idle_spawner_ends(place: Place) -> None:
    turn = await place.launch("/bin/true", linger_s=0.01)
    await turn.ended()
    pid = place.spawner_pid()
    await eventually(lambda: not lives(pid))
    again = await place.launch("/bin/true")
    await again.ended()
    assert place.spawner_pid() != pid


async def test_the_spawner_says_what_it_can(place: Place) -> None:
    pong = await place.spawner.ping()
    assert pong["version"] == 1
    assert pong["abilities"]["subreaper"]
    pid = place.spawner_pid()
    turn = await place.launch("/bin/true", linger_s=0.01)
    await turn.ended()
    await eventually(lambda: not lives(turn.identity.pid))
    assert (await place.spawner.ping())["pid"] == pid
    await place.spawner.close()
    await eventually(lambda: not lives(pid))
