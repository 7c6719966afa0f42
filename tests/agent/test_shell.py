"""Commands: what comes back, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.agent.trees import Ground, plant

from overnight.agent.tools.environment import cleaned
from overnight.agent.tools.output import MOST_SHOWN_BYTES, Output
from overnight.agent.tools.registry import default_tools
from overnight.agent.tools.shell import Shell
from overnight.agent.tools.tool import ToolOutcome
from overnight.keeper_protocol import stat_fields
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
LONG_MS = 120_000
NEEDS_PROC = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="processes are listed by /proc")


def seen(outcome: ToolOutcome) -> str:
    return str(json.loads(outcome.text)["output"])


async def script(ground: Ground, text: str, **more: object) -> ToolOutcome:
    return await ground.run(Shell(), script=text, **{"timeout_ms": LONG_MS, **more})


async def test_a_command_and_what_it_prints(ground: Ground) -> None:
    outcome = await ground.run(Shell(), command=["printf", "%s-%s", "a", "b c"], timeout_ms=LONG_MS)
    told = json.loads(outcome.text)
    assert (outcome.ok, told["output"], told["metadata"]["exit_code"]) == (True, "a-b c", 0)
    assert round(told["metadata"]["duration_seconds"], 1) == told["metadata"]["duration_seconds"]


async def test_both_outputs_are_in_the_order_in_which_they_came(ground: Ground) -> None:
    outcome = await script(ground, "for n in 1 2 3; do echo out$n; echo err$n >&2; done")
    assert seen(outcome).split() == ["out1", "err1", "out2", "err2", "out3", "err3"]


async def test_what_a_failing_command_said_is_not_lost(ground: Ground) -> None:
    outcome = await script(ground, "echo why; exit 3")
    assert (outcome.ok, outcome.code, seen(outcome), outcome.structured["exit_code"]) == (
        False, "tool_execution_error", "why\n", 3,
    )  # fmt: skip


async def test_a_signal_is_an_exit_code_as_in_shells(ground: Ground) -> None:
    outcome = await script(ground, "kill -SEGV $$")
    assert outcome.structured["exit_code"] == 128 + signal.SIGSEGV


async def test_a_folder_of_the_workspace(ground: Ground) -> None:
    plant(ground.root, {"sub/f": ""})
    for workdir in ("sub", str(ground.root / "sub")):
        assert seen(await script(ground, "pwd; ls", workdir=workdir)) == f"{ground.root}/sub\nf\n"
    for workdir in ("..", "/", "missing", "sub/f"):
        assert "workdir" in await ground.told(Shell(), script="pwd", workdir=workdir)


async def test_there_is_no_input_and_no_descriptor_but_three(ground: Ground) -> None:
    assert seen(await script(ground, "cat; echo over")) == "over\n"
    if os.path.exists("/proc/self/fd"):
        shown = seen(await ground.run(Shell(), command=["ls", "/proc/self/fd"], timeout_ms=LONG_MS))
        assert shown.split() == ["0", "1", "2", "3"]  # the last is the folder that is listed


async def test_signals_are_as_usual_for_a_command(ground: Ground) -> None:
    outcome = await script(ground, "yes | head -1; echo ${PIPESTATUS[0]}")
    assert seen(outcome) == f"y\n{128 + signal.SIGPIPE}\n"


@pytest.mark.parametrize("command", [["no-such-program-here"], ["./not-executable"], ["/"]])
async def test_what_cannot_be_started(ground: Ground, command: list[str]) -> None:
    plant(ground.root, {"not-executable": "x"})
    assert "the command cannot be run" in await ground.told(Shell(), command=command)


async def test_what_makes_no_command(ground: Ground) -> None:
    for given in ({}, {"command": ["a"], "script": "b"}):
        assert "either command" in await ground.told(Shell(), **given)
    for words in ([""], ["a\0b"]):
        assert "must not hold a NUL" in await ground.told(Shell(), command=words)
    assert "cannot be run" in await ground.told(Shell(), command=["echo", "x" * (8 << 20)])


async def test_a_timeout_says_how_long_and_what_was_printed(ground: Ground) -> None:
    outcome = await ground.run(Shell(), script="echo begun; exec sleep 1000", timeout_ms=1000)
    assert seen(outcome).startswith("command timed out after 1000 milliseconds\n")
    assert (outcome.ok, outcome.code, outcome.structured["exit_code"]) == (False, "tool_timeout", 124)
    assert outcome.structured["timed_out"] is True


@pytest.fixture
def mark() -> str:
    """A number of seconds that only this test's processes sleep for."""
    return f"{100_000 + os.getpid()}.{id(object()) % 1_000_000}"


