"""`overnight chat`: talk with an agent, line by line."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli.exits import Exit
from overnight.cli.options import JsonFlag
from overnight.cli.output import say
from overnight.cli.sessions import ConfigOptions, values

if TYPE_CHECKING:
    from overnight.client import Client

PROMPT = "> "


def chat(
    session: Annotated[
        str | None,
        typer.Argument(metavar="SESSION", help="Id of a session, or part of one, or `last`; else a new one."),
    ] = None,
    backend: Annotated[str | None, typer.Option("--backend", "-b", help="Of a new session's runs.")] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", metavar="DIR", help="Of a new session's runs.")
    ] = None,
    config: ConfigOptions = None,
    as_json: JsonFlag = False,
) -> None:
    """Talk with an agent in a session, line by line.

    Each line is a message, and what comes of it is shown. The end of the input ends the talk, never the session.
    Ctrl-C stops watching; the run goes on. Exit status: that of the last run.
    """
    given = values(config, "--config")
    given |= {"backend": backend} if backend else {}
    given |= {"workspace": str(Path(workspace).absolute())} if workspace else {}
    if session is not None and given:
        raise typer.BadParameter("a session that is there already has its configuration")
    raise typer.Exit(asyncio.run(_chat(session, given, as_json=as_json)))


async def _chat(text: str | None, config: dict[str, Any], *, as_json: bool) -> int:
    from overnight.cli.connect import connected
    from overnight.cli.ids import resolve_session

    async with connected(start=True) as client:
        if text is None:
            session_id = (await client.create_session({"mode": "chat", "config": config}))["id"]
            say(f"{session_id}: each line is a message; the end of the input (Ctrl-D) ends the talk")
        else:
            session_id = await resolve_session(client, text)
        status = 0
        while (line := await asyncio.to_thread(_line)) is not None:
            if line.strip():
                status = await _say(client, session_id, line, as_json=as_json)
        say(f"to go on: overnight chat {session_id}")
        return status


async def _say(client: Client, session_id: str, line: str, *, as_json: bool) -> int:
    from overnight.cli.attach import attach

    run = (await client.post_message(session_id, line))["run"]
    if run is None:
        return Exit.DONE
    return await attach(client, run, after=run["last_seq"], as_json=as_json)


def _line() -> str | None:
    """The next line of the input; None at its end."""
    if sys.stdin.isatty():
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
