"""`overnight sessions`: list, show, make, talk to, share and remove sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from overnight.cli.app import new_app
from overnight.cli.options import JsonFlag, NoInputFlag, duration, pairs
from overnight.cli.output import ago, columns, emit, facts, say, show

if TYPE_CHECKING:
    from overnight.client import Client

T = TypeVar("T")
app = new_app(help="Sessions: conversations and their context, which outlive runs.", no_args_is_help=True)
SessionArgument = Annotated[
    str,
    typer.Argument(metavar="SESSION", help="Id of a session, a unique part at either end of one, or `last`."),
]
ConfigOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--config", metavar="NAME=VALUE", help="A default for its runs, such as model=o3; may be repeated."
    ),
]


@app.command("ls")
def ls(
    state: Annotated[
        list[str] | None, typer.Option("--state", "-s", help="Only these states; may be repeated.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="Only sessions of this mode.")] = None,
    text: Annotated[str | None, typer.Option(help="Words in the name.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most so many.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List sessions, newest first, those too that others share with you."""
    from overnight.cli.connect import call

    filters: dict[str, Any] = {"state": state or None, "mode": mode, "text": text}
    found = call(lambda client: client.sessions(limit=limit, **filters))["items"]
    if as_json:
        for session in found:
            emit(session)
        return
    head = ("SESSION", "STATE", "PHASE", "MODE", "USED", "OWNER", "NAME")
    columns(
        head,
        (
            (s["id"], s["state"], s["phase"], s["mode"], ago(s["updated_at"]), s["owner"], s["name"])
            for s in found
        ),
    )


@app.command("show")
def show_session(session: SessionArgument, as_json: JsonFlag = False) -> None:
    """Show one session: state, context, what waits, its runs, and with whom it is shared."""

    async def ask(client: Client, session_id: str) -> None:
        found = await client.session(session_id)
        if as_json:
            emit(found)
            return
        waiting, runs = await client.messages(session_id), (await client.session_runs(session_id, limit=5))
        facts(
            [
                ("session", found["id"]), ("name", found["name"]), ("owner", found["owner"]),
                ("state", f"{found['state']} ({found['phase']})"), ("mode", found["mode"]),
                ("version", found["version"]), ("variables", _compact(found["variables"])),
                ("config", _compact(found["config"])), ("used", f"{ago(found['updated_at'])} ago"),
                ("expires", found["expires_at"]), ("waiting", len(waiting) or None),
            ]
        )  # fmt: skip
        if runs["items"]:
            show()
            columns(
                ("RUN", "STATE", "AGE", "GOAL"),
                (
                    (run["id"], run["state"], ago(run["created_at"]), run["goal"][:100])
                    for run in runs["items"]
                ),
            )

    _with(session, ask)


@app.command("history")
def history(
    session: SessionArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="The last so many.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Print what was said, oldest first."""

    async def ask(client: Client, session_id: str) -> None:
        found = await client.history(session_id, limit=limit)
        for said in found["items"]:
            if as_json:
                emit(said)
            else:
                show(f"── {said['role']} · {ago(said['at'])} ago\n{said['text'].rstrip()}\n")
        if not as_json and found["total"] > len(found["items"]):
            say(f"{len(found['items'])} of {found['total']} messages; --limit shows more")

    _with(session, ask)


@app.command("new")
def new(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What to call it.")] = None,
    mode: Annotated[str, typer.Option(help="How its runs proceed unless they say so themselves.")] = "chat",
    var: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="A variable; may be repeated.")
    ] = None,
    config: ConfigOptions = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a session. Values that are JSON are taken as such: --config 'limits={"turns": 20}'."""
    from overnight.cli.connect import call

    body: dict[str, Any] = {
        "mode": mode,
        "variables": values(var, "--var"),
        "config": values(config, "--config"),
    }
    made = call(lambda client: client.create_session(body | ({"name": name} if name else {})))
    emit(made) if as_json else show(made["id"])


@app.command("send")
def send(
    session: SessionArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say.")],
    now: Annotated[
        bool, typer.Option("--now", help="Into the run that goes on, not after its turn.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the run until nothing waits.")] = False,
    no_input: NoInputFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Say something. It is stored at once, and gets its turn in order, exactly once."""

    async def ask(client: Client, session_id: str) -> int:
        from overnight.cli.attach import attach

        posted = await client.post_message(session_id, text, when="now" if now else "after_turn")
        run = posted["run"]
        if watch and run is not None:
            return await attach(client, run, after=run["last_seq"], as_json=as_json, no_input=no_input)
        if as_json:
            emit(posted)
        else:
            show(posted["message"]["id"])
            say(f"it goes to {run['id']}, which is {run['state']}" if run else "no run takes it now")
        return 0

    if status := _with(session, ask):
        raise typer.Exit(status)


