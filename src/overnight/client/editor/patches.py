"""Patches in unified format as the pieces of text that an editor compares. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_PATCH: Final = 128 * 1024
"""Characters of one patch that are shown; a longer one is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One place of a file, before and after. `before` None: the file is new."""

    path: str
    before: str | None
    after: str


def pieces(patch: str) -> list[Piece]:
    """Every hunk of `patch`, in order; nothing for what is no patch, or is too long to be looked at."""
    return [] if len(patch) > MAX_PATCH else list(_pieces(patch))


def _pieces(patch: str) -> Iterator[Piece]:
    old = new = ""
    before: list[str] = []
    after: list[str] = []
    left = [0, 0]
    for line in patch.splitlines(keepends=True):
        if left == [0, 0]:
            if before or after:
                yield _piece(old, new, before, after)
                before, after = [], []
            if line.startswith("--- "):
                old = _name(line)
            elif line.startswith("+++ "):
                new = _name(line)
            elif line.startswith("@@ "):
                left = _lengths(line)
            continue
        if line[0] in " -":
            before.append(line[1:])
            left[0] = max(0, left[0] - 1)
        if line[0] in " +":
            after.append(line[1:])
            left[1] = max(0, left[1] - 1)
    if before or after:
        yield _piece(old, new, before, after)


def _piece(old: str, new: str, before: list[str], after: list[str]) -> Piece:
    path = old if new == _NOTHING else new
    made = old == _NOTHING
    git = old.startswith("a/") or made
    path = path.removeprefix("b/" if new != _NOTHING else "a/") if git else path
    return Piece(path=path, before=None if made else "".join(before), after="".join(after))


def _name(line: str) -> str:
    return line[4:].rstrip("\n").split("\t")[0].strip('"')


def _lengths(line: str) -> list[int]:
    """How many lines of the old and of the new text follow `@@ -a,b +c,d @@`."""
    try:
        ranges = line.split(" ")[1:3]
        return [int(part.split(",")[1]) if "," in part else 1 for part in ranges]
    except (ValueError, IndexError):
        return [0, 0]


_NOTHING: Final = "/dev/null"
