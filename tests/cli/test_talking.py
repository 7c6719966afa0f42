"""The commands against a real server, those that depend on it as real processes."""

from __future__ import annotations

import asyncio
import os
import pty
import signal

import pytest
from tests.cli.shell import Shell, read_all
from tests.server.stage import Stage

from overnight.domain.event import Draft
from overnight.domain.run import Run
from overnight.domain.states import Input
from overnight.domain.values import Failure, WaitingFor
from overnight.engine import moves
from overnight.ports.unit_of_work import Transaction

pytestmark = pytest.mark.anyio
EVIL = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\u202ee\r\x08f"


async def ended(stage: Stage, run: Run, how: str) -> None:
    """Let a run end, or wait, as a worker would."""

    def unit(tx: Transaction) -> None:
        now = stage.clock.wall_ms()
        held = tx.runs.save(tx.runs.lock(run.pk).moved(Input.CLAIM, now))
        if how == "failed":
            moves.fail(tx, held, Failure(code="condition_not_met", message=EVIL), now)
        else:
            waiting = held.moved(Input.WAIT, now, waiting_for=WaitingFor(kind="budget"))
            tx.runs.save(waiting)
            tx.events.append(run.pk, [Draft(type="run.waiting", data={"kind": "budget"})], now)

    await stage.store.write(unit)


async def test_lists_and_snapshots(shell: Shell) -> None:
    first, second = await shell.stage.submitted(f"tidy {EVIL} up"), await shell.stage.submitted("second")
    listed = await shell("ls")
    assert listed.status == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == ["RUN", second.id, first.id]
    assert "\x1b" not in listed.out
    assert [row["id"] for row in (await shell("ls", "--json", "--limit", "1")).rows] == [second.id]
    assert "1 of 2 runs" in (await shell("ls", "-n", "1")).err
    assert (await shell("ls", "--state", "failed", "--json")).out == ""
    shown = await shell("show", first.id[-9:])
    assert f"run      {first.id}" in shown.out
    assert not any(c in shown.out for c in "\x1b\x07\x9b\u202e\r")
    assert (await shell("show", "last", "--json")).rows[0]["id"] == second.id
    assert (await shell("show", "run_" + "0" * 26)).status == 1


async def test_controls(shell: Shell) -> None:
    run = await shell.stage.submitted()
    assert (await shell("pause", "last", "--reason", "lunch")).out == f"{run.id} paused\n"
    assert (await shell("resume", run.id, "--json")).rows[0]["state"] == "queued"
    steered = await shell("steer", run.id, "faster")
    assert (steered.status, "next turn" in steered.err) == (0, True)
    both = await shell("cancel", "run_" + "0" * 26, run.id, "--wait")
    assert (both.status, both.out) == (1, f"{run.id} cancelled\n")
    refused = await shell("pause", run.id)
    assert (refused.status, "cancelled does not accept 'pause'" in refused.err, refused.out) == (1, True, "")
    again = (await shell("retry", run.id, "--json")).rows[0]
    assert again["retry_of"] == run.id


async def test_watching_to_each_kind_of_end(shell: Shell) -> None:
    stage = shell.stage
    done, failed, waiting = [await stage.submitted(str(number)) for number in range(3)]
    await stage.append(done, f"hello {EVIL}")
    await stage.finish(done)
    await ended(stage, failed, "failed")
    await ended(stage, waiting, "waiting")
    plain = await shell.process("watch", done.id)
    assert plain.status == 0
    assert "hello ab" in plain.out
    assert "completed (by one_turn)" in plain.out
    assert not any(c in plain.out for c in "\x1b\x07\x9b\u202e\r")
    rows = (await shell.process("watch", done.id, "--json")).rows
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    lost = await shell.process("watch", failed.id)
    assert (lost.status, "condition_not_met" in lost.out) == (1, True)
    held = await shell.process("watch", waiting.id)
    assert (held.status, "waiting for budget" in held.err, "overnight resume" in held.err) == (5, True, True)


async def test_logs(shell: Shell) -> None:
    run = await shell.stage.submitted()
    await shell.stage.append(run, "one", "two", "three")
    texts = [
        row["data"].get("text")
        for row in (await shell("logs", run.id, "--types", "message.completed", "--json")).rows
    ]
    assert texts == ["one", "two", "three"]
    assert "three" in (await shell("logs", run.id, "--tail", "1")).out
    assert (await shell("logs", run.id, "--after", "3", "--json")).rows[0]["seq"] == 4
    assert (await shell("diff", run.id)).err == "nothing has changed\n"


async def test_ctrl_c_detaches(shell: Shell) -> None:
    run = await shell.stage.submitted()
    process = await shell.start("watch", run.id)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 60)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert f"overnight watch {run.id}" in err.decode()
    assert f"overnight cancel {run.id}" in err.decode()
    assert (await shell.stage.store.read(lambda tx: tx.runs.get(run.id, "usr_local"))).state == "queued"


async def test_a_terminal_gets_a_live_view_and_no_foreign_escapes(shell: Shell) -> None:
    run = await shell.stage.submitted()
    await shell.stage.append(run, f"hello {EVIL}")
    await shell.stage.finish(run)
    leader, follower = pty.openpty()
    process = await shell.start("watch", run.id, stdout=follower, stderr=follower)
    os.close(follower)
    shown = await asyncio.to_thread(read_all, leader)
    assert await process.wait() == 0
    text = shown.decode()
    assert "hello ab" in text
    assert "completed (by one_turn)" in text
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert not any(c in text for c in "\x07\x9b\u202e\x08")


async def test_detached_runs_and_previews(shell: Shell) -> None:
    made = await shell(
        "run", "do it", "-b", "echo", "--mode", "oneshot", "--detach", "--label", "a=b", "--budget", "5usd"
    )
    run = (await shell("show", made.out.strip(), "--json")).rows[0]
    assert (run["config"]["limits"]["cost_usd"], run["config"]["limits"]["on_spent"]) == (5.0, "finish")
    assert run["labels"] == {"a": "b"}
    assert (await shell("run", "do it", "-b", "echo", "--mode", "oneshot", "--print-prompt")).out == "do it\n"
    assert len((await shell("ls", "--json")).rows) == 1
    refused = await shell("run", "do it", "-b", "nobody")
    assert (refused.status, "echo" in refused.err, "Traceback" in refused.err) == (2, True, False)
    pattern = await shell("run", "do it", "-b", "echo", "--until", "(")
    assert pattern.status == 2


async def test_what_operators_ask(shell: Shell) -> None:
    assert "echo" in (await shell("backends")).out
    assert (await shell("backends", "check", "--json")).rows[0]["status"] == "ok"
    assert (await shell("doctor")).status == 0
    made = await shell("token", "new", "ci", "--kind", "agent", "--expires", "1d")
    assert made.out.startswith("ovn_")
    assert "ci" in (await shell("token", "list")).out
    assert (await shell("token", "revoke", "ci", "--json")).rows == [{"done": "ci is revoked"}]
    assert any(
        row["name"] == "ci" and row["revoked_at"]
        for row in (await shell("token", "list", "--all", "--json")).rows
    )
    assert list((await shell("handover", "--json")).rows[0]) == ["done"]
    assert shell.stage.handovers == ["now"]
