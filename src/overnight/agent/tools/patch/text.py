"""A file's bytes as lines and back. What a patch does not name stays as it was, byte for byte. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from overnight.agent.tools.patch.fit import Replacement

LineEnd = Literal["\n", "\r\n"]
_MARK = "\ufeff"


class NotText(Exception):
    """The bytes are no text that can be patched by lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Lines without their ends, and each end beside it; the last may have none."""

    lines: tuple[str, ...]
    ends: tuple[str, ...]
    mark: str
    """A byte order mark, where the file begins with one."""

    @property
    def usual_end(self) -> LineEnd:
        """What most lines end with."""
        return "\r\n" if self.ends.count("\r\n") > self.ends.count("\n") else "\n"


def decode(data: bytes) -> str:
    """Text in UTF-8; bytes that are none are kept apart and come back as they were. Raises NotText for binary."""
    if b"\0" in data:
        raise NotText("it is a binary file")
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The inverse of `decode`."""
    return text.encode("utf-8", "surrogateescape")


def split(text: str) -> Text:
    """Lines end at LF alone; a CR before it belongs to the end."""
    mark = _MARK if text.startswith(_MARK) else ""
    pieces = text[len(mark) :].split("\n")
    rest = pieces.pop()
    lines = [piece.removesuffix("\r") for piece in pieces]
    ends = ["\r\n" if piece.endswith("\r") else "\n" for piece in pieces]
    if rest:
        lines.append(rest)
        ends.append("")
    return Text(lines=tuple(lines), ends=tuple(ends), mark=mark)


def apply(text: Text, replacements: Sequence[Replacement]) -> str:
    """The new text. `replacements` are in order and do not overlap. Every line ends, the last one too."""
    end = text.usual_end
    out: list[str] = [text.mark]
    at = 0
    for each in replacements:
        out += _kept(text, range(at, each.start), end)
        for line in each.lines:
            if isinstance(line, int):
                out += _kept(text, range(line, line + 1), end)
            else:
                out.append((line.removesuffix("\r") if end == "\r\n" else line) + end)
        at = each.stop
    out += _kept(text, range(at, len(text.lines)), end)
    return "".join(out)


def _kept(text: Text, numbers: range, end: str) -> list[str]:
    return [text.lines[number] + (text.ends[number] or end) for number in numbers]
