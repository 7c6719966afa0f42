"""`overnight backends`: the agent programs on offer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from overnight.cli.app import new_app
from overnight.cli.options import JsonFlag
from overnight.cli.output import columns, emit, say

app = new_app(
    help="The agent programs that are on offer, and whether they are ready.", invoke_without_command=True
)


@app.callback()
def _default(context: typer.Context, as_json: JsonFlag = False) -> None:
    if context.invoked_subcommand is None:
        list_backends(as_json=as_json)


@app.command("list")
def list_backends(as_json: JsonFlag = False) -> None:
    """List the backends with what their last check found."""
    from overnight.cli.connect import call

    _print(call(lambda client: client.backends()), as_json=as_json)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look now whether backends are ready: program, version, login, sandbox. Exit status 1 if one is not."""
    found = asyncio.run(_check(names or []))
    _print(found, as_json=as_json)
    if any(check["status"] == "fail" for check in found):
        raise typer.Exit(1)


async def _check(names: list[str]) -> list[Any]:
    from overnight.cli.connect import connected

    async with connected() as client:
        wanted = names or [backend["name"] for backend in await client.backends()]
        return [await client.check(name) for name in wanted]


def _print(found: list[Any], *, as_json: bool) -> None:
    if as_json:
        for backend in found:
            emit(backend)
        return
    columns(
        ("BACKEND", "STATUS", "VERSION", "CAN"),
        (
            (
                b["name"],
                b.get("status") or "unknown",
                b.get("version"),
                _abilities(b.get("capabilities") or {}),
            )
            for b in found
        ),
    )
    for backend in found:
        for problem in backend.get("problems") or []:
            say(
                f"{backend['name']}: {problem['message']}"
                + (f" — {problem['mend']}" if problem.get("mend") else "")
            )


def _abilities(capabilities: Mapping[str, Any]) -> str:
    return " ".join(name for name, value in capabilities.items() if value is True)
