"""`overnight pause`, `resume`, `cancel`, `steer` and `retry`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli.options import JsonFlag, RunArgument, RunArguments, budgets
from overnight.cli.output import emit, say, show

if TYPE_CHECKING:
    from overnight.client import Client, Run

Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="A word for the log.")]


def pause(
    runs: RunArguments,
    now: Annotated[
        bool, typer.Option("--now", help="Interrupt the turn instead of waiting for its end.")
    ] = False,
    reason: Reason = None,
    as_json: JsonFlag = False,
) -> None:
    """Let runs stand still after their turn, or at once with --now."""
    when = "now" if now else "after_turn"
    _each(
        runs,
        lambda client, run: client.control(run, "pause", **_given(when=when, reason=reason)),
        as_json=as_json,
    )


def resume(
    runs: RunArguments,
    max_turns: Annotated[
        int | None, typer.Option("--max-turns", min=1, help="Raise the limit of turns.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="AMOUNT", help="Raise a budget: 5usd or 200000tokens."),
    ] = None,
    reason: Reason = None,
    as_json: JsonFlag = False,
) -> None:
    """Let runs go on, with raised limits if need be."""
    limits = dict(budgets(budget or [])) | ({"turns": max_turns} if max_turns else {})
    body = _given(limits=limits or None, reason=reason)
    _each(runs, lambda client, run: client.control(run, "resume", **body), as_json=as_json)


def cancel(
    runs: RunArguments,
    finish: Annotated[
        bool, typer.Option("--finish", help="A run whose budget is spent counts as completed instead.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return only when nothing of the runs is left.")
    ] = False,
    reason: Reason = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop runs and everything that they started."""
    body = _given(limits={"on_spent": "finish"} if finish else None, reason=reason)

    async def stop(client: Client, run: str) -> Run:
        snapshot = await client.control(run, "cancel", **body)
        if wait:
            async for _ in client.follow(run, snapshot["last_seq"]):
                pass
            snapshot = await client.run(run)
        return snapshot

    _each(runs, stop, as_json=as_json)


def steer(
    run: RunArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the agent should hear.")],
    after_turn: Annotated[bool, typer.Option("--after-turn", help="With the next turn, not now.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send a text to the agent of a run."""
    body = _given(text=text, when="after_turn" if after_turn else None)
    _each([run], lambda client, run: client.control(run, "steer", **body), as_json=as_json)


def retry(run: RunArgument, as_json: JsonFlag = False) -> None:
    """Start a failed or cancelled run again, as a new run."""
    _each([run], lambda client, run: client.retry(run), as_json=as_json)


def _each(texts: list[str], act: Callable[[Client, str], Awaitable[Run]], *, as_json: bool) -> None:
    """Do it to every run, also when one refuses; the status is that of the first refusal."""
    status = asyncio.run(_act(texts, act, as_json=as_json))
    if status:
        raise typer.Exit(status)


async def _act(texts: list[str], act: Callable[[Client, str], Awaitable[Run]], *, as_json: bool) -> int:
    from overnight.cli.connect import connected
    from overnight.cli.exits import report
    from overnight.cli.ids import resolve
    from overnight.errors import OvernightError, Unreachable

    status = 0
    async with connected() as client:
        for text in texts:
            try:
                run = await act(client, await resolve(client, text))
            except Unreachable:
                raise
            except OvernightError as error:
                status = status or report(error)
                continue
            if as_json:
                emit(run)
            else:
                show(f"{run['id']} {run['state']}")
                if how := run.get("steer_how"):
                    say(_HOW.get(str(how), str(how)))
    return status


_HOW = {
    "inject": "the agent hears it now, within its turn",
    "interrupt": "the turn is interrupted, and the next one begins with it",
    "queue": "the next turn begins with it",
}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
