"""Moving a database between schema revisions, with Alembic. Imported only when there is something to move."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, text

from overnight.clock import Clock, rfc3339
from overnight.errors import NotFound, StartRefused, UnsafeDatabase
from overnight.stores.sql import postgres_schema
from overnight.stores.sql.backups import copy
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.migrate import USABLE_FROM, revision, table_names
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink

_WAITS_MS, _PAUSE_S, _TRIES = 200, 0.1, 100
"""How long each try waits for the tables (less than the server needs to find a deadlock), and how often."""
HERE: Final = Path(__file__).parent


def move(
    path: Path,
    connections: Connections,
    clock: Clock,
    *,
    found: str,
    to: str = "head",
    further: tuple[Path, ...] = (),
) -> Path:
    """Bring the database from revision `found` to revision `to`, either way; the backup made before comes back.

    `further` are folders with more revisions. Raises UnsafeDatabase, before anything is changed, when `found` or `to`
    is no revision that this program knows: then a newer one has made the database.
    """
    config = alembic_config(further)
    scripts = ScriptDirectory.from_config(config)
    expect(scripts, found, str(path))
    _expect_known(scripts, to)
    stamp = rfc3339(clock.wall_ms()).replace(":", "").replace(".", "")
    backup = path.with_name(f"{path.name}.{found}.{stamp}.backup")
    copy(connections, backup)
    with connections.core() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        run(config, connection, scripts, found=found, to=to)
    return backup


def move_postgres(
    connections: PostgresConnections, *, to: str = "head", further: tuple[Path, ...] = ()
) -> tuple[str, str]:
    """Bring the database to revision `to`, either way; from where and to where comes back.

    Servers that work on it wait until it is done. Raises NotFound for an empty database, and before anything is
    changed UnsafeDatabase for a revision that this program does not know, and StartRefused when somebody reads on and
    on, such as a backup.
    """
    config = alembic_config(further)
    scripts = ScriptDirectory.from_config(config)
    with connections.core() as connection:
        link = PostgresLink(connection)
        _take(link)
        found = revision(link) or ("base" if table_names(link) else None)
        if found is None:
            raise NotFound(f"{connections.address} is empty", mend="a server makes the schema when it starts")
        expect(scripts, found, str(connections.address))
        _expect_known(scripts, to)
        run(config, connection, scripts, found=found, to=to)
        return found, revision(link) or "base"


def _take(link: PostgresLink) -> None:
    """Begin, and keep everybody else out of all tables.

    Not one table after the other as they are changed: a reader who has one and wants the next would wait for us, and we
    for him. So they are all taken first, and given back at once when one cannot be had.
    """
    for _ in range(_TRIES):
        link.script(postgres_schema.BEGIN)
        names = ", ".join(f'"{name}"' for name in table_names(link))
        if not names:
            return
        try:
            link.script(f"SET LOCAL lock_timeout = {_WAITS_MS}; LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        except LockNotAvailable:
            link.script("ROLLBACK")
            time.sleep(_PAUSE_S)
        else:
            link.script("SET LOCAL lock_timeout = 0")
            return
    raise StartRefused(
        "the tables are being read all the time, perhaps by a backup, so they cannot be changed",
        mend="try again when that has ended",
    )


def alembic_config(further: tuple[Path, ...]) -> Config:
    """Where the revisions lie: ours and those in the folders `further`."""
    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.set_main_option("path_separator", "newline")
    folders = (HERE / "versions", *further)
    config.set_main_option("version_locations", "\n".join(map(str, folders)))
    return config


def expect(scripts: ScriptDirectory, revision: str, database: str) -> None:
    """Raises UnsafeDatabase unless this program knows the revision."""
    try:
        scripts.get_revision(revision)
    except CommandError as error:
        raise UnsafeDatabase(
            f"{database} has schema {revision}, which this version of Overnight does not know",
            mend="upgrade Overnight, or restore the backup that was made before its upgrade",
        ) from error


def _expect_known(scripts: ScriptDirectory, target: str) -> None:
    try:
        scripts.get_revision(target)
    except CommandError as error:
        known = sorted(script.revision for script in scripts.walk_revisions())
        raise UnsafeDatabase(
            f"there is no schema {target}", mend=f"name one of: {', '.join(known)}"
        ) from error


def run(config: Config, connection: Connection, scripts: ScriptDirectory, *, found: str, to: str) -> None:
    """In the transaction that the caller has begun, which ends here: both databases take back table changes too."""
    config.attributes["connection"] = connection
    try:
        target = scripts.get_current_head() if to == "head" else to
        if target is not None and _is_behind(scripts, target, found):
            command.downgrade(config, target)
        else:
            command.upgrade(config, to)
        _say_who_may_use_it(connection, scripts, target)
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def _say_who_may_use_it(connection: Connection, scripts: ScriptDirectory, revision: str | None) -> None:
    """The oldest revision whose programs may work on the schema: its file names it as `usable_from`, or it is alone."""
    script = scripts.get_revision(revision) if revision not in (None, "base") else None
    if script is None:
        return
    oldest = getattr(script.module, "usable_from", script.revision)
    connection.execute(text("DELETE FROM installation WHERE key = :key"), {"key": USABLE_FROM})
    connection.execute(
        text("INSERT INTO installation (key, value) VALUES (:key, :oldest)"),
        {"key": USABLE_FROM, "oldest": oldest},
    )


def _is_behind(scripts: ScriptDirectory, target: str, found: str) -> bool:
    return target == "base" or (
        any(script.revision == target for script in scripts.iterate_revisions(found, "base"))
        and (target != found)
    )
