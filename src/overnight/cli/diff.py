"""`overnight diff`: what a run did to its workspace."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Any

import typer

from overnight.cli.options import JsonFlag, RunArgument
from overnight.cli.output import columns, emit, say, show


def diff(
    run: RunArgument,
    path: Annotated[str | None, typer.Argument(metavar="FILE", help="Show the patch of this file.")] = None,
    turn: Annotated[
        int | None, typer.Option("--turn", metavar="N", min=1, help="What turn N alone changed.")
    ] = None,
    uncommitted: Annotated[bool, typer.Option("--uncommitted", help="Since the last finished turn.")] = False,
    patch: Annotated[bool, typer.Option("--patch", "-p", help="Show the patches of all files.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what a run changed in its workspace: figures, or a file's patch."""
    if turn is not None and uncommitted:
        raise typer.BadParameter("--turn and --uncommitted exclude each other")
    scope = "turn" if turn is not None else "uncommitted" if uncommitted else "run"
    asyncio.run(_diff(run, path, scope=scope, turn=turn, patch=patch, as_json=as_json))


async def _diff(
    text: str, path: str | None, *, scope: str, turn: int | None, patch: bool, as_json: bool
) -> None:
    from overnight.cli.connect import connected
    from overnight.cli.ids import resolve

    async with connected() as client:
        run_id = await resolve(client, text)
        found = await client.diff(run_id, scope=scope, turn=turn, path=path)
        if path is not None:
            emit(found) if as_json else _patch(found)
            return
        files = [str(file["path"]) for file in found.get("files", [])]
        if not patch:
            emit(found) if as_json else _figures(found)
            return
        for name in files:
            one = await client.diff(run_id, scope=scope, turn=turn, path=name)
            emit(one) if as_json else _patch(one)


def _figures(found: dict[str, Any]) -> None:
    files = found.get("files", [])
    if not files:
        say("nothing has changed")
        return
    columns(
        ("FILE", "KIND", "ADDED", "REMOVED"),
        ((f["path"], f.get("kind"), f.get("added_lines"), f.get("removed_lines")) for f in files),
    )


def _patch(found: dict[str, Any]) -> None:
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in str(found.get("patch", "")).rstrip("\n").split("\n"):
        colour = _COLOURS.get(line[:1]) if colours else None
        if colour:
            sys.stdout.write(f"\x1b[{colour}m")
        show(line)
        if colour:
            sys.stdout.write("\x1b[0m")


_COLOURS = {"+": "32", "-": "31", "@": "36"}
