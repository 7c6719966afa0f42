"""Deciding about an approval: which one is meant, which option, and for exactly what was shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import typer

from overnight.client import Approval, Client
from overnight.errors import ActionChanged, InvalidId, InvalidInput, NotFound, UnknownOption

_WHOLE: Final = re.compile(r"apr_[0-9a-z]{26}")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_PAGE: Final = 200


async def find(client: Client, text: str) -> Approval:
    """The approval meant by a whole id, or by a unique beginning or end of one that is open; `last`: the newest open.

    Raises NotFound, or InvalidId that lists those that fit.
    """
    wanted = text.strip().lower()
    if _WHOLE.fullmatch(wanted):
        return await client.approval(wanted)
    pending = await open_ones(client)
    if wanted != "last":
        bare = wanted.removeprefix("apr_")
        pending = [one for one in pending if bare and _fits(one["id"].removeprefix("apr_"), bare)]
    if not pending:
        raise NotFound(f"no open approval fits {text!r}", mend="list them with: overnight approvals")
    if len(pending) > 1 and wanted != "last":
        ids = ", ".join(one["id"] for one in pending[:5])
        raise InvalidId(f"{text!r} fits {len(pending)} approvals: {ids}", mend="give more of its id")
    return pending[0]


async def open_ones(client: Client, run_id: str | None = None) -> list[Approval]:
    """Every open approval (of one run), newest first."""
    found: list[Approval] = []
    cursor: str | None = None
    while True:
        page = await client.approvals(limit=_PAGE, cursor=cursor, state="pending", run_id=run_id)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def by_kind(approval: Approval, *kinds: str) -> str:
    """The id of the option of the first of these kinds that is offered. Raises UnknownOption."""
    for kind in kinds:
        for option in approval["options"]:
            if option["kind"] == kind:
                return option["id"]
    offered = ", ".join(option["id"] for option in approval["options"])
    raise UnknownOption(
        f"{approval['id']} offers no such option",
        mend=f"overnight answer {approval['id']} with one of: {offered}",
    )


def by_answer(approval: Approval, answer: str) -> str:
    """The option with that id, or that label, or that number in the list. Raises UnknownOption."""
    options, wanted = approval["options"], answer.strip()
    # Labels are an agent's words: none of them may pass for the id of another option.
    for name in ("id", "label"):
        for option in options:
            if wanted == cast("Mapping[str, Any]", option)[name]:
                return option["id"]
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(options):
        return options[int(wanted) - 1]["id"]
    offered = ", ".join(option["id"] for option in options)
    raise UnknownOption(f"{approval['id']} has no option {answer!r}", mend=f"use one of: {offered}")


def limits(texts: Sequence[str]) -> dict[str, float | int | None]:
    """The limits behind `tokens=200000` and `cost_usd=none`. Raises BadParameter."""
    found: dict[str, float | int | None] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        value = value.strip().lower()
        if not (equals and name.strip()) or not (value == "none" or _NUMBER.fullmatch(value)):
            raise typer.BadParameter("a limit looks like tokens=200000, cost_usd=5 or tokens=none")
        found[name.strip()] = None if value == "none" else (float(value) if "." in value else int(value))
    return found


def check_seen(approval: Approval, seen: str | None) -> None:
    """Raise ActionChanged when the approval is no longer the one with the digest that begins so."""
    if seen is not None and not (len(seen) >= 8 and approval["digest"].startswith(seen.lower())):
        raise ActionChanged(
            f"{approval['id']} is not what you have seen: its digest begins with {approval['digest'][:12]}",
            mend="look at it with: overnight approvals",
        )


async def decide(client: Client, approval: Approval, option: str, **more: object) -> Approval:
    """Decide for exactly what `approval` shows. Raises ActionChanged, AlreadyDecided, ApprovalOver and the like."""
    body = {name: value for name, value in more.items() if value is not None}
    if _is_raise(approval, option) and not body.get("changes"):
        raise InvalidInput(
            "say how far the budget is raised",
            mend=f"overnight approve {approval['id']} --limits tokens=200000",
        )
    return await client.resolve(approval["id"], option, approval["digest"], **body)


def _is_raise(approval: Approval, option: str) -> bool:
    return any(one["id"] == option and one["kind"] == "raise" for one in approval["options"])


def _fits(id: str, part: str) -> bool:
    return id.startswith(part) or id.endswith(part)
