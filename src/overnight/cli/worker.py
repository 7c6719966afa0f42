"""`overnight worker`: carries out runs for servers that are elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from overnight.cli import working
from overnight.cli.options import duration, pairs


def worker(
    data_dir: Annotated[
        str | None,
        typer.Option("--data-dir", metavar="DIR", help="What belongs to this worker alone: its host."),
    ] = None,
    slots: Annotated[
        int | None, typer.Option("--slots", min=1, help="Turns that may be under way at once.")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="Offer this backend; again for more. Default: all."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="NAME=VALUE",
            help="What runs may ask for as worker/NAME=VALUE; again for more.",
        ),
    ] = None,
    shared_root: Annotated[
        list[str] | None,
        typer.Option(
            "--shared-root",
            metavar="DIR",
            help="A directory that all hosts see at this path; again for more.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Carry out runs of this server, with the token in OVERNIGHT_TOKEN and no database.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let --server be http:// on another machine.")
    ] = False,
    exit_when_idle: Annotated[
        str | None,
        typer.Option("--exit-when-idle", metavar="DURATION", help="End after so long without a run."),
    ] = None,
) -> None:
    """Carry out runs for servers on the same database, or for a server elsewhere.

    Works in the foreground, on the Postgres database that the settings name, or with `--server`. Ends in order on
    SIGTERM, SIGHUP and Ctrl-C: agents are stopped, and their runs go on elsewhere, or at the next start. SIGUSR2 leaves
    them working for the next worker of the same data directory.
    """
    from pathlib import Path

    idle = duration(exit_when_idle) if exit_when_idle is not None else None
    pairs(label or [], "a label")
    given = {
        "data_dir": str(Path(data_dir).absolute()) if data_dir else None,
        "worker.slots": str(slots) if slots else None,
        "worker.backends": ",".join(backend) if backend else None,
        "worker.labels": ",".join(label) if label else None,
        "worker.shared_roots": ":".join(str(Path(root).absolute()) for root in shared_root or []) or None,
    }
    working.begin(
        overrides={key: value for key, value in given.items() if value is not None},
        server=server, insecure=insecure, exit_when_idle=idle,
    )  # fmt: skip
