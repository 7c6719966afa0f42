"""`overnight workers`: who carries out runs, and what to ask of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from overnight.cli.app import new_app
from overnight.cli.options import JsonFlag
from overnight.cli.output import ago, columns, emit, say

app = new_app(help="See the workers, drain them, and release them from quarantine.")

WorkerId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of a worker, or its unmistakable beginning or end.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; shown to everybody.")]


@app.callback(invoke_without_command=True)
def workers(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Without a command: list them."""
    if context.invoked_subcommand is None:
        list_workers(as_json=as_json)


@app.command("list")
def list_workers(
    every: Annotated[bool, typer.Option("--all", help="Those that are gone too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the workers: what they offer, how busy they are, and in which state."""
    from overnight.cli.connect import call

    found = [worker for worker in call(lambda client: client.workers()) if every or worker["state"] != "gone"]
    if as_json:
        for worker in found:
            emit(worker)
        return
    columns(
        ("ID", "HOST", "STATE", "BUSY", "BACKENDS", "LABELS", "SEEN"),
        (
            (
                worker["id"],
                worker["host"],
                _state(worker),
                f"{worker['busy']}/{worker['slots']}",
                " ".join(worker["backends"]) or "none",
                " ".join(f"{name}={value}" for name, value in worker["labels"].items()),
                ago(worker["seen_at"]),
            )
            for worker in found
        ),
    )


@app.command("drain")
def drain(worker: WorkerId, reason: Reason = None, as_json: JsonFlag = False) -> None:
    """Let a worker finish what it has and take no more runs."""
    _ask(worker, "drain", reason, as_json=as_json)


@app.command("resume")
def resume(worker: WorkerId, as_json: JsonFlag = False) -> None:
    """Let a drained worker take runs again."""
    _ask(worker, "resume", None, as_json=as_json)


@app.command("release")
def release(worker: WorkerId, as_json: JsonFlag = False) -> None:
    """Let a worker that kept failing take runs again, and count its failures afresh."""
    _ask(worker, "release", None, as_json=as_json)


def _ask(worker: str, action: str, reason: str | None, *, as_json: bool) -> None:
    from overnight.cli.connect import connected

    async def ask() -> dict[str, Any]:
        async with connected() as client:
            known = [one["id"] for one in await client.workers()]
            return await client.ask_worker(_meant(worker, known), action, reason=reason)

    import asyncio

    after = asyncio.run(ask())
    emit(after) if as_json else say(f"{after['id']} is {_state(after)}")


def _meant(given: str, known: list[str]) -> str:
    """The one worker that `given` can mean; what is meant by none is left to the server to refuse."""
    found = [one for one in known if given and (one.startswith(given) or one.endswith(given))]
    if len(found) > 1 and given not in found:
        raise typer.BadParameter(f"{given} could be {', '.join(found)}")
    return found[0] if len(found) == 1 else given


def _state(worker: dict[str, Any]) -> str:
    words = worker["state"] if worker["fresh"] or worker["state"] == "gone" else f"{worker['state']}, silent"
    return f"{words} ({worker['reason']})" if worker.get("reason") else words
