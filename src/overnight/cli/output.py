"""Data goes to stdout, words go to stderr; neither carries anything that a terminal would obey."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from overnight.domain.text import plain

_LEAST: Final = 12
"""Cells of a last column that are worth showing."""


def emit(document: object) -> None:
    """One JSON object on one line of stdout; in pure ASCII on a terminal, so that nothing in it is obeyed."""
    text = json.dumps(document, ensure_ascii=sys.stdout.isatty(), separators=(",", ":"))
    sys.stdout.write(text.encode("utf-8", "replace").decode() + "\n")
    sys.stdout.flush()


def show(text: str = "") -> None:
    """A line (or several) of human output on stdout, without escapes and controls."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Words for the person on stderr, without escapes and controls."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table as wide as it needs to be. On a terminal the last column is cut to fit, where enough of it is left."""
    table = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(cells(row[i]) for row in table) for i in range(len(head))]
    room = _room(widths)
    for row in table:
        *firsts, last = row
        padded = [cell + " " * (width - cells(cell)) for cell, width in zip(firsts, widths, strict=False)]
        show("  ".join([*padded, last if room is None else fitted(last, room)]).rstrip())


def columns_of_terminal() -> int | None:
    """The width of the terminal that stdout is; None where it is none, so that nothing needs to fit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _room(widths: Sequence[int]) -> int | None:
    """Cells for the last column; None for as many as it likes."""
    wide = columns_of_terminal()
    if wide is None:
        return None
    room = wide - sum(widths[:-1]) - 2 * (len(widths) - 1)
    # A terminal that is too narrow for the table wraps it: nothing is hidden.
    return room if room >= min(_LEAST, widths[-1]) else None


def fitted(text: str, room: int) -> str:
    """`text` in at most `room` cells."""
    if cells(text) <= room:
        return text
    taken = 0
    for at, character in enumerate(text):
        taken += cells(character)
        if taken > room - 1:
            return text[:at] + "…"
    return text


def cells(text: str) -> int:
    """How many columns of a terminal `text` takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; empty values are left out."""
    shown = [(name, _cell(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((cells(name) for name, _ in shown), default=0)
    for name, value in shown:
        show(f"{name.ljust(width)}  {value}")


def ago(at: object) -> str:
    """How long ago an RFC 3339 time was, in one figure."""
    if not isinstance(at, str):
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    return span(max(0.0, seconds))


def span(seconds: float) -> str:
    """A duration in its largest unit or two: `8s`, `3m12s`, `2h05m`, `4d03h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def count(number: object) -> str:
    """A count in at most five characters: `950`, `12.3k`, `4.1M`."""
    if not isinstance(number, int | float):
        return ""
    if number < 1000:
        return str(int(number))
    return f"{number / 1000:.1f}k" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"


def _cell(value: object) -> str:
    return " ".join(plain(str(value)).split()) if value is not None else ""
