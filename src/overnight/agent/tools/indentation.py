"""Finds the block of lines around a line by how they are indented. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

TAB: Final = 4
"""Columns of a tab, and of one level."""
_COMMENTS: Final = ("#", "//", "--")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How much around the line. `max_levels` 0 is no limit; `max_lines` counts the line itself."""

    max_levels: int = 0
    include_siblings: bool = False
    include_header: bool = True
    max_lines: int


def block(lines: Sequence[str], anchor: int, wanted: Wanted) -> range:
    """The numbers of the lines of the block around line number `anchor` (from 0), blank edges left out."""
    indents = _indents(lines)
    floor = max(0, indents[anchor] - TAB * wanted.max_levels) if wanted.max_levels else 0
    above = _Side(lines, indents, anchor, -1, floor, wanted)
    below = _Side(lines, indents, anchor, 1, floor, wanted)
    taken = 1
    while taken < wanted.max_lines and (above.open or below.open):
        for side in (above, below):
            if taken < wanted.max_lines:
                taken += side.grow()
    return _trimmed(lines, above.last, below.last)


class _Side:
    """One end of the block, and whether it can still grow."""

    def __init__(
        self, lines: Sequence[str], indents: Sequence[int], anchor: int, step: Literal[-1, 1], floor: int,
        wanted: Wanted,
    ) -> None:  # fmt: skip
        self._lines = lines
        self._indents = indents
        self._step = step
        self._floor = floor
        self._wanted = wanted
        self._at_floor = 0
        self.last = anchor
        self.open = True

    def grow(self) -> int:
        """How many lines were taken: one or none."""
        following = self.last + self._step
        self.open = self.open and 0 <= following < len(self._lines) and self._may_take(following)
        if self.open:
            self.last = following
        return int(self.open)

    def _may_take(self, number: int) -> bool:
        """Behind the one line at the least indent only comments above it follow; blank lines are no such line."""
        if self._indents[number] < self._floor:
            return False
        if self._wanted.include_siblings:
            return True
        if self._at_floor:
            return self._indents[number] == self._floor and self._is_header(number)
        self._at_floor = int(self._indents[number] == self._floor and bool(self._lines[number].strip()))
        return True

    def _is_header(self, number: int) -> bool:
        above = self._step < 0 and self._wanted.include_header
        return above and self._lines[number].strip().startswith(_COMMENTS)


def _indents(lines: Sequence[str]) -> list[int]:
    """Columns before the text of each line; a blank one has those of the line above."""
    found: list[int] = []
    for line in lines:
        text = line.lstrip(" \t")
        if text:
            found.append(sum(TAB if sign == "\t" else 1 for sign in line[: len(line) - len(text)]))
        else:
            found.append(found[-1] if found else 0)
    return found


def _trimmed(lines: Sequence[str], first: int, last: int) -> range:
    while first < last and not lines[first].strip():
        first += 1
    while last > first and not lines[last].strip():
        last -= 1
    return range(first, last + 1)
