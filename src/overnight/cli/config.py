"""`overnight config`: the settings in force."""

from __future__ import annotations

from typing import Any

from overnight.cli.app import new_app
from overnight.cli.options import JsonFlag
from overnight.cli.output import columns, emit, say

app = new_app(help="The settings in force, and where each came from.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    return None


@app.command("show")
def show_config(as_json: JsonFlag = False) -> None:
    """Every setting with its value and where it came from; secrets are masked."""
    from overnight.config.settings import load

    settings = load()
    rows: list[dict[str, Any]] = list(settings.shown())
    if as_json:
        for row in rows:
            emit(row)
        return
    columns(("SETTING", "FROM", "VALUE"), ((row["key"], row["origin"], _text(row["value"])) for row in rows))
    file = settings.sources.file
    say(f"file: {file.path}" if file else "file: none")
    for name in settings.sources.strangers():
        say(f"{name} is set, but there is no such setting")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return " ".join(value) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
