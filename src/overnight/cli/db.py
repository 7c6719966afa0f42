"""`overnight db`: the database itself, a SQLite file or a Postgres database. Works without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from overnight.cli.app import new_app
from overnight.cli.options import JsonFlag
from overnight.cli.output import columns, emit, facts, say

if TYPE_CHECKING:
    from overnight.config.settings import Settings
    from overnight.stores.sql.copying import Proof

_BEFORE: Final = "; a copy of before"
app = new_app(help="Upgrade, back up, restore, check and copy the database.", no_args_is_help=True)
Address = Annotated[
    str | None,
    typer.Argument(
        metavar="DATABASE",
        help="A SQLite file, sqlite:///…, or postgresql://…. Passwords are better left to PGPASSWORD or ~/.pgpass: "
        "others can read a command line.",
    ),
]


@app.command()
def upgrade(as_json: JsonFlag = False) -> None:
    """Bring the schema up to date. On SQLite a copy is made first, and the server does this by itself when it starts;
    on Postgres servers may go on working meanwhile, and an empty database gets its schema.
    """
    from overnight.clock import SystemClock
    from overnight.stores.sql import admin

    settings = _settings()
    if settings.postgres:
        from overnight.stores.sql import postgres_admin

        found, now = postgres_admin.make_or_upgrade(settings.database_url)
        words = f"the schema is {'made' if found is None else f'upgraded from {found} to {now}'}"
        words = "the schema is up to date" if found == now else words
        return _done(words, None, as_json=as_json)
    kept = admin.upgrade(settings.database, SystemClock())
    words = "the schema is up to date" if kept is None else f"the schema is upgraded{_BEFORE}"
    return _done(words, kept, as_json=as_json)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="The schema of an earlier Overnight.")],
    as_json: JsonFlag = False,
) -> None:
    """Bring the schema back to an earlier one, for an earlier Overnight. No server or worker may be running. On SQLite
    a copy is made first.
    """
    from overnight.clock import SystemClock
    from overnight.stores.sql import admin, postgres_admin

    settings, kept = _settings(), None
    if settings.postgres:
        postgres_admin.expect_nobody(settings.database_url)
        postgres_admin.downgrade(settings.database_url, revision)
    else:
        kept = admin.downgrade(settings.database, SystemClock(), revision)
    _done(f"the schema is at {revision}{_BEFORE if kept else ''}", kept, as_json=as_json)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not exist.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a consistent copy, also while servers work on it: a SQLite file, whatever the database is."""
    from overnight.stores.sql import admin

    settings = _settings()
    if settings.postgres:
        from overnight.stores.sql import copy_ends

        copy_ends.to_sqlite(settings.database_url, target.absolute(), _Progress(silent=as_json), live=True)
    else:
        admin.backup(settings.database, target.absolute())
    _done("the copy is complete", target.absolute(), as_json=as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A copy made by backup.")],
    as_json: JsonFlag = False,
) -> None:
    """Put a copy in the place of the database. On SQLite the old one is kept beside it; on Postgres the database must
    be empty.
    """
    from overnight.clock import SystemClock
    from overnight.stores.sql import admin

    settings, kept = _settings(), None
    if settings.postgres:
        from overnight.stores.sql import copy_ends

        copy_ends.to_postgres(
            source.absolute(), settings.database_url, SystemClock(), _Progress(silent=as_json), locking=False
        )
    else:
        kept = admin.restore(settings.database, source.absolute(), SystemClock())
    words = "the copy is in place" if kept is None else "the copy is in place; what was there is kept"
    _done(words, kept, as_json=as_json)


@app.command()
def copy(source: Address = None, target: Address = None, as_json: JsonFlag = False) -> None:
    """Copy everything from one database to another, an empty one, and prove that it is the same: from a SQLite file
    to Postgres, or back. Without names: from the file in the data directory to the configured database.

    No server may be running. A copy that was interrupted leaves a database on which no server starts.
    """
    from overnight.clock import SystemClock
    from overnight.compose import hosts
    from overnight.errors import ConfigInvalid
    from overnight.stores.sql import copy_ends

    settings = _settings()
    origin = source or str(settings.data_dir / "overnight.db")
    goal = target or settings.database_url
    if _is_postgres(origin) == _is_postgres(goal):
        raise ConfigInvalid(
            "one of the two must be a SQLite file and the other a Postgres database",
            mend="set OVERNIGHT_DATABASE_URL to the database to copy into, or name both",
        )
    if _is_postgres(goal):
        file = _file(origin)
        proof = copy_ends.to_postgres(file, goal, SystemClock(), _Progress(silent=as_json))
        hosts.keep(file)
    else:
        proof = copy_ends.to_sqlite(origin, _file(goal), _Progress(silent=as_json))
    _tell(proof, as_json=as_json)


@app.command()
def check(as_json: JsonFlag = False) -> None:
    """Look the whole database over. Exit status 1 if something is wrong with it."""
    from overnight.stores.sql import admin, postgres_admin

    settings = _settings()
    found = (
        postgres_admin.check(settings.database_url) if settings.postgres else admin.check(settings.database)
    )
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
        many = len(found.problems)
        say(f"{many} problems{'' if settings.postgres else ': restore a backup'}" if many else "no problems")
    if found.problems:
        raise typer.Exit(1)


def _settings() -> Settings:
    from overnight.config.settings import load

    return load()


def _is_postgres(address: str) -> bool:
    return address.startswith(("postgresql://", "postgres://"))


def _file(address: str) -> Path:
    return Path(address.removeprefix("sqlite:///")).absolute()


class _Progress:
    """A word now and then about what takes long."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent

    def __call__(self, table: str, done: int) -> None:
        if not self._silent and done and done % 50_000 == 0:
            say(f"{table}: {done} rows")


def _tell(proof: Proof, *, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "done": "the copy is complete and the same", "rows": proof.rows, "digests": proof.digests,
                "streams": proof.streams, "events": proof.events, "mended": proof.mended,
            }
        )  # fmt: skip
        return
    columns(
        ("TABLE", "ROWS", "SHA-256"),
        [(name, count, proof.digests[name][:16]) for name, count in sorted(proof.rows.items())],
    )
    say(
        f"the copy is complete and the same: {proof.events} events in {proof.streams} streams compared one by one"
    )
    if proof.mended:
        say(f"{proof.mended} texts had a NUL in them, which Postgres cannot keep: U+FFFD stands in its place")


def _done(words: str, file: Path | None, *, as_json: bool) -> None:
    if as_json:
        emit({"done": words, "file": str(file) if file else None})
    else:
        say(f"{words}: {file}" if file else words)
