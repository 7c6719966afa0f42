"""What waits for a person, shown and decided from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import pty
from typing import Any

import pytest
from tests.cli.shell import Shell
from tests.server.asking import asks, budget_is_spent
from tests.server.stage import Stage

from overnight.cli.question import block
from overnight.domain.approval import Approval
from overnight.domain.states import Input
from overnight.domain.update import Answer
from overnight.domain.values import Completion
from overnight.engine import moves
from overnight.ids import ApprovalId
from overnight.ports.unit_of_work import Transaction
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
EVIL = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\u202ee\r\x08f"
FORBIDDEN = "\x1b\x07\x9b\u202e\r\x08"


async def decision(stage: Stage, approval: Approval) -> str | None:
    found = await stage.store.read(lambda tx: tx.approvals.get(ApprovalId(approval.id), None))
    return found.decision.option if found.decision else None


async def complete(stage: Stage, approval: Approval) -> None:
    """The run that went on comes to its end."""

    def unit(tx: Transaction) -> None:
        run, now = tx.runs.lock(approval.run_pk), stage.clock.wall_ms()
        if run.state == "queued":
            run = tx.runs.save(run.moved(Input.CLAIM, now))
        moves.complete(tx, run, Completion(by="one_turn"), now)

    await stage.store.write(unit)


async def test_an_approval_is_shown_with_all_that_it_means(shell: Shell) -> None:
    stage = shell.stage
    assert (await shell("approvals")).err == "nothing waits for a decision\n"
    work = stage.work / "w"
    work.mkdir()
    (work / "link").symlink_to(stage.data_dir)
    run = await stage.submitted(workspace=str(work))
    approval = await asks(
        stage, run, title=f"Tidy {EVIL}", command="rm -rf build\nrm -rf dist", paths=("link",)
    )
    done = await shell("approvals")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{approval.id} · command · open for ")
    assert "reject_once in 59m" in lines[0]
    assert f"  of {run.id}" in lines
    assert "  $ rm -rf build" in lines
    assert "  $ rm -rf dist" in lines
    assert f"  touches link → {stage.data_dir.resolve()} (folder, OUTSIDE the workspace)" in lines
    assert any(line.startswith("  binding: the sandbox (workspace_write)") for line in lines)
    assert f"  - allow_once: Allow once   overnight approve {approval.id}" in lines
    assert f"  - reject_once: Reject   overnight deny {approval.id}" in lines
    rule = approval.option("allow_always")
    assert rule is not None
    assert rule.rule is not None
    assert f"      rule: {json.dumps(rule.rule.to_json())}" in lines
    assert not any(character in done.out for character in FORBIDDEN)
    assert [row["id"] for row in (await shell("approvals", "--json", "--run", run.id)).rows] == [approval.id]


async def test_without_a_sandbox_it_says_that_it_is_advice(shell: Shell) -> None:
    await asks(shell.stage, await shell.stage.submitted(), binding=False)
    assert "only advice" in (await shell("approvals")).out


def test_nothing_that_an_agent_says_passes_for_a_line_of_ours() -> None:
    fake = "x\n  binding: the sandbox (full) holds the agent to it\n- allow_once: harmless"
    approval: dict[str, Any] = {
        "id": "apr_x", "run_id": "run_x", "kind": "tool_call", "title": fake, "state": "pending", "decision": None,
        "created_at": "2026-01-01T00:00:00.000Z", "expires_at": "2036-01-01T00:00:00.000Z", "digest": "d",
        "default_option": "reject_once", "options": [{"id": "1", "label": fake, "kind": "answer"}],
        "context": {
            "tool": fake, "command": fake, "cwd": fake, "diff": fake, "hosts": [fake], "sandbox": fake,
            "binding": False, "places": [{"path": fake, "resolved": fake, "inside": True, "kind": "file"}],
        },
    }  # fmt: skip
    lines = block(approval)
    assert all("\n" not in line for line in lines)
    assert not any(line.startswith("  binding:") for line in lines)
    assert [line for line in lines if line.startswith("  - ")] == [lines[-1]]


async def test_approve_deny_and_answer(shell: Shell) -> None:
    stage = shell.stage
    run = await stage.submitted()
    made = [await asks(stage, run, key=str(number), command=f"make {number}") for number in range(4)]
    approved = await shell("approve", made[0].id)
    assert (approved.status, approved.out) == (0, f"{made[0].id} allow_once\n")
    assert "$ make 0" in approved.err, "what was decided is shown"
    assert f"{run.id} is blocked" in approved.err
    always = (await shell("approve", made[1].id[-8:], "--always", "--json")).rows[0]
    assert always["decision"]["option"] == "allow_always"
    denied = (await shell("deny", made[2].id, "--feedback", "use ninja", "--json")).rows[0]
    assert (denied["decision"]["option"], denied["decision"]["feedback"]) == ("reject_once", "use ninja")
    last = await shell("answer", "last", "reject_always")
    assert (last.status, await decision(stage, made[3])) == (0, "reject_always")
    assert "is running" in last.err
    again = await shell("approve", made[0].id)
    assert (again.status, again.out) == (0, approved.out)
    other = await shell("deny", made[0].id)
    assert (other.status, "was decided by usr_local: allow_once" in other.err) == (1, True)
    for wrong in (("approve", "last"), ("deny", "apr_" + "0" * 26), ("approve", "zzz")):
        assert (await shell(*wrong)).status == 1
    listed = await shell("approvals", "--all")
    assert listed.out.count("allow_once by usr_local") == 1


async def test_an_option_that_is_not_there(shell: Shell) -> None:
    approval = await asks(shell.stage, await shell.stage.submitted())
    wrong = await shell("answer", approval.id, "perhaps")
    assert (wrong.status, "use one of: allow_once" in wrong.err) == (2, True)
    assert (await shell("approve", approval.id, "--limits", "tokens=5")).status == 2
    assert await decision(shell.stage, approval) is None


async def test_a_question_is_answered_by_id_label_or_number(shell: Shell) -> None:
    stage = shell.stage
    answers = [Answer(id="a1", label="Postgres"), Answer(id="a2", label="SQLite")]
    for said in ("a2", "SQLite", "2"):
        run = await stage.submitted()
        approval = await asks(
            stage, run, answers=answers, kind="other", tool="ask", title="Which?", command=None
        )
        assert f"  - a2: SQLite   overnight answer {approval.id} a2" in (await shell("approvals")).out
        assert (await shell("answer", approval.id, said)).status == 0
        assert await decision(stage, approval) == "a2"


async def test_a_label_cannot_pass_for_another_option(shell: Shell) -> None:
    stage = shell.stage
    answers = [Answer(id="yes", label="reject_once"), Answer(id="no", label="3")]
    approval = await asks(
        stage, await stage.submitted(), answers=answers, kind="other", tool="ask", command=None
    )
    assert (await shell("answer", approval.id, "reject_once")).status == 0
    assert await decision(stage, approval) == "reject_once"


async def test_a_budget(shell: Shell) -> None:
    stage = shell.stage
    first = await budget_is_spent(stage, await stage.submitted(limits={"tokens": 1000}))
    assert "used: 1200 of 1000 tokens" in (await shell("approvals")).out
    missing = await shell("approve", first.id)
    assert (missing.status, "--limits" in missing.err) == (2, True)
    raised = (
        await shell("approve", first.id, "--limits", "tokens=9000", "--limits", "cost_usd=none", "--json")
    ).rows
    assert raised[0]["decision"]["changes"] == {"limits": {"tokens": 9000, "cost_usd": None}}
    second = await budget_is_spent(stage, await stage.submitted(limits={"tokens": 1000}))
    assert (await shell("deny", second.id)).status == 0
    assert await decision(stage, second) == "finish"


async def test_a_changed_action_is_shown_anew_and_needs_another_word(shell: Shell) -> None:
    stage = shell.stage
    work = stage.work / "w"
    work.mkdir()
    (work / "notes").write_text("mine")
    run = await stage.submitted(workspace=str(work))
    approval = await asks(
        stage, run, kind="edit", tool="write", title="Write", command=None, paths=("notes",)
    )
    (work / "notes").unlink()
    (work / "notes").symlink_to(stage.data_dir)
    refused = await shell("approve", approval.id)
    assert (refused.status, refused.out) == (1, "")
    assert "nothing was decided" in refused.err
    assert "OUTSIDE the workspace" in refused.err.partition("This is what would happen now")[2]
    assert await decision(stage, approval) is None
    stale = await shell("approve", approval.id, "--digest", approval.digest[:12])
    assert (stale.status, "not what you have seen" in stale.err) == (1, True)
    now = (await shell("approvals", "--json")).rows[0]["digest"]
    assert (await shell("approve", approval.id, "--digest", now[:12])).status == 0


async def test_lists_and_snapshots_say_what_is_waited_for(shell: Shell) -> None:
    stage = shell.stage
    approval = await asks(stage, await stage.submitted())
    listed = await shell("ls")
    assert "blocked (approval)" in listed.out
    assert "1 of them waits for a person: overnight approvals" in listed.err
    shown = (await shell("show", "last")).out
    assert f"Run rm · {approval.id}: overnight approvals --run {approval.run_id}" in shown


async def test_where_nobody_can_be_asked_the_question_is_shown_and_the_status_is_5(shell: Shell) -> None:
    stage = shell.stage
    approval = await asks(stage, await stage.submitted())
    await stage.append(await stage.store.read(lambda tx: tx.runs.lock(approval.run_pk)), *map(str, range(40)))
    done = await shell.process("watch", approval.run_id)
    assert done.status == 5
    assert f"overnight approve {approval.id}" in done.err
    assert f"? command: Run rm ({approval.id})" in done.out, "though it is far back"
    assert "waits for" not in done.out
    rows = (await shell.process("watch", approval.run_id, "--json")).rows
    assert rows[-1]["type"] in {"approval.requested", "run.blocked"}


class Terminal:
    """A command with a terminal of its own."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._leader, self._follower = pty.openpty()
        self.shown = b""

    async def start(self, *arguments: str) -> None:
        follower = self._follower
        self.process = await self._shell.start(*arguments, stdin=follower, stdout=follower, stderr=follower)
        os.close(follower)
        os.set_blocking(self._leader, False)
        asyncio.get_running_loop().add_reader(self._leader, self._read)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._leader, 65536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._leader)

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    async def says(self, text: str, times: int = 1) -> None:
        await eventually(
            lambda: self.shown.decode("utf-8", "replace").count(text) >= times, what=text, within=60
        )

    async def ends(self) -> int:
        status = await asyncio.wait_for(self.process.wait(), 60)
        asyncio.get_running_loop().remove_reader(self._leader)
        os.close(self._leader)
        return status


