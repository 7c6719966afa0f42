"""`overnight tools`: offer tools to agents and programs, and call those that are on offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli.app import new_app
from overnight.cli.exits import Exit
from overnight.cli.options import JsonFlag, duration
from overnight.cli.output import columns, emit, say, show

if TYPE_CHECKING:
    from overnight.client.socket.tools import Answer

app = new_app(help="Offer tools to agents and programs, and call those that are on offer.")

ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--url", "--endpoint", metavar="URL",
        help="Another server than that of this machine, http://, ws:// or unix:; wants OVERNIGHT_TOKEN.",
    ),
]  # fmt: skip


@app.command("serve", no_args_is_help=True)
def serve(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE.py|MODULE]...", help="Where functions marked with @tool are."),
    ] = None,
    mcp: Annotated[
        list[str] | None,
        typer.Option(
            "--mcp", metavar="COMMAND", help="Offer the tools of this MCP server, a program; again for more."
        ),
    ] = None,
    mcp_url: Annotated[
        list[str] | None,
        typer.Option(
            "--mcp-url", metavar="URL", help="Offer the tools of the MCP server there; again for more."
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="TEXT", help="Put this before the names of all tools.")
    ] = "",
    url: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Offer tools until this command is ended.

    The functions come from Python files or modules, and from MCP servers, which are started again when they die. What
    is offered is offered again after every cut of the connection and every restart of the server. SIGTERM and Ctrl-C
    end it in order: nothing new is taken, what is under way is cancelled, and the tools are on offer no more.
    """
    import asyncio

    from overnight.cli import serving
    from overnight.errors import ConfigInvalid

    if not (sources or mcp or mcp_url):
        raise ConfigInvalid("there is nothing to offer", mend="name a file, a module, --mcp or --mcp-url")
    offer = serving.Offer.of(sources or [], mcp or [], mcp_url or [], prefix)
    asyncio.run(serving.serve(offer, url, as_json=as_json))


@app.command("ls")
def list_tools(
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Only names that begin so.")] = "",
    url: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """List the tools that may be called, and whether their hosts are there."""
    import asyncio

    from overnight.cli.serving import calling

    async def ask() -> list[Any]:
        async with calling(url) as calls:
            return list(await calls.list(prefix))

    found = asyncio.run(ask())
    if as_json:
        for one in found:
            emit(one)
        return
    columns(
        ("NAME", "HOST", "ASKS", "DESCRIPTION"),
        (
            (
                one["name"],
                "here" if one["available"] else "away",
                "yes" if one["destructive"] or one["permissions"] else "no",
                str(one["description"]).partition("\n")[0],
            )
            for one in found
        ),
    )


@app.command("call")
def call(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A tool that is on offer.")],
    arguments: Annotated[
        str, typer.Argument(metavar="ARGUMENTS", help="A JSON object of what the tool wants.")
    ] = "{}",
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="Give it so long; else 2m.")
    ] = "2m",
    url: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Call a tool and print its answer; what it says meanwhile goes to standard error.

    Ends with status 1 when the tool fails or finds an error. Ctrl-C cancels the call at its host.
    """
    import asyncio

    from overnight.cli.serving import called
    from overnight.errors import ConfigInvalid

    seconds = duration(timeout)
    try:
        import orjson

        given = orjson.loads(arguments)
    except ValueError as error:
        raise ConfigInvalid(f"the arguments are no JSON: {error}") from None
    if not isinstance(given, dict):
        raise ConfigInvalid("the arguments are no JSON object", mend='they look like {"name": "value"}')
    answer = asyncio.run(called(url, name, given, seconds))
    _told(answer, as_json=as_json)
    if answer.is_error:
        raise typer.Exit(Exit.FAILED)


def _told(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "content": list(answer.content),
                "is_error": answer.is_error,
                "details": answer.details,
                "duration_ms": answer.duration_ms,
            }
        )
        return
    for part in answer.content:
        if part.get("type") == "text":
            show(str(part["text"]))
        else:
            say(f"({part.get('media_type') or part.get('type')}, {len(str(part.get('data')))} characters)")
