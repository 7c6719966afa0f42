"""The commands about sessions, against a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.cli.shell import Shell

from overnight.domain.session import SessionMessage
from overnight.ids import RunId, SessionId
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
EVIL = "a\x1b[2Jb\x07c"


async def test_a_session_by_commands(shell: Shell) -> None:
    made = await shell(
        "sessions", "new", "Parser", "--var", "n=3", "--config", "model=m", "--config", 'limits={"turns":5}'
    )
    session = made.out.strip()
    assert (made.status, session[:4]) == (0, "ses_")
    listed = await shell("sessions", "ls")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["SESSION", session]
    (row,) = (await shell("sessions", "ls", "--json", "--text", "PARS")).rows
    assert (row["variables"], row["config"]) == ({"n": 3}, {"model": "m", "limits": {"turns": 5}})
    shown = await shell("sessions", "show", session[-8:])
    assert "name       Parser" in shown.out
    assert (await shell("sessions", "suspend", "last")).out == f"{session} suspended\n"
    assert (await shell("sessions", "resume", "last", "--json")).rows[0]["state"] == "active"
    assert (await shell("sessions", "rm", session)).status == 0
    assert (await shell("sessions", "show", session)).status == 1
    assert "no sessions yet" in (await shell("sessions", "show", "last")).err


async def test_messages_by_commands(shell: Shell) -> None:
    session = (await shell("sessions", "new")).out.strip()
    sent = await shell("sessions", "send", session, f"hello {EVIL}")
    assert sent.out.startswith("msg_")
    assert "queued" in sent.err
    second = (await shell("sessions", "send", session, "two", "--json")).rows[0]
    queue = await shell("sessions", "queue", session)
    assert [line.split()[0] for line in queue.out.splitlines()] == [
        "MESSAGE", sent.out.strip(), second["message"]["id"],
    ]  # fmt: skip
    assert not any(character in queue.out for character in "\x1b\x07")
    left = await shell("sessions", "queue", session, "--remove", second["message"]["id"], "--json")
    assert [message["id"] for message in left.rows] == [sent.out.strip()]
    assert (await shell("sessions", "rm", session)).status == 1
    store, clock = shell.stage.store, shell.stage.clock
    found = await store.read(lambda tx: tx.sessions.get(SessionId(session), None))
    said = SessionMessage(role="assistant", text=f"well {EVIL}", at=clock.wall_ms())
    await store.write(lambda tx: tx.sessions.add_message(found.pk, said))
    history = await shell("sessions", "history", session)
    assert "assistant" in history.out
    assert "\x1b" not in history.out


async def test_shares_by_commands(shell: Shell) -> None:
    session = (await shell("sessions", "new")).out.strip()
    link = await shell("sessions", "share", session, "--link", "--expires", "7d")
    assert link.out.startswith(f"{shell.stage.base}/#share=")
    assert (await shell("sessions", "share", session, "--user", "usr_bob", "--role", "operator")).status == 0
    rows = (await shell("sessions", "share", session, "--json")).rows
    assert [(row["kind"], row["user"], row["role"]) for row in rows] == [
        ("link", None, "viewer"), ("user", "usr_bob", "operator"),
    ]  # fmt: skip
    assert (await shell("sessions", "unshare", session, rows[0]["id"])).status == 0
    assert len((await shell("sessions", "share", session, "--json")).rows) == 1
    assert (await shell("sessions", "share", session, "--user", "bob")).status == 2


async def test_a_message_is_watched_to_its_end_and_a_chat_goes_line_by_line(shell: Shell) -> None:
    session = (await shell("sessions", "new")).out.strip()
    process = await shell.start("chat", session, stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for text in ("one", "two"):
        process.stdin.write(text.encode() + b"\n")
        await process.stdin.drain()
        async with asyncio.timeout(90):
            await _answered(shell, session, text)
    process.stdin.close()
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().index("answer to one") < out.decode().index("answer to two")
    assert session in err.decode()


async def _answered(shell: Shell, session: str, text: str) -> None:
    """Be the worker: finish the run that was started for the message."""
    stage = shell.stage

    async def due() -> str | None:
        async with stage.client() as http:
            runs = (await http.get(f"/api/v1/sessions/{session}/runs")).json()["items"]
        return next((run["id"] for run in runs if run["state"] == "queued" and run["goal"] == text), None)

    run_id = await eventually(due, within=60)
    assert run_id is not None
    run = await stage.store.read(lambda tx: tx.runs.get(RunId(run_id), None))
    await stage.append(run, f"answer to {text}")
    await stage.finish(run)


async def test_a_run_in_a_session_takes_what_the_session_says(shell: Shell) -> None:
    made = await shell(
        "sessions", "new", "--mode", "oneshot", "--config", "model=m", "--config", "priority=7"
    )
    run = (await shell("run", "do it", "--session", "last", "--detach", "--json")).rows[0]
    assert (run["session_id"], run["mode"], run["config"]["model"], run["config"]["priority"]) == (
        made.out.strip(), "oneshot", "m", 7,
    )  # fmt: skip
    assert (await shell("run", "do it", "--detach", "--json")).rows[0]["mode"] == "continuous"
    modes = await shell("sessions", "modes")
    assert [line.split()[0] for line in modes.out.splitlines()] == ["MODE", "oneshot", "continuous", "chat"]


async def test_somebody_with_whom_it_is_shared_comes_with_a_token_of_their_own(shell: Shell) -> None:
    session = (await shell("sessions", "new")).out.strip()
    secret = (await shell("token", "new", "laptop", "--owner", "usr_ada")).out.strip()
    await shell("sessions", "share", session, "--user", "usr_ada", "--role", "operator")
    ada = Shell(replace(shell.stage, secret=secret), shell.home)
    assert (await ada("sessions", "ls", "--json")).rows[0]["id"] == session
    assert (await ada("sessions", "send", "last", "hello", "--json")).rows[0]["message"]["by"] == "usr_ada"
    assert (await ada("sessions", "rm", "last")).status == 1
    assert (await ada("token", "new", "x", "--owner", "usr_eve")).status == 1