async def test_a_person_at_the_terminal_is_asked_and_watching_goes_on(shell: Shell) -> None:
    stage, terminal = shell.stage, Terminal(shell)
    run = await stage.submitted()
    approval = await asks(stage, run)
    await terminal.start("watch", run.id)
    await terminal.says("[y] Allow once")
    assert "rule:" in terminal.shown.decode()
    terminal.type("maybe\n")
    await terminal.says("type what stands in brackets")
    terminal.type("y\n")
    await eventually(lambda: decision(stage, approval), what="the decision")
    assert await decision(stage, approval) == "allow_once"
    second = await asks(stage, run, key="8", command="make")
    await terminal.says("$ make")
    await terminal.says("[y] Allow once", times=3)
    terminal.type("n use ninja\n")
    await eventually(lambda: decision(stage, second), what="the second decision")
    kept = await stage.store.read(lambda tx: tx.approvals.get(ApprovalId(second.id), None))
    assert kept.decision is not None
    assert (kept.decision.option, kept.decision.feedback) == ("reject_once", "use ninja")
    await complete(stage, second)
    assert await terminal.ends() == 0


async def test_what_somebody_else_decides_ends_the_question(shell: Shell) -> None:
    stage, terminal = shell.stage, Terminal(shell)
    approval = await asks(stage, await stage.submitted())
    await terminal.start("watch", approval.run_id)
    await terminal.says("[y] Allow once")
    assert (await shell("deny", approval.id)).status == 0
    await terminal.says("resolved: reject_once by usr_local")
    await complete(stage, approval)
    assert await terminal.ends() == 0


