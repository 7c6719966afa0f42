"""`overnight run`: hand over a goal and watch."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli.options import JsonFlag, NoInputFlag, budgets, pairs
from overnight.cli.output import emit, say, show

if TYPE_CHECKING:
    from overnight.client import Client


def run(  # noqa: PLR0913, PLR0917  each is an option of the command line
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="What is to be done; - reads it from stdin.")],
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="Agent program; see: overnight backends.")
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(
            "--workspace",
            "-w",
            metavar="DIR",
            help="Directory to work in, or git+URL#REF. Default: a scratch folder.",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode", "-m", help="oneshot, chat, a profile, or (the default) continuous: turn after turn."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model for the agent program.")] = None,
    effort: Annotated[str | None, typer.Option("--effort", help="low, medium or high.")] = None,
    sandbox: Annotated[
        str | None, typer.Option("--sandbox", help="read_only, workspace_write or full_access.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="When a person is asked: autonomous, ask_writes, ask_outside_workspace or ask_all.",
        ),
    ] = None,
    max_turns: Annotated[
        int | None, typer.Option("--max-turns", min=1, help="End after this many turns.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="RE", help="Done when a new line of the work log matches (RE2)."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="AMOUNT", help="5usd or 200000tokens; may be repeated."),
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option("--fallback", metavar="BACKEND[/MODEL]", help="Next backend; may be repeated."),
    ] = None,
    environment: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="Variable for the agent; may be repeated."),
    ] = None,
    secret: Annotated[
        list[str] | None, typer.Option("--secret", metavar="NAME", help="Secret that the operator holds.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", metavar="FILE", help="File of the workspace to put into the prompt."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME=VALUE", help="Label for finding it; may be repeated."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option("--session", help="Session to go on with: an id, or part of one, or `last`."),
    ] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="Higher ones go first.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print the run's id and return at once.")
    ] = False,
    print_prompt: Annotated[
        bool, typer.Option("--print-prompt", help="Print the prompt of the first turn; run nothing.")
    ] = False,
    no_input: NoInputFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Hand over a goal and watch an agent work on it.

    Talks to the running server; without one, starts one in the background that ends when it is idle. Ctrl-C stops
    watching, not the run. What it wants to be allowed is asked here, if this is a terminal. Exit status: 0 completed,
    1 failed or cancelled, 5 waits for a person.
    """
    spec: dict[str, Any] = {
        "goal": _goal(goal),
        "backend": backend,
        "workspace": _workspace(workspace),
        "mode": mode,
        "model": model,
        "effort": effort,
        "sandbox": sandbox,
        "approval_policy": policy,
        "fallback": fallback,
        "environment": pairs(environment or [], "--env"),
        "secrets": secret,
        "labels": pairs(label or [], "--label"),
        "session_id": session,
        "priority": priority,
        "limits": _limits(
            max_turns, budget or [], ask=not no_input and sys.stdin.isatty() and sys.stderr.isatty()
        ),
        "completion": {"pattern": until} if until is not None else None,
        "prompt": {"references": reference} if reference else None,
    }
    spec = {key: value for key, value in spec.items() if value not in (None, {}, [])}
    if print_prompt:
        asyncio.run(_preview(spec, as_json=as_json))
    else:
        raise typer.Exit(asyncio.run(_submit(spec, detach=detach, no_input=no_input, as_json=as_json)))


async def _preview(spec: dict[str, Any], *, as_json: bool) -> None:
    from overnight.cli.connect import connected

    async with connected(start=True) as client:
        preview = await client.preview(await _in_session(client, spec))
    if as_json:
        emit(preview)
    else:
        show(str(preview["prompt"]).rstrip("\n"))


async def _submit(spec: dict[str, Any], *, detach: bool, no_input: bool, as_json: bool) -> int:
    from overnight.cli.attach import attach
    from overnight.cli.connect import connected

    async with connected(start=True) as client:
        run = await client.submit(await _in_session(client, spec))
        if detach:
            if as_json:
                emit(run)
            else:
                show(run["id"])
            return 0
        where = run["workspace"] or "a scratch folder of its own (--workspace . works here)"
        leave = " · Ctrl-C leaves it working" if sys.stdout.isatty() else ""
        say(f"{run['id']} · {run['backend']} · {client.url} · in {where}{leave}")
        return await attach(client, run, as_json=as_json, no_input=no_input)


async def _in_session(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` with the whole id of the session that is meant, where one is named."""
    from overnight.cli.ids import resolve_session

    if "session_id" not in spec:
        return spec
    return spec | {"session_id": await resolve_session(client, spec["session_id"])}


def _goal(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _workspace(text: str | None) -> str | dict[str, str] | None:
    if text is None:
        return None
    if text.startswith("git+"):
        url, _, ref = text.removeprefix("git+").partition("#")
        return {"git": url, "ref": ref} if ref else {"git": url}
    path = Path(text).expanduser()
    if not path.is_dir():
        raise typer.BadParameter(f"{text} is not a directory", param_hint="--workspace")
    return str(path.resolve())


def _limits(max_turns: int | None, budget: list[str], *, ask: bool) -> dict[str, Any]:
    limits: dict[str, Any] = dict(budgets(budget))
    if max_turns is not None:
        limits["turns"] = max_turns
    if not ask:
        # Nobody sits there to be asked.
        limits["on_spent"] = "finish"
    return limits
