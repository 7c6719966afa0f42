"""Finds where the chunks of a patch fit a file's lines, and makes the new lines. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from overnight.agent.tools.patch.grammar import Chunk

MOST_COMPARED: Final = 20_000_000
"""Lines that fitting one file may compare: a patch made to cost more is refused."""
_SHOWN: Final = 4000
"""Characters of lines that were not found, in a message."""

_DASHES: Final = "‐‑‒–—―−"  # noqa: RUF001  that is what people type
_QUOTES: Final = {"‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "‟": '"'}  # noqa: RUF001
_SPACES: Final = "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_PLAIN: Final = str.maketrans(
    {**dict.fromkeys(_DASHES, "-"), **_QUOTES, **dict.fromkeys(_SPACES, " "), "\ufeff": ""}
)


class Unfit(Exception):
    """The file does not have what the patch expects; the message says what."""


def _as_it_is(line: str) -> str:
    return line


def _plain(line: str) -> str:
    return line.strip().translate(_PLAIN).strip()


PASSES: Final[tuple[Callable[[str], str], ...]] = (_as_it_is, str.rstrip, str.strip, _plain)
"""How lines are compared, strictest first: a looser way is tried only when the ones before found nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """The lines from `start` to `stop` become these; a kept line is the file's own, named by its number."""

    start: int
    stop: int
    lines: tuple[str | int, ...]


def fit(path: str, lines: Sequence[str], chunks: Sequence[Chunk]) -> list[Replacement]:
    """Where each chunk goes, in the order of the file. Raises Unfit."""
    file = _File(lines)
    found: list[Replacement] = []
    at = 0
    for chunk in chunks:
        for context in chunk.contexts:
            place = file.seek([context], at)
            if place is None:
                raise Unfit(f"Failed to find context '{context[:500]}' in {path}")
            at = place + 1
        replacement = _place(file, chunk, at)
        if replacement is None:
            wanted = "\n".join(text for sign, text in chunk.lines if sign != "+")
            raise Unfit(f"Failed to find expected lines in {path}:\n{wanted[:_SHOWN]}")
        found.append(replacement)
        if replacement.stop > replacement.start:
            at = replacement.stop
    # Where nothing is taken away lines go to the end of the file, whatever comes after them in the patch.
    return sorted(found, key=lambda each: (each.start, each.stop))


def _place(file: _File, chunk: Chunk, at: int) -> Replacement | None:
    lines = list(chunk.lines)
    old = [text for sign, text in lines if sign != "+"]
    place = file.seek(old, at, at_end=chunk.at_end)
    while place is None and old and old[-1] == "":
        # An empty line behind a chunk was meant to part it from the next one; or the file's last line end is meant.
        del lines[max(number for number, (sign, _) in enumerate(lines) if sign != "+")]
        old.pop()
        place = file.seek(old, at, at_end=chunk.at_end)
    if not old:
        end = len(file.lines)
        return Replacement(start=end, stop=end, lines=tuple(text for _, text in lines))
    if place is None:
        return None
    made: list[str | int] = []
    number = place
    for sign, text in lines:
        if sign == "+":
            made.append(text)
            continue
        if sign == " ":
            made.append(number)
        number += 1
    return Replacement(start=place, stop=number, lines=tuple(made))


class _File:
    """A file's lines in each of the ways to compare them, made when first wanted."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        self._ways: dict[int, list[str]] = {}
        self._compared = 0

    def seek(self, wanted: Sequence[str], start: int, *, at_end: bool = False) -> int | None:
        """Where `wanted` stands at or behind `start` (or as the last lines); None when it does not, or is nothing."""
        if not wanted:
            return None
        last = len(self.lines) - len(wanted)
        first = last if at_end else start
        if first < start or last < first:
            return None
        for way, change in enumerate(PASSES):
            found = self._search(self._way(way), [change(line) for line in wanted], first, last)
            if found is not None:
                return found
        return None

    def _way(self, way: int) -> list[str]:
        if way not in self._ways:
            change = PASSES[way]
            self._ways[way] = self.lines if way == 0 else [change(line) for line in self.lines]
        return self._ways[way]

    def _search(self, lines: list[str], wanted: list[str], first: int, last: int) -> int | None:
        """List search and slices compare at the speed of C."""
        at = first
        while at <= last:
            try:
                candidate = lines.index(wanted[0], at, last + 1)
            except ValueError:
                self._spend(last + 1 - at)
                return None
            self._spend(candidate - at + len(wanted))
            if lines[candidate : candidate + len(wanted)] == wanted:
                return candidate
            at = candidate + 1
        return None

    def _spend(self, lines: int) -> None:
        self._compared += lines
        if self._compared > MOST_COMPARED:
            raise Unfit("Invalid patch: finding its place in the file takes too long; name more context")
