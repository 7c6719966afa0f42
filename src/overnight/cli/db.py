"""`overnight db`: the database file itself. Works without a server; what changes it refuses to work beside one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from overnight.cli.app import new_app
from overnight.cli.options import JsonFlag
from overnight.cli.output import columns, emit, facts, say

app = new_app(help="Upgrade, back up, restore and check the database.", no_args_is_help=True)


@app.command()
def upgrade(as_json: JsonFlag = False) -> None:
    """Bring the schema up to date; a copy is made first. The server does this by itself when it starts."""
    from overnight.clock import SystemClock
    from overnight.stores.sql import admin

    kept = admin.upgrade(_database(), SystemClock())
    _done("the schema is up to date" if kept is None else "the schema is upgraded", kept, as_json=as_json)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="The schema of an earlier Overnight.")],
    as_json: JsonFlag = False,
) -> None:
    """Bring the schema back to an earlier one, for an earlier Overnight; a copy is made first."""
    from overnight.clock import SystemClock
    from overnight.stores.sql import admin

    kept = admin.downgrade(_database(), SystemClock(), revision)
    _done(f"the schema is at {revision}", kept, as_json=as_json)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not exist.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a consistent copy, also while a server works on it."""
    from overnight.stores.sql import admin

    admin.backup(_database(), target.absolute())
    _done("the copy is complete", target.absolute(), as_json=as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A copy made by backup.")],
    as_json: JsonFlag = False,
) -> None:
    """Put a copy in the place of the database; the old one is kept beside it."""
    from overnight.clock import SystemClock
    from overnight.stores.sql import admin

    kept = admin.restore(_database(), source.absolute(), SystemClock())
    _done("the copy is in place", kept, as_json=as_json)


@app.command()
def check(as_json: JsonFlag = False) -> None:
    """Look the whole database over. Exit status 1 if something is wrong with it."""
    from overnight.stores.sql import admin

    found = admin.check(_database())
    if as_json:
        emit(
            {
                "path": str(found.path), "revision": found.revision, "expected": found.expected,
                "problems": list(found.problems), "bytes": found.bytes, "rows": found.rows,
            }
        )  # fmt: skip
    else:
        facts(
            [
                ("database", found.path),
                ("bytes", found.bytes),
                ("schema", found.revision),
                ("newest", found.expected),
            ]
        )
        columns(("TABLE", "ROWS"), sorted(found.rows.items()))
        for problem in found.problems:
            say(problem)
        say("no problems" if not found.problems else f"{len(found.problems)} problems: restore a backup")
    if found.problems:
        raise typer.Exit(1)


def _database() -> Path:
    from overnight.config.settings import load

    return load().database


def _done(words: str, file: Path | None, *, as_json: bool) -> None:
    if as_json:
        emit({"done": words, "file": str(file) if file else None})
    else:
        say(f"{words}: {file}" if file else words)
