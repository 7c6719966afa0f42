"""`overnight watch`: follow one run, or everything."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from overnight.cli.options import JsonFlag, NoInputFlag, complete_runs
from overnight.cli.output import emit, say, show

if TYPE_CHECKING:
    from overnight.client import Client, Run

SHOWN = 20
"""Earlier events that are shown before the live ones."""


def watch(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="Id of a run, or part of one, or `last`.", autocompletion=complete_runs
        ),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Show everything from the first event on.")
    ] = False,
    no_input: NoInputFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Follow a run live until it ends; without a run, every change of all runs.

    What it wants to be allowed is asked here, if this is a terminal. Ctrl-C stops watching, not the run.
    Exit status: 0 completed, 1 failed or cancelled, 5 waits for a person.
    """
    if run is None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_all(as_json=as_json))
        return
    raise typer.Exit(asyncio.run(_one(run, from_start=from_start, no_input=no_input, as_json=as_json)))


async def _one(text: str, *, from_start: bool, no_input: bool, as_json: bool) -> int:
    from overnight.cli.attach import attach
    from overnight.cli.connect import connected
    from overnight.cli.ids import resolve

    async with connected() as client:
        run = await client.run(await resolve(client, text))
        after = 0 if from_start or as_json else max(0, run["last_seq"] - SHOWN)
        after = await _with_question(client, run, after)
        if after:
            say(f"… {after} earlier events: overnight logs {run['id']}")
        return await attach(client, run, after=after, as_json=as_json, no_input=no_input)


async def _with_question(client: Client, run: Run, after: int) -> int:
    """From where to watch, so that what the run waits for is among what is shown."""
    if run["state"] not in {"blocked", "waiting"}:
        return after
    page = await client.events(run["id"], types="run.blocked,run.waiting", order="desc", limit=1)
    # The question itself comes just before.
    return max(0, min(after, *(event["seq"] - 2 for event in page["items"]))) if page["items"] else after


async def _all(*, as_json: bool) -> None:
    from overnight.cli.attach import PATIENCE_S
    from overnight.cli.connect import connected
    from overnight.cli.runs import headline

    async with connected() as client:
        async for run in client.changes(patience_s=PATIENCE_S):
            if as_json:
                emit(run)
            else:
                show(headline(run))