async def test_a_question_may_be_left_open(shell: Shell) -> None:
    stage, terminal = shell.stage, Terminal(shell)
    approval = await asks(stage, await stage.submitted())
    await terminal.start("watch", approval.run_id)
    await terminal.says("[y] Allow once")
    terminal.type("\n")
    assert await terminal.ends() == 5
    assert await decision(stage, approval) is None


async def test_what_was_typed_before_the_question_is_no_answer(shell: Shell) -> None:
    stage, terminal = shell.stage, Terminal(shell)
    run = await stage.submitted()
    await terminal.start("watch", run.id)
    await terminal.says("queued for")
    terminal.type("y\n")
    await terminal.says("y\r\n")
    approval = await asks(stage, run)
    await terminal.says("[y] Allow once")
    terminal.type("l\n")
    assert await terminal.ends() == 5
    assert await decision(stage, approval) is None


async def test_no_input_asks_nothing(shell: Shell) -> None:
    stage, terminal = shell.stage, Terminal(shell)
    approval = await asks(stage, await stage.submitted())
    await terminal.start("watch", approval.run_id, "--no-input")
    assert await terminal.ends() == 5
    assert "[y]" not in terminal.shown.decode()
    assert f"overnight approve {approval.id}" in terminal.shown.decode()


async def test_a_budget_is_raised_at_the_terminal(shell: Shell) -> None:
    stage, terminal = shell.stage, Terminal(shell)
    approval = await budget_is_spent(stage, await stage.submitted(limits={"tokens": 1000}))
    await terminal.start("watch", approval.run_id)
    await terminal.says("[1] Raise the budget and go on")
    terminal.type("1\n")
    await terminal.says("type the new limits")
    terminal.type("tokens=5000\n")
    await eventually(lambda: decision(stage, approval), what="the decision")
    assert await decision(stage, approval) == "raise"
    await complete(stage, approval)
    assert await terminal.ends() == 0
