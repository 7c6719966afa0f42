"""`overnight upgrade`: let this version take over from the server that runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from overnight.cli.exits import Exit
from overnight.cli.options import JsonFlag, duration
from overnight.cli.output import emit, say, show

if TYPE_CHECKING:
    from overnight.compose.upgrade import Outcome, Told


def upgrade(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and try the new schema on a copy.")
    ] = False,
    restart_command: Annotated[
        str,
        typer.Option(
            "--restart-command", metavar="COMMAND", help='As in "systemctl --user restart overnight".'
        ),
    ] = "",
    stop_command: Annotated[
        str,
        typer.Option(
            "--stop-command",
            metavar="COMMAND",
            help="Stops what that command started. Default: its `systemctl … stop`.",
        ),
    ] = "",
    rollback_command: Annotated[
        str,
        typer.Option(
            "--rollback-command", metavar="COMMAND", help="Starts the old version again in its stead."
        ),
    ] = "",
    within: Annotated[
        str, typer.Option("--within", metavar="DURATION", help="How long the new server may take.")
    ] = "60s",
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="On Postgres: the copy was made by its own tools.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let this version take over from the server that runs; back again if that fails.

    In this order: copy, handover, new schema, start, /readyz. Agents work on all the while. If
    the new version does not come up, the old one serves again, with everything that was written meanwhile. Exit
    status 1: it did not come to it, and the old version serves. 4: nothing serves.
    """
    from overnight.compose import upgrade as upgrading
    from overnight.compose.upgrade.journal import Journal
    from overnight.config.settings import load

    options = upgrading.Options(
        restart_command=_words(restart_command), stop_command=_words(stop_command),
        rollback_command=_words(rollback_command), within_s=duration(within), dry_run=dry_run,
        copying=not no_backup,
    )  # fmt: skip
    settings = load()
    journal = Journal(settings.data_dir)
    journal.take()
    try:
        plan = upgrading.planned(settings, options, journal)
        tell = _emitted if as_json else _shown
        tell(upgrading.Told(step="plan", state="done", message=plan.words()))
        outcome = upgrading.carried_out(plan, journal, tell)
    finally:
        journal.release()
    _end(outcome, as_json=as_json)


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise typer.BadParameter(f"{command!r} is not a command: {error}") from None


def _emitted(told: Told) -> None:
    emit(told.to_json())


def _shown(told: Told) -> None:
    if told.state == "done":
        show(f"{told.step}: {told.message}")
    elif told.state == "failed":
        say(f"{told.step} failed: {told.message}")


def _end(outcome: Outcome, *, as_json: bool) -> None:
    words, status = {
        "upgraded": ("the new version serves", Exit.DONE),
        "nothing_to_do": ("nothing to do", Exit.DONE),
        "planned": ("nothing was changed", Exit.DONE),
        "refused": ("nothing was changed; what served before serves", Exit.FAILED),
        "rolled_back": ("rolled back: the old version serves again", Exit.FAILED),
        "down": (
            "NOTHING SERVES. Put right what is said above, then again: overnight upgrade",
            Exit.UNREACHABLE,
        ),
    }[outcome.value]
    if as_json:
        emit({"step": "end", "state": outcome.value, "message": words})
    else:
        say(words)
    raise typer.Exit(status)
