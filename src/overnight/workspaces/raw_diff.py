"""Reads what `git diff-tree --raw --numstat -z` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["created", "modified", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One changed file. `blob` is its new content, None when it is deleted; binary files count no lines."""

    path: str
    kind: Kind
    blob: str | None
    added: int
    removed: int


def read_entries(output: bytes) -> list[Entry]:
    """All entries, in git's order. Paths that are no UTF-8 are shown with replacement characters."""
    fields = output.split(b"\0")[:-1]
    raw: list[tuple[bytes, Kind, str | None]] = []
    lines: dict[bytes, tuple[int, int]] = {}
    at = 0
    while at < len(fields):
        if fields[at].startswith(b":") and at + 1 < len(fields):
            parts = fields[at].split(b" ")
            raw.append((fields[at + 1], _kind(parts[4]), None if parts[4] == b"D" else parts[3].decode()))
            at += 2
        else:
            added, removed, path = fields[at].split(b"\t", 2)
            lines[path] = (_number(added), _number(removed))
            at += 1
    return [_entry(path, kind, blob, lines.get(path, (0, 0))) for path, kind, blob in raw]


def _entry(path: bytes, kind: Kind, blob: str | None, lines: tuple[int, int]) -> Entry:
    name = path.decode("utf-8", "replace")
    return Entry(path=name, kind=kind, blob=blob, added=lines[0], removed=lines[1])


def _kind(letter: bytes) -> Kind:
    kinds: dict[bytes, Kind] = {b"A": "created", b"D": "deleted"}
    return kinds.get(letter, "modified")


def _number(field: bytes) -> int:
    return int(field) if field.isdigit() else 0