def alive(mark: str) -> list[int]:
    """Processes that have the mark in their command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path("/proc", name, "cmdline").read_bytes()
        except OSError:
            continue
        fields = stat_fields(int(name))
        if mark.encode() in line and fields is not None and fields[0] not in "ZX":
            found.append(int(name))
    return found


LEAVERS = {
    "in the background": "sleep {mark} &",
    "with a session of its own": "setsid sleep {mark} &",
    "parted from its parent": "(setsid sh -c 'sleep {mark} & sleep {mark} &' &)",
    "deaf": "(trap '' TERM; sleep {mark} & wait) &",
    "stopped": "sleep {mark} & kill -STOP $!",
}


@NEEDS_PROC
@pytest.mark.parametrize("line", LEAVERS.values(), ids=LEAVERS)
async def test_nothing_outlives_the_command_that_started_it(ground: Ground, mark: str, line: str) -> None:
    outcome = await script(ground, line.format(mark=mark) + "\necho over")
    assert (outcome.ok, seen(outcome)) == (True, "over\n")
    assert alive(mark) == []


@NEEDS_PROC
@pytest.mark.parametrize("line", LEAVERS.values(), ids=LEAVERS)
async def test_nothing_outlives_a_cancellation(ground: Ground, mark: str, line: str) -> None:
    heard: list[str] = []
    context = dataclasses.replace(ground.context, progress=heard.append)
    text = f"{line.format(mark=mark)}\necho begun\nexec sleep {mark}"
    call = asyncio.create_task(Shell().run({"script": text, "timeout_ms": LONG_MS}, context))
    await eventually(lambda: "begun" in "".join(heard))
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert alive(mark) == []


@NEEDS_PROC
async def test_nothing_outlives_a_timeout(ground: Ground, mark: str) -> None:
    text = f"{LEAVERS['parted from its parent'].format(mark=mark)}\nexec sleep {mark}"
    outcome = await ground.run(Shell(), script=text, timeout_ms=1000)
    assert outcome.structured["timed_out"] is True
    assert alive(mark) == []


@NEEDS_PROC
async def test_a_cancellation_before_it_has_begun(ground: Ground, mark: str) -> None:
    for yields in range(8):
        call = asyncio.create_task(
            Shell().run({"command": ["sleep", mark], "timeout_ms": LONG_MS}, ground.context)
        )
        for _ in range(yields):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert alive(mark) == []


AGENT = """
import asyncio, pathlib, sys
from overnight.agent.tools.registry import default_tools
from overnight.agent.tools.shell import Shell
from overnight.agent.tools.tool import ToolContext
from overnight.agent.tools.workspace import open_workspace
root, own, mark = sys.argv[1:]
async def main():
    with open_workspace(pathlib.Path(root)) as workspace:
        context = ToolContext(workspace=workspace, folder=pathlib.Path(own), environment={"PATH": "/usr/bin:/bin"})
        await Shell().run({"script": f"setsid sleep {mark} & sleep {mark}", "timeout_ms": 600000}, context)
