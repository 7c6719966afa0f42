"""Asks the person at the terminal what a run waits for, while it is followed."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Mapping
from typing import Any, Final, cast

import typer

from overnight.cli import deciding
from overnight.cli.exits import report
from overnight.cli.output import say
from overnight.cli.question import block, one_line
from overnight.cli.views import View
from overnight.client import Approval, Client
from overnight.errors import OvernightError

LOOK_S: Final = 1.0
"""How often the terminal looks whether somebody else has decided meanwhile."""
_LOOKS: Final = 10
_ASKS_WITH_LETTERS: Final[Mapping[str, str]] = {
    "allow_once": "y",
    "allow_always": "a",
    "reject_once": "n",
    "reject_always": "never",
}


def somebody_is_there(*, no_input: bool, as_json: bool) -> bool:
    """Whether there is a person to be asked."""
    return not (no_input or as_json) and sys.stdin.isatty() and sys.stderr.isatty()


async def settle(client: Client, run_id: str, view: View, *, ask: bool) -> bool:
    """Show everything that the run waits for, and ask about it; False when a person is still needed."""
    while pending := await _waits_for(client, run_id):
        if not ask:
            for approval in reversed(pending):
                _say(approval, commands=True)
            return False
        with view.still():
            if not await _ask(client, pending[-1]):
                return False
    return pending is not None


async def _waits_for(client: Client, run_id: str) -> list[Approval] | None:
    """The open approvals of a run, newest first: none when it goes on; None when it waits for something else."""
    for _ in range(_LOOKS):
        pending = await deciding.open_ones(client, run_id)
        if pending:
            return pending
        run = await client.run(run_id)
        if run["state"] not in {"waiting", "blocked"}:
            return []
        if "approval_id" not in (run["waiting_for"] or {}):
            return None
        # Asked between the two looks: look again.
        await asyncio.sleep(LOOK_S / _LOOKS)
    return None


async def _ask(client: Client, approval: Approval) -> bool:
    """Put one question until it is answered, here or elsewhere; False when the person leaves it open."""
    keys = _keys(approval)
    _say(approval, commands=False)
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)  # what was typed before was no answer to this
    while True:
        sys.stderr.write(f"{'  '.join(f'[{key}] {label}' for key, (_, label) in keys.items())}  [l]ater > ")
        sys.stderr.flush()
        line = await _line_or_news(client, approval)
        if line is None:
            return True
        word, _, rest = line.partition(" ")
        if word.lower() in {"", "l", "later"}:
            return False
        body = _meant(approval, keys, word.lower(), rest.strip())
        if body is None:
            continue
        try:
            await deciding.decide(client, approval, **body)
        except OvernightError as error:
            # It may have changed, or somebody else was quicker: whoever called looks again.
            report(error)
        return True


def _keys(approval: Approval) -> dict[str, tuple[str, str]]:
    """What to type, for each option: its id and its label."""
    found: dict[str, tuple[str, str]] = {}
    for number, option in enumerate(approval["options"], 1):
        key = _ASKS_WITH_LETTERS.get(option["kind"], str(number))
        found[str(number) if key in found else key] = option["id"], one_line(option["label"])
    return found


def _meant(
    approval: Approval, keys: Mapping[str, tuple[str, str]], word: str, rest: str
) -> dict[str, Any] | None:
    """Option, and changes or feedback, of what was typed; None when it means nothing."""
    if approval["kind"] == "budget" and "=" in word:
        try:
            changes = {"limits": deciding.limits([word, *rest.split()])}
        except typer.BadParameter as error:
            say(error.message)
            return None
        return {"option": deciding.by_kind(approval, "raise"), "changes": changes}
    chosen = keys.get(word) or keys.get(_SPELLED.get(word, ""))
    if chosen is None:
        say("type what stands in brackets; words behind it go to the agent")
        return None
    if any(option["id"] == chosen[0] and option["kind"] == "raise" for option in approval["options"]):
        say("type the new limits, such as tokens=200000 or cost_usd=5")
        return None
    return {"option": chosen[0], "feedback": rest or None}


_SPELLED: Final[Mapping[str, str]] = {"yes": "y", "no": "n", "always": "a", "allow": "y", "deny": "n"}


async def _line_or_news(client: Client, approval: Approval) -> str | None:
    """The next line that is typed; None when it has been decided elsewhere, or has changed."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[str] = loop.create_future()
    descriptor = sys.stdin.fileno()
    loop.add_reader(descriptor, _take, descriptor, typed)
    try:
        while not typed.done():
            await asyncio.wait([typed], timeout=LOOK_S)
            if not typed.done() and (news := await _news(client, approval)):
                say(f"\n{news}")
                return None
        return typed.result()
    finally:
        loop.remove_reader(descriptor)


def _take(descriptor: int, typed: asyncio.Future[str]) -> None:
    if not typed.done():
        typed.set_result(os.read(descriptor, 4096).decode("utf-8", "replace").strip())


async def _news(client: Client, approval: Approval) -> str | None:
    try:
        now = await client.approval(approval["id"])
    except OvernightError:
        return None  # a server that restarts; the next look tells
    if now["state"] != "pending":
        decision = now["decision"]
        return f"{now['state']}: {decision['option']} by {decision['by']}" if decision else str(now["state"])
    return None if now["digest"] == approval["digest"] else "it has changed"


def _say(approval: Approval, *, commands: bool) -> None:
    for line in block(cast("Mapping[str, Any]", approval), commands=commands):
        say(line)
