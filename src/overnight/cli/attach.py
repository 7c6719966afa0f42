"""Stays with a run until it ends, needs a person, or the person at the terminal has seen enough."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import Any, Final, cast

from overnight.cli.asking import settle, somebody_is_there
from overnight.cli.exits import OF_STATE, Exit
from overnight.cli.output import say
from overnight.cli.progress import STATES
from overnight.cli.views import View, view_for
from overnight.client import Client, Run
from overnight.client.shapes import FINAL

PATIENCE_S: Final = 120.0
"""How long a lost server is waited for."""
EARLIER: Final = 1000
"""Events before the first one shown that are read all the same, for figures and for what they have told."""
QUEUED_S: Final = 2.0
"""After this long in the queue a run's watcher hears why."""
_PERSON: Final = frozenset({"waiting", "blocked", "paused"})
_SAYING: Final = frozenset({"run.waiting", "run.blocked", "run.paused", "approval.requested"})
"""Events behind which a run may need a person. A first question comes just before the event that the run waits."""


async def attach(
    client: Client, run: Run, *, after: int = 0, as_json: bool = False, no_input: bool = False
) -> Exit:
    """Show the run from the event after `after` on; the exit status that its end means.

    When it waits for a decision, the person at the terminal is asked; where there is none, the question is shown, and
    watching ends. Ctrl-C only stops watching: the run goes on.
    """
    ask = somebody_is_there(no_input=no_input, as_json=as_json)
    limits = cast("dict[str, Any]", (run.get("config") or {}).get("limits") or {})
    turns = limits.get("turns") if run["mode"] == "continuous" else None
    earlier = await _earlier(client, run["id"], after) if after and not as_json else []
    with view_for(as_json=as_json, turns=turns) as view:
        for event in earlier:
            view.seen(event)
        watching = asyncio.ensure_future(_watch(client, run["id"], after, view, ask=ask))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, watching.cancel)
        try:
            state = await watching
        except asyncio.CancelledError:
            state = None
        finally:
            loop.remove_signal_handler(signal.SIGINT)
    if state is None:
        say(
            f"detached; the run goes on. Watch it: overnight watch {run['id']}. Stop it: overnight cancel {run['id']}"
        )
        return Exit.INTERRUPTED
    return await _verdict(client, run["id"], state)


async def _earlier(client: Client, run_id: str, after: int) -> list[Mapping[str, Any]]:
    page = await client.events(run_id, before=after + 1, order="desc", limit=EARLIER)
    return [cast("Mapping[str, Any]", event) for event in reversed(page["items"])]


async def _watch(client: Client, run_id: str, after: int, view: View, *, ask: bool) -> str:
    """The state in which the run ended, or needs a person."""
    lost, told = _Lost(view), ""
    explaining = asyncio.create_task(_explain(client, run_id, view), name="why it is queued")
    try:
        async for item in client.follow(run_id, after, deltas=view.deltas, patience_s=PATIENCE_S, lost=lost):
            lost.found()
            view.item(cast("Mapping[str, Any]", item))
            told = STATES.get(item["type"], told)
            if item["type"] in _SAYING and told in _PERSON:
                # It may be an old event of a run that has long gone on.
                state = (await client.run(run_id))["state"]
                if state == "paused":
                    return state
                if state in {"waiting", "blocked"} and not await settle(client, run_id, view, ask=ask):
                    return state
    finally:
        explaining.cancel()
        await asyncio.gather(explaining, return_exceptions=True)
    return (await client.run(run_id))["state"]


async def _explain(client: Client, run_id: str, view: View) -> None:
    """A run that is not taken up at once: say what it waits for, which no event does."""
    await asyncio.sleep(QUEUED_S)
    run = await client.run(run_id)
    waiting = run["waiting_for"]
    if run["state"] == "queued" and waiting is not None:
        view.note(f"still queued: it waits for {waiting['kind']} {waiting.get('detail', '')}".rstrip())
    elif run["state"] == "queued":
        view.note("still queued: no worker has taken it yet")


async def _verdict(client: Client, run_id: str, state: str) -> Exit:
    if state in FINAL:
        return OF_STATE[state]
    run = await client.run(run_id)
    waiting = run["waiting_for"]
    why = f" for {waiting['kind']}" if waiting and state != "paused" else ""
    if waiting and "approval_id" in waiting and state != "paused":
        mend = f"Decide: overnight approvals --run {run_id}. Then go on watching: overnight watch {run_id}"
    elif waiting and waiting["kind"] == "budget" and state == "waiting":
        mend = f"Raise it: overnight resume {run_id} --budget …. Count it as done: overnight cancel {run_id} --finish"
    else:
        mend = f"Go on: overnight resume {run_id}. Stop it: overnight cancel {run_id}"
    say(f"the run is {state}{why}. {mend}")
    return OF_STATE.get(state, Exit.WAITING)


class _Lost:
    """Says once that the connection is lost, and once that it is back."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._lost = False

    def __call__(self, why: str) -> None:
        if not self._lost:
            self._view.note(f"connection lost ({why}); trying again")
        self._lost = True

    def found(self) -> None:
        if self._lost:
            self._view.note("connected again")
        self._lost = False