asyncio.run(main())
"""


@NEEDS_PROC
async def test_nothing_outlives_an_agent_that_is_killed(ground: Ground, mark: str) -> None:
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(ground.root), str(ground.context.folder), mark
    )
    await eventually(lambda: len([pid for pid in alive(mark) if pid != agent.pid]) >= 2)
    agent.kill()
    await agent.wait()
    await eventually(lambda: not alive(mark), within=60)


async def test_text_comes_as_it_is_printed(ground: Ground) -> None:
    heard: list[str] = []
    context = dataclasses.replace(ground.context, progress=heard.append)
    text = "printf 'a\\303'; while [ ! -e go ]; do sleep 0.01; done; printf '\\251z'"
    call = asyncio.create_task(Shell().run({"script": text, "timeout_ms": LONG_MS}, context))
    await eventually(lambda: heard == ["a"])
    plant(ground.root, {"go": ""})
    assert seen(await call) == "aéz"
    assert "".join(heard) == "aéz"


async def test_a_long_output_is_cut_in_the_middle_and_kept_whole(ground: Ground) -> None:
    context = dataclasses.replace(ground.context, call_id="../call 1")
    arguments = {"script": "seq 1 100000", "timeout_ms": LONG_MS}
    first, second = [await Shell().run(arguments, context) for _ in range(2)]
    whole = "".join(f"{n}\n" for n in range(1, 100_001))
    head, _marker, tail = first.structured["output"].partition("[... ")  # type: ignore[attr-defined]
    note, _, tail = tail.partition(" ...]\n")
    assert (head, tail) == (whole[: len(head)], whole[-len(tail) :])
    assert (head.count("\n"), tail.count("\n")) == (128, 128)
    assert note == (
        f"99744 of 100000 lines ({len(whole) - len(head) - len(tail)} of {len(whole)} bytes) left out; "
        f"all of it is in {first.structured['output_path']}"
    )
    paths = [Path(str(each.structured["output_path"])) for each in (first, second)]
    assert [path.name for path in paths] == ["call-1.txt", "call-1-2.txt"]
    assert all(path.parent == ground.context.folder / "shell" for path in paths)
    assert paths[1].read_text() == whole


@pytest.mark.parametrize("data", [
    b"", b"x", b"x\n", b"x" * MOST_SHOWN_BYTES, b"x\n" * 256, b"x\n" * 255 + b"y",
])  # fmt: skip
def test_a_short_output_is_shown_whole(tmp_path: Path, data: bytes) -> None:
    output = taken(tmp_path, [data])
    assert output.shown == data.decode()


@pytest.mark.parametrize("data", [
    b"x" * (MOST_SHOWN_BYTES + 1), b"x\n" * 257, b"\n" * 5000, "é".encode() * 9000, b"\xff" * 30_000, b"a\n" * 20_000,
    "日本\n".encode() * 5000, b"x" * 20_000 + b"\n" * 300, b"\n" * 300 + b"x" * 20_000,
])  # fmt: skip
@pytest.mark.parametrize("piece", [7, 4096, 1 << 20])
def test_a_long_output_is_shown_within_its_bounds(tmp_path: Path, data: bytes, piece: int) -> None:
    output = taken(tmp_path, [data[at : at + piece] for at in range(0, len(data), piece)])
    head, _, rest = output.shown.partition("[... ")
    note, _, tail = rest.partition(" ...]\n")
    assert len(head.encode()) + len(tail.encode()) <= MOST_SHOWN_BYTES + 1
    assert head.count("\n") <= 129
    assert tail.count("\n") <= 128
    text = data.decode("utf-8", "ignore")
    assert text.startswith(head.removesuffix("\n"))
    assert text.endswith(tail)
    assert output.path is not None
    assert output.path.read_bytes() == data
    assert f"of {len(data)} bytes" in note


def taken(folder: Path, pieces: list[bytes]) -> Output:
    output = Output(folder, "x", lambda _: None)
    for piece in pieces:
        output.take(piece)
    output.close()
    return output


async def test_an_endless_output_does_not_fill_the_disk(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.agent.tools.output.MOST_KEPT", 100_000)
    outcome = await script(ground, "yes needle | head -c 1000000")
    path = Path(str(outcome.structured["output_path"]))
    assert (path.stat().st_size, outcome.structured["output_bytes"]) == (100_000, 1_000_000)
    assert "the beginning of it, 100000 bytes, is in" in seen(outcome)


@NEEDS_PROC
async def test_no_descriptor_is_left_open(ground: Ground) -> None:
    async def calls() -> int:
        for given in (
            {"script": "echo x"},
            {"command": ["no-such-program"]},
            {"script": "x", "workdir": ".."},
        ):
            await default_tools().call("shell", given, ground.context)
        call = asyncio.create_task(Shell().run({"script": "echo; exec sleep 1000"}, ground.context))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        await ground.patch("*** Add File: a\n+x")
        await ground.patch("*** Delete File: a")
        await default_tools().call("grep_files", {"pattern": "x"}, ground.context)
        return len(os.listdir("/proc/self/fd"))

    counts = [await calls() for _ in range(8)]
    assert counts[-1] - counts[0] < 4, counts  # one that is being closed is none that is left


async def test_an_output_that_cannot_be_kept_does_not_stop_the_command(ground: Ground) -> None:
    (ground.context.folder / "shell").write_text("in the way")
    outcome = await script(ground, "seq 1 3")
    assert outcome.ok
    assert seen(outcome).startswith("the full output could not be kept: ")
    assert seen(outcome).endswith("\n1\n2\n3\n")


def test_commands_know_no_secret() -> None:
    given = {
        "PATH": "/bin", "HOME": "/h", "PWD": "/w", "LANG": "C", "GIT_CONFIG_KEY_0": "core.pager", "TOKENIZERS": "1",
        "KEYBOARD": "de", "PROXY": "http://proxy:3128", "OVERNIGHT_FENCE": "3", "AUTHOR": "me",
        "OPENAI_API_KEY": "x", "GITHUB_TOKEN": "x", "MY_SECRET": "x", "DB_PASSWORD": "x", "npm_config_authtoken": "x",
        "AWS_SECRET_ACCESS_KEY": "x", "X_AUTH": "x", "SSH_AUTH_SOCK": "/s", "PLAIN": "sk-" + "a" * 30,
        "DATABASE": "postgres://me:hunter2@db/x", "KEPT_TOKEN": "x", "GIT_CONFIG_VALUE_0": "cat",
    }  # fmt: skip
    assert sorted(cleaned(given, {"KEPT_TOKEN"})) == [
        "AUTHOR", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0", "HOME", "KEPT_TOKEN", "KEYBOARD", "LANG",
        "OVERNIGHT_FENCE", "PATH", "PROXY", "PWD", "TOKENIZERS",
    ]  # fmt: skip


async def test_a_command_gets_the_environment_without_secrets(ground: Ground) -> None:
    environment = {**ground.context.environment, "API_KEY": "hidden", "SHOWN": "yes", "KEEP_KEY": "kept"}
    context = dataclasses.replace(ground.context, environment=environment, kept=frozenset({"KEEP_KEY"}))
    outcome = await Shell().run({"command": ["env"], "timeout_ms": LONG_MS}, context)
    lines = seen(outcome).splitlines()
    assert {"SHOWN=yes", "KEEP_KEY=kept"} <= set(lines)
    assert not [line for line in lines if line.startswith(("API_KEY", "PYTHON"))]


async def test_a_command_that_is_really_a_patch_is_applied_as_one(ground: Ground) -> None:
    plant(ground.root, {"sub/f": "a\n"})
    patch = "*** Begin Patch\n*** Update File: f\n-a\n+b\n*** End Patch"
    outcome = await ground.run(Shell(), script=f"cd sub && apply_patch <<'EOF'\n{patch}\nEOF")
    assert outcome.text == "Success. Updated the following files:\nM sub/f\n"
    assert ground.read("sub/f") == b"b\n"
    back = patch.replace("-a\n+b", "-b\n+a")
    preview = await Shell().preview({"command": ["apply_patch", back], "workdir": "sub"}, ground.context)
    assert (preview.paths, len(preview.changes)) == (("sub/f",), 1)
    await ground.run(Shell(), command=["apply_patch", back], workdir="sub")
    assert ground.read("sub/f") == b"a\n"
    assert "call the tool apply_patch" in await ground.told(Shell(), script=patch)
    outside = f"cd .. && apply_patch <<'EOF'\n{patch}\nEOF"
    assert "Invalid patch: cwd" in await ground.told(Shell(), script=outside)


async def test_a_preview_says_what_would_run(ground: Ground) -> None:
    preview = await Shell().preview({"command": ["rm", "-rf", "a b"]}, ground.context)
    assert (preview.title, preview.command) == ("Run rm -rf 'a b'", "rm -rf 'a b'")
    preview = await Shell().preview({"script": "ls | wc", "justification": "to count"}, ground.context)
    assert (preview.title, preview.command) == ("to count", "ls | wc")
