"""`overnight up`: the server."""

from __future__ import annotations

from typing import Annotated

import typer

from overnight.cli.options import duration
from overnight.cli.output import say
from overnight.cli.staying import staying


def up(
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Where to listen. Default: 127.0.0.1:4010."),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="Where the data lies.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option("--slots", min=1, help="Turns that may be under way at once.")
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Serve only; carry nothing out.")] = False,
    no_web: Annotated[bool, typer.Option("--no-web", help="Without the web interface.")] = False,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy with TLS stands in front; listen beyond loopback.")
    ] = False,
    exit_when_idle: Annotated[
        str | None,
        typer.Option(
            "--exit-when-idle", metavar="DURATION", help="End after so long without runs or readers."
        ),
    ] = None,
) -> None:
    """Start the server, its worker and the web interface, in the foreground.

    Ends in order on SIGTERM, SIGHUP and Ctrl-C: agents are stopped, and their runs go on at the next start.
    """
    from pathlib import Path

    idle = duration(exit_when_idle) if exit_when_idle is not None else None
    given = {
        "server.listen": listen,
        "data_dir": str(Path(data_dir).absolute()) if data_dir else None,
        "worker.slots": str(slots) if slots else None,
        "server.behind_proxy": "true" if behind_proxy else None,
    }
    with staying():
        from overnight.config.settings import load

        settings = load(overrides={key: value for key, value in given.items() if value is not None})
        for name in settings.sources.strangers():
            say(f"{name} is set, but there is no such setting")
        # Only now: settings that are wrong need not wait until the whole program is loaded.
        from overnight.compose.foreground import serve

        status = serve(settings, worker=not no_worker, web=not no_web, exit_when_idle=idle)
    raise typer.Exit(status)
