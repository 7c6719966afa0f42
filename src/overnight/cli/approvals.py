"""`overnight approvals`, `approve`, `deny` and `answer`: what waits for a person, and the decision.

`question` puts an approval into lines, `deciding` finds out what is meant, `asking` asks at the terminal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from overnight.cli.options import JsonFlag, complete_runs
from overnight.cli.output import emit, say, show

if TYPE_CHECKING:
    from overnight.client import Approval, Client


def complete_approvals(incomplete: str) -> list[str]:
    """Ids of open approvals, for the shell; nothing when no server answers."""
    from overnight.cli.connect import call
    from overnight.errors import OvernightError

    try:
        page = call(lambda client: client.approvals(limit=50, state="pending"))
    except (OvernightError, OSError):
        return []
    return [approval["id"] for approval in page["items"] if approval["id"].startswith(incomplete)]


ApprovalArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of an approval, the beginning or the end of one if it is unique, or `last`.",
        autocompletion=complete_approvals,
    ),
]
Feedback = Annotated[
    str | None, typer.Option("--feedback", metavar="TEXT", help="Words for the agent, with the decision.")
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limits", metavar="NAME=VALUE", help="New limits of a run whose budget is spent; may be repeated."
    ),
]
Seen = Annotated[
    str | None,
    typer.Option("--digest", metavar="HEX", help="Only if its digest (of `approvals --json`) begins so."),
]
Always = Annotated[
    bool, typer.Option("--always", help="Also from now on, in this session: saves the rule that is shown.")
]


def approvals(
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Only of this run.", autocompletion=complete_runs),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show what waits for a person, and the ways to decide.

    For each: the action, where its paths lead, the diff, and the exact rule that an answer for ever would save.
    """
    asyncio.run(_list(run, everything=everything, limit=limit, as_json=as_json))


def approve(
    approval: ApprovalArgument,
    always: Always = False,
    option: Annotated[
        str | None, typer.Option("--option", metavar="OPTION", help="Another option than to allow it once.")
    ] = None,
    limits: Limits = None,
    feedback: Feedback = None,
    digest: Seen = None,
    as_json: JsonFlag = False,
) -> None:
    """Allow exactly what is shown, once; or raise a spent budget.

    If it has changed since it was shown, nothing is decided and it is shown anew.
    """
    kinds = ("allow_always",) if always else ("allow_once", "raise")
    asyncio.run(
        _decide(approval, lambda one: _chosen(one, option, kinds), limits, feedback, digest, as_json=as_json)
    )


def deny(
    approval: ApprovalArgument,
    always: Always = False,
    feedback: Feedback = None,
    digest: Seen = None,
    as_json: JsonFlag = False,
) -> None:
    """Reject what is shown; of a spent budget, let the run finish as it is."""
    kinds = ("reject_always",) if always else ("reject_once", "finish")
    asyncio.run(
        _decide(approval, lambda one: _chosen(one, None, kinds), None, feedback, digest, as_json=as_json)
    )


def answer(
    approval: ApprovalArgument,
    option: Annotated[
        str, typer.Argument(metavar="OPTION", help="Id, label or number of one of its options.")
    ],
    limits: Limits = None,
    feedback: Feedback = None,
    digest: Seen = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer a question, or choose any option of an approval."""
    asyncio.run(
        _decide(approval, lambda one: _chosen(one, option, ()), limits, feedback, digest, as_json=as_json)
    )


async def _list(run: str | None, *, everything: bool, limit: int, as_json: bool) -> None:
    from overnight.cli.connect import connected
    from overnight.cli.ids import resolve
    from overnight.cli.question import block, headline

    async with connected() as client:
        run_id = None if run is None else await resolve(client, run)
        page = await client.approvals(limit=limit, run_id=run_id, state=None if everything else "pending")
    for approval in page["items"]:
        shown = cast("Mapping[str, Any]", approval)
        if as_json:
            emit(shown)
            continue
        lines = block(shown) if approval["state"] == "pending" else [headline(shown)]
        show("\n".join(lines))
    if not as_json and not page["items"]:
        say("nothing waits for a decision" if not everything else "there are no approvals")
    if not as_json and page["next_cursor"] is not None:
        say(f"the newest {limit}; --limit shows more")


def _chosen(approval: Approval, option: str | None, kinds: tuple[str, ...]) -> str:
    from overnight.cli.deciding import by_answer, by_kind

    return by_kind(approval, *kinds) if option is None else by_answer(approval, option)


async def _decide(
    text: str,
    choose: Callable[[Approval], str],
    limits: list[str] | None,
    feedback: str | None,
    digest: str | None,
    *,
    as_json: bool,
) -> None:
    from overnight.cli import deciding
    from overnight.cli.connect import connected
    from overnight.cli.question import block
    from overnight.errors import ActionChanged

    changes = {"limits": deciding.limits(limits)} if limits else None
    async with connected() as client:
        approval = await deciding.find(client, text)
        deciding.check_seen(approval, digest)
        option = choose(approval)
        for line in block(cast("Mapping[str, Any]", approval), commands=False):
            say(line)
        try:
            decided = await deciding.decide(client, approval, option, feedback=feedback, changes=changes)
        except ActionChanged:
            say("This is what would happen now:")
            for line in block(cast("Mapping[str, Any]", await client.approval(approval["id"]))):
                say(line)
            raise
        await _tell(client, decided, as_json=as_json)


async def _tell(client: Client, decided: Approval, *, as_json: bool) -> None:
    if as_json:
        emit(decided)
        return
    decision = decided["decision"]
    run = await client.run(decided["run_id"])
    show(f"{decided['id']} {decision['option'] if decision else decided['state']}")
    say(f"{run['id']} is {run['state']}. Watch it: overnight watch {run['id']}")
