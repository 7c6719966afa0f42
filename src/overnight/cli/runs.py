"""`overnight ls`, `show` and `logs`: what is stored about runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli.options import JsonFlag, RunArgument
from overnight.cli.output import ago, columns, columns_of_terminal, count, emit, facts, say, show

if TYPE_CHECKING:
    from overnight.client import Run

ROOMY = 110
"""Columns of a terminal from which on a list has room for whole ids."""
Filter = Annotated[str | None, typer.Option(help="Only runs that fit.")]


def ls(
    state: Annotated[
        list[str] | None, typer.Option("--state", "-s", help="Only these states; may be repeated.")
    ] = None,
    mode: Filter = None,
    backend: Filter = None,
    session: Filter = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Made at or after this time (RFC 3339).")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Words in the goal.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first."""
    filters = {
        "state": state or None, "mode": mode, "backend": backend, "session": session, "label": label or None,
        "since": since, "text": text,
    }  # fmt: skip
    asyncio.run(
        _ls({key: value for key, value in filters.items() if value is not None}, limit, as_json=as_json)
    )


async def _ls(filters: dict[str, Any], limit: int, *, as_json: bool) -> None:
    from overnight.cli.connect import connected

    async with connected() as client:
        runs: list[Run] = []
        cursor: str | None = None
        while len(runs) < limit:
            page = await client.runs(limit=min(200, limit - len(runs)), cursor=cursor, **filters)
            runs += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        counts = {} if as_json else await client.counts(**filters)
    if as_json:
        for run in runs:
            emit(run)
        return
    columns(
        ("RUN", "STATE", "TURN", "BACKEND", "AGE", "TOKENS", "GOAL"),
        (
            (
                handle(r["id"]),
                _state(r),
                r["turn"],
                r["backend"],
                ago(r["created_at"]),
                _tokens(r),
                r["goal"][:200],
            )
            for r in runs
        ),
    )
    asking = sum("approval_id" in (run["waiting_for"] or {}) for run in runs)
    if asking:
        say(f"{asking} of them wait{'s' if asking == 1 else ''} for a person: overnight approvals")
    total = counts.get("total", len(runs))
    if total > len(runs):
        say(f"{len(runs)} of {total} runs; --limit shows more")


