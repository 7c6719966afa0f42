"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer


def complete_runs(incomplete: str) -> list[str]:
    """Ids of recent runs, for the shell; nothing when no server answers."""
    from overnight.cli.connect import call
    from overnight.errors import OvernightError

    try:
        page = call(lambda client: client.runs(limit=50))
    except (OvernightError, OSError):
        return []
    return [run["id"] for run in page["items"] if run["id"].startswith(incomplete)]


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
NoInputFlag = Annotated[
    bool,
    typer.Option(
        "--no-input", help="Ask nothing at the terminal: a run that waits for a person ends the command."
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Id of a run, the beginning or the end of one if it is unique, or `last`.",
        autocompletion=complete_runs,
    ),
]
RunArguments = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="Ids of runs, as for `show`.", autocompletion=complete_runs),
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|)", re.ASCII)
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(text: str) -> float:
    """Seconds of `90`, `60s`, `5m`, `2h` or `1d`. Raises BadParameter."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter("a duration looks like 90s, 5m, 2h or 1d")
    return float(match[1]) * _UNIT_S[match[2]]


_BUDGET = re.compile(
    r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<scale>[km]?)\s*(?P<unit>usd|tok|tokens)", re.ASCII | re.IGNORECASE
)


def budgets(texts: list[str]) -> dict[str, float | int]:
    """The limits behind `5usd` and `2000tokens` (`200k tokens`). Raises BadParameter."""
    limits: dict[str, float | int] = {}
    for text in texts:
        match = _BUDGET.fullmatch(text.strip())
        if match is None or not float(match["amount"]):
            raise typer.BadParameter("a budget looks like 5usd or 200000tokens")
        amount = float(match["amount"]) * {"": 1, "k": 1_000, "m": 1_000_000}[match["scale"].lower()]
        if match["unit"].lower() == "usd":
            limits["cost_usd"] = amount
        else:
            limits["tokens"] = int(amount)
    return limits


def pairs(texts: list[str], what: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a table. Raises BadParameter."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{what} looks like NAME=VALUE")
        found[name] = value
    return found
