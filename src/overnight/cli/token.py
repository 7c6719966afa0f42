"""`overnight token`: access tokens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from overnight.cli.app import new_app
from overnight.cli.options import JsonFlag, duration
from overnight.cli.output import ago, columns, emit, say, show

app = new_app(help="Make, list and revoke access tokens.", no_args_is_help=True)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    kind: Annotated[str, typer.Option("--kind", help="user, worker or agent.")] = "user",
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="USER", help="For another user, such as usr_ada. Default: yourself."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="DURATION", help="For example 30d.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a token. Its secret is printed now and never again."""
    from overnight.cli.connect import call

    body: dict[str, Any] = {"kind": kind} | ({"owner": owner} if owner else {})
    if expires is not None:
        body["expires_in_s"] = int(duration(expires))
    made = call(lambda client: client.new_token(name, **body))
    if as_json:
        emit(made)
    else:
        show(str(made.get("secret") or made.get("token")))
        say("keep it: it cannot be shown again")


@app.command("list")
def list_tokens(
    every: Annotated[bool, typer.Option("--all", help="Those that are good no longer too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List tokens, without their secrets."""
    from overnight.cli.connect import call

    found = [token for token in call(lambda client: client.tokens()) if every or token["usable"]]
    if as_json:
        for token in found:
            emit(token)
        return
    columns(
        ("ID", "NAME", "KIND", "MADE", "USED", "STATE"),
        (
            (
                t["id"],
                t["name"],
                t["kind"],
                ago(t.get("created_at")),
                ago(t.get("last_used_at")) or "never",
                _state(t),
            )
            for t in found
        ),
    )


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of a token.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a token useless at once."""
    from overnight.cli.connect import call

    call(lambda client: client.revoke_token(name))
    words = f"{name} is revoked"
    emit({"done": words}) if as_json else say(words)


def _state(token: dict[str, Any]) -> str:
    if token.get("revoked_at"):
        return "revoked"
    if not token["usable"]:
        return "expired"
    return f"until {token['expires_at']}" if token.get("expires_at") else "good"