def show_run(
    run: RunArgument,
    turns: Annotated[bool, typer.Option("--turns", help="List its turns.")] = False,
    prompt: Annotated[
        int | None, typer.Option("--prompt", metavar="N", min=1, help="Print the prompt of turn N.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one run: state, figures, turns."""
    asyncio.run(_show(run, turns=turns, prompt=prompt, as_json=as_json))


async def _show(text: str, *, turns: bool, prompt: int | None, as_json: bool) -> None:
    from overnight.cli.connect import connected
    from overnight.cli.ids import resolve

    async with connected() as client:
        run_id = await resolve(client, text)
        if prompt is not None:
            words = await client.prompt(run_id, prompt)
            emit({"run_id": run_id, "turn": prompt, "prompt": words}) if as_json else show(words.rstrip("\n"))
            return
        run = await client.run(run_id)
        rows = await client.turns(run_id) if turns or not as_json else []
    if as_json:
        for document in rows if turns else [run]:
            emit(document)
        return
    if not turns:
        _snapshot(run)
    _turns(rows)


def _snapshot(run: Mapping[str, Any]) -> None:
    stats, error, ended = run["stats"], run["error"], run["completion"]
    tests = stats["tests"]
    facts(
        [
            ("run", run["id"]),
            ("state", _state(run)),
            ("waits for", _waits_for(run)),
            ("goal", run["goal"][:500]),
            ("backend", run["backend"]),
            ("workspace", run["workspace"]),
            ("session", run["session_id"]),
            ("retry of", run["retry_of"]),
            ("made", f"{run['created_at']} ({ago(run['created_at'])} ago)"),
            ("ended", run["ended_at"]),
            ("turns", f"{stats['turns']} done, now {run['turn']}, attempt {run['attempt']}"),
            ("now", run["now"] and run["now"]["text"]),
            ("tokens", _tokens(run)),
            ("cost", (stats["cost_usd"] is not None and f"${stats['cost_usd']:.4f}") or None),
            ("files", "{changed} changed, +{added} -{removed}".format(**stats["files"])),
            ("tests", tests and "{passed} passed, {failed} failed, {skipped} skipped".format(**tests)),
            ("ended by", ended["by"] and f"{ended['by']} {ended['line'] or ''}"),
            ("error", error and f"{error['code']}: {error['message']}"),
            ("cancelled", run["cancellation"] and _steps(run["cancellation"])),
            ("sandbox", run["sandbox_effective"]),
            ("labels", " ".join(f"{name}={value}" for name, value in run["labels"].items())),
        ]
    )


def _turns(rows: list[Any]) -> None:
    if not rows:
        return
    show()
    columns(
        ("TURN", "ATTEMPT", "STATE", "ITEMS", "TOKENS", "FILES", "LAST MESSAGE"),
        (
            (
                row["turn"], row["attempt"], row["state"], row.get("items", ""),
                count((row["usage"] or {}).get("total")), (row.get("files") or {}).get("changed", ""),
                row.get("last_message") or (row["error"] or {}).get("message", ""),
            )
            for row in rows
        ),
    )  # fmt: skip


def logs(
    run: RunArgument,
    after: Annotated[
        int, typer.Option("--after", metavar="SEQ", min=0, help="Only events behind this one.")
    ] = 0,
    turn: Annotated[
        int | None, typer.Option("--turn", metavar="N", min=1, help="Only events of turn N.")
    ] = None,
    types: Annotated[
        str | None, typer.Option("--types", help="Only these types, with commas between.")
    ] = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=1, help="Only the last so many.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="What the program of --turn N printed, whole, but for secrets.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print what was recorded of a run; to go on watching: overnight watch."""
    if raw and turn is None:
        raise typer.BadParameter("--raw needs --turn N")
    asyncio.run(_logs(run, after=after, turn=turn, types=types, tail=tail, raw=raw, as_json=as_json))


async def _logs(
    text: str, *, after: int, turn: int | None, types: str | None, tail: int | None, raw: bool, as_json: bool
) -> None:
    from overnight.cli.connect import connected
    from overnight.cli.ids import resolve
    from overnight.cli.views import JsonView, PlainView

    view = JsonView() if as_json else PlainView()
    async with connected() as client:
        run_id = await resolve(client, text)
        if raw and turn is not None:
            _raw(await client.output(run_id, turn))
            return
        if tail is not None:
            page = await client.events(
                run_id, after=after, turn=turn, types=types, order="desc", limit=min(tail, 1000)
            )
            for event in reversed(page["items"]):
                view.item(event)
            return
        while True:
            page = await client.events(run_id, after=after, turn=turn, types=types, limit=1000)
            for event in page["items"]:
                view.item(event)
            if not page["items"]:
                return
            after = page["items"][-1]["seq"]


def _raw(output: bytes) -> None:
    if sys.stdout.isatty():
        # A terminal would obey what an agent printed; a file or pipe gets the bytes as they were.
        show(output.decode("utf-8", "replace"))
    else:
        sys.stdout.buffer.write(output)


def headline(run: Mapping[str, Any]) -> str:
    """One line about a run for the list of changes."""
    line = f"{str(run['updated_at'])[11:19]} {run['id']} {_state(run)} turn {run['turn']} {run['goal'][:80]}"
    waiting = run["waiting_for"] or {}
    return f"{line} · {waiting['detail']}" if "approval_id" in waiting and waiting.get("detail") else line


def handle(run_id: str) -> str:
    """An id as a list shows it: whole, but on a narrow terminal its end, which names the run as well."""
    return run_id if (columns_of_terminal() or ROOMY) >= ROOMY else run_id[-10:]


def _state(run: Mapping[str, Any]) -> str:
    waiting = run["waiting_for"]
    return f"{run['state']} ({waiting['kind']})" if waiting else str(run["state"])


def _waits_for(run: Mapping[str, Any]) -> str | None:
    """What it waits for, and how to give it that."""
    waiting = run["waiting_for"]
    if not waiting:
        return None
    what = " ".join(str(waiting.get("detail") or waiting["kind"]).split())
    if "approval_id" not in waiting:
        return what
    return f"{what} · {waiting['approval_id']}: overnight approvals --run {run['id']}"


def _tokens(run: Mapping[str, Any]) -> str:
    total = run["stats"]["tokens"]["total"]
    return count(total) if total else ""


def _steps(cancellation: Mapping[str, Any]) -> str:
    steps = ", ".join(cancellation["steps"]) or "nothing was running"
    return f"{cancellation['reason']}: {steps}; survivors: {cancellation['survivors']}"