@app.command("queue")
def queue(
    session: SessionArgument,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="MESSAGE", help="Take this message back; may be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the messages that wait for their turn, or take some back."""

    async def ask(client: Client, session_id: str) -> None:
        for message_id in remove or []:
            await client.remove_message(session_id, message_id)
        found = await client.messages(session_id)
        if as_json:
            for message in found:
                emit(message)
            return
        columns(
            ("MESSAGE", "BY", "AGE", "TEXT"),
            ((m["id"], m["by"], ago(m["created_at"]), m["text"][:200]) for m in found),
        )

    _with(session, ask)


@app.command("suspend")
def suspend(session: SessionArgument, as_json: JsonFlag = False) -> None:
    """Put an idle session aside; a message, a run or `resume` brings it back."""
    _with(session, lambda client, session_id: _moved(client.suspend_session(session_id), as_json=as_json))


@app.command("resume")
def resume(session: SessionArgument, as_json: JsonFlag = False) -> None:
    """Make a suspended or completed session active again."""
    _with(session, lambda client, session_id: _moved(client.resume_session(session_id), as_json=as_json))


@app.command("rm")
def remove_session(session: SessionArgument, as_json: JsonFlag = False) -> None:
    """Remove a session with its runs, messages, approvals and files. Refused while a run of it is live."""

    async def ask(client: Client, session_id: str) -> None:
        await client.delete_session(session_id)
        words = f"{session_id} is removed"
        emit({"done": words}) if as_json else say(words)

    _with(session, ask)


@app.command("share")
def share(
    session: SessionArgument,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="With this user, such as usr_ada.")
    ] = None,
    role: Annotated[str, typer.Option(help="For a user: viewer, operator or decider.")] = "viewer",
    link: Annotated[
        bool, typer.Option("--link", help="With whoever has the link, for reading alone.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="DURATION", help="For example 7d.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Open a session to somebody; without --user and --link, list with whom it is shared."""
    body: dict[str, Any] = {"link": True} if link else {"user": user, "role": role}
    if expires is not None:
        body["expires_s"] = duration(expires)

    async def ask(client: Client, session_id: str) -> None:
        if user is None and not link:
            await _list_shares(client, session_id, as_json=as_json)
            return
        made = await client.share_session(session_id, **body)
        if as_json:
            emit(made)
        else:
            show(f"{client.url}{made['path']}" if made["path"] else made["id"])
            if made["path"]:
                say(
                    f"it cannot be shown again; end it with: overnight sessions unshare {session_id} {made['id']}"
                )

    _with(session, ask)


@app.command("unshare")
def unshare(
    session: SessionArgument,
    share_id: Annotated[str, typer.Argument(metavar="SHARE", help="Id of a share.")],
    as_json: JsonFlag = False,
) -> None:
    """End a share: whoever came in by it is out at once."""

    async def ask(client: Client, session_id: str) -> None:
        await client.revoke_share(session_id, share_id)
        words = f"{share_id} is revoked"
        emit({"done": words}) if as_json else say(words)

    _with(session, ask)


@app.command("modes")
def modes(as_json: JsonFlag = False) -> None:
    """List how runs may proceed: the built-in modes, and the operator's profiles."""
    from overnight.cli.connect import call

    found = call(lambda client: client.modes())
    if as_json:
        for mode in found:
            emit(mode)
        return
    columns(("MODE", "NAME", "WHAT IT IS"), ((m["id"], m["label"], m["description"]) for m in found))


async def _list_shares(client: Client, session_id: str, *, as_json: bool) -> None:
    found = await client.shares(session_id)
    if as_json:
        for one in found:
            emit(one)
        return
    columns(
        ("SHARE", "WITH", "ROLE", "SINCE", "UNTIL"),
        (
            (
                s["id"],
                s["user"] or "a link",
                s["role"],
                ago(s["created_at"]),
                s["expires_at"] or "it is revoked",
            )
            for s in found
        ),
    )


async def _moved(answer: Awaitable[Any], *, as_json: bool) -> None:
    session = await answer
    emit(session) if as_json else show(f"{session['id']} {session['state']}")


def _with(text: str, act: Callable[[Client, str], Awaitable[T]]) -> T:
    """Find the session that is meant, and do it."""

    async def work() -> T:
        from overnight.cli.connect import connected
        from overnight.cli.ids import resolve_session

        async with connected() as client:
            return await act(client, await resolve_session(client, text))

    return asyncio.run(work())


def values(texts: list[str] | None, what: str) -> dict[str, object]:
    """`NAME=VALUE` texts; a value that is JSON is taken as such, another one as text."""
    return {name: _value(text) for name, text in pairs(texts or [], what).items()}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _compact(document: object) -> str | None:
    return json.dumps(document, ensure_ascii=False) if document else None
