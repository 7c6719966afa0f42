"""`overnight doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

from typing import Any

import typer

from overnight.cli.options import JsonFlag
from overnight.cli.output import columns, emit, say


def doctor(as_json: JsonFlag = False) -> None:
    """Look for what is wrong with this installation, and say how to mend it.

    Asks the running server; without one, looks by itself. Exit status 1 if something fails.
    """
    found = _facts()
    checks = found.get("checks", [])
    if as_json:
        for check in checks:
            emit(check)
    else:
        columns(
            ("CHECK", "STATUS", "FOUND"), ((c["name"], c["status"], c.get("message", "")) for c in checks)
        )
        for check in checks:
            if check["status"] != "ok" and check.get("mend"):
                say(f"{check['name']}: {check['mend']}")
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(1)


def _facts() -> dict[str, Any]:
    from overnight.cli.connect import call
    from overnight.errors import Unreachable

    try:
        return call(lambda client: client.doctor())
    except Unreachable:
        say("no server runs; looking without one")
    from overnight.compose.diagnosis import diagnose
    from overnight.config.settings import load

    return dict(diagnose(load()))
