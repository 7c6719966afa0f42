"""Reads the text of a patch. Pure; lenient where models are careless, and exact about the line it refuses.

    *** Begin Patch
    *** Add File: PATH            then lines that begin with "+"
    *** Delete File: PATH
    *** Update File: PATH         then, perhaps, *** Move to: PATH, and chunks
    *** End Patch

A chunk begins with "@@" or "@@ CONTEXT" (which the first of a file may leave out; several in a row narrow each other
down), goes on with lines that begin with " ", "+" or "-" (an empty one is empty context), and may end with
"*** End of File".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

BEGIN: Final = "*** Begin Patch"
END: Final = "*** End Patch"
ADD: Final = "*** Add File: "
DELETE: Final = "*** Delete File: "
UPDATE: Final = "*** Update File: "
MOVE: Final = "*** Move to: "
LAST: Final = "*** End of File"

MOST_CHARACTERS: Final = 4 << 20
"""Of a whole patch."""
MOST_FILES: Final = 1000
_HEREDOC: Final = re.compile(r"<<-?\s*(?:(['\"])(?P<quoted>[A-Za-z_]\w*)\1|(?P<bare>[A-Za-z_]\w*))")

Sign = Literal[" ", "+", "-"]


class PatchInvalid(Exception):
    """The text is no patch. The message begins as the model has learnt to read it."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        where = "Invalid patch: " if line is None else f"Invalid patch hunk on line {line}: "
        super().__init__(where + reason)


@dataclass(slots=True, kw_only=True)
class Chunk:
    """A place in a file and what becomes of it. `contexts` are sought one after the other, then the old lines."""

    contexts: list[str] = field(default_factory=list)
    lines: list[tuple[Sign, str]] = field(default_factory=list)
    at_end: bool = False
    """The old lines are the last ones of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """A file with this content; whatever file is there is replaced."""

    path: str
    line: int
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """No such file any more."""

    path: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Chunks of a file are replaced; then it has another path, where `move_to` is given."""

    path: str
    line: int
    move_to: str | None
    chunks: tuple[Chunk, ...]


Operation = Add | Delete | Update


def parse(text: str) -> tuple[Operation, ...]:
    """The operations of a patch, in order; none for an empty one. Raises PatchInvalid, and nothing else."""
    if len(text) > MOST_CHARACTERS:
        raise PatchInvalid(f"it has more than {MOST_CHARACTERS} characters; send several patches")
    if "\0" in text:
        raise PatchInvalid("it holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PatchInvalid("it is not valid Unicode") from None
    lines = _unwrapped(_lines(text.strip()))
    if lines[0].strip() != BEGIN:
        raise PatchInvalid(f"the first line must be '{BEGIN}'")
    if len(lines) < 2 or lines[-1].strip() != END:
        raise PatchInvalid(f"the last line must be '{END}'")
    return _Reader(lines).operations()


def _lines(text: str) -> list[str]:
    """A patch that travelled with CRLF line ends is read as if it had not; a single CR is content."""
    lines = text.split("\n")
    if len(lines) > 1 and all(line.endswith("\r") for line in lines[:-1]):
        return [line.removesuffix("\r") for line in lines]
    return lines


def _unwrapped(lines: list[str]) -> list[str]:
    """Without the heredoc that some models write around the patch."""
    opening = _HEREDOC.fullmatch(lines[0].strip())
    if opening is None or len(lines) < 4:
        return lines
    word = opening["quoted"] or opening["bare"]
    return lines[1:-1] if lines[-1].strip() == word else lines


class _Reader:
    """Stands before one line of the patch; numbers count from its first line, which is 1."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 1
        self._end = len(lines) - 1

    def operations(self) -> tuple[Operation, ...]:
        found: list[Operation] = []
        while self._at < self._end:
            if not self._line.strip():
                self._at += 1
                continue
            found.append(self._operation())
            if len(found) > MOST_FILES:
                raise PatchInvalid(f"it changes more than {MOST_FILES} files; send several patches")
        return tuple(found)

    @property
    def _line(self) -> str:
        return self._lines[self._at]

    @property
    def _number(self) -> int:
        return self._at + 1

    def _operation(self) -> Operation:
        header, number = self._line.strip(), self._number
        self._at += 1
        for mark in (ADD, DELETE, UPDATE):
            if header.startswith(mark.rstrip()) and not header.removeprefix(mark.rstrip()).strip():
                raise PatchInvalid(f"'{mark.strip()}' names no file", number)
        if header.startswith(ADD):
            return Add(path=header.removeprefix(ADD).strip(), line=number, content=self._added())
        if header.startswith(DELETE):
            return Delete(path=header.removeprefix(DELETE).strip(), line=number)
        if header.startswith(UPDATE):
            return self._update(header.removeprefix(UPDATE).strip(), number)
        raise PatchInvalid(
            f"'{header[:200]}' begins no file; expected '{ADD}PATH', '{DELETE}PATH' or '{UPDATE}PATH'", number
        )

    def _added(self) -> str:
        start = self._at
        while self._at < self._end and self._line.startswith("+"):
            self._at += 1
        return "".join(f"{line[1:]}\n" for line in self._lines[start : self._at])

    def _update(self, path: str, number: int) -> Update:
        move_to = None
        if self._at < self._end and self._line.startswith(MOVE):
            move_to = self._line.removeprefix(MOVE).strip()
            if not move_to:
                raise PatchInvalid(f"'{MOVE.strip()}' names no file", self._number)
            self._at += 1
        chunks: list[Chunk] = []
        while self._at < self._end and (not self._line.strip() or not self._line.startswith("***")):
            if self._line.strip():
                chunks.append(self._chunk(first=not chunks))
            else:
                self._at += 1
        if not chunks and move_to is None:
            raise PatchInvalid(f"the update of '{path[:200]}' has no chunks", number)
        return Update(path=path, line=number, move_to=move_to, chunks=tuple(chunks))

    def _chunk(self, *, first: bool) -> Chunk:
        chunk, number = Chunk(), self._number
        headers = self._contexts(chunk)
        if not headers and not first:
            raise PatchInvalid(f"a chunk begins with '@@', not with '{self._line[:200]}'", number)
        while self._at < self._end and self._take(chunk):
            self._at += 1
        if self._at < self._end and self._line.rstrip() == LAST and chunk.lines:
            chunk.at_end = True
            self._at += 1
        if not chunk.lines:
            self._refuse_empty(number)
        return chunk

    def _contexts(self, chunk: Chunk) -> int:
        """How many "@@" lines there were."""
        found = 0
        while self._at < self._end:
            line = self._line.rstrip()
            if line != "@@" and not line.startswith("@@ "):
                break
            if context := line[3:]:
                chunk.contexts.append(context)
            elif found:
                break
            found += 1
            self._at += 1
        return found

    def _take(self, chunk: Chunk) -> bool:
        """Whether the line belongs to the chunk; then it does."""
        line = self._line
        if not line:
            chunk.lines.append((" ", ""))
        elif line[0] == " ":
            chunk.lines.append((" ", line[1:]))
        elif line[0] == "+":
            chunk.lines.append(("+", line[1:]))
        elif line[0] == "-":
            chunk.lines.append(("-", line[1:]))
        else:
            return False
        return True

    def _refuse_empty(self, number: int) -> None:
        if self._at < self._end and not self._line.startswith("***"):
            raise PatchInvalid(
                f"'{self._line[:200]}' is no line of a chunk, which begins with ' ', '+' or '-'",
                self._number,
            )
        raise PatchInvalid("the chunk has no lines", number)
