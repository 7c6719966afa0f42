"""The text view of what programs print: no escape sequences, no controls, nothing that reorders what is shown."""

from __future__ import annotations

import re
from typing import Final

_STRINGS: Final = r"\x1b[\]PX^_][^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\|\x9c)"
_C1_STRINGS: Final = r"[\x90\x98\x9d-\x9f][^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\|\x9c)"
_CSI: Final = r"(?:\x1b\[|\x9b)[0-?]{0,256}[ -/]{0,16}[@-~]"
_SHORT: Final = r"\x1b[ -/]{0,4}[0-Z\\-~]"
_CONTROLS: Final = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
_ORDER: Final = (
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
"""Bidirectional controls, separators that pass for line ends, invisible tags."""
_HIDDEN: Final = re.compile(f"{_STRINGS}|{_C1_STRINGS}|{_CSI}|{_SHORT}|{_CONTROLS}|[{_ORDER}]")
_RETURNS: Final = re.compile(r"\r+\n?")
_SUSPECT: Final = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_ORDER}]")


def plain(text: str) -> str:
    """`text` without escape sequences, control characters and bidirectional controls; tabs and line ends stay.

    A carriage return becomes a line end. A sequence that is not finished on its line loses only its introducer, so
    that nothing behind it can be hidden.
    """
    if _SUSPECT.search(text) is None:
        return text
    return _HIDDEN.sub("", _RETURNS.sub("\n", text))


def first_line(text: str, limit: int = 200) -> str:
    """The first line of `text` that says something, on one line of at most `limit` characters."""
    for line in text.splitlines():
        if said := " ".join(plain(line).split()):
            return said if len(said) <= limit else said[: limit - 1] + "…"
    return ""


def cut_utf8(text: str, limit: int) -> str:
    """The longest start of `text` that takes at most `limit` bytes of UTF-8; never half a character."""
    if len(text) * 4 <= limit:
        return text
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def tail_utf8(text: str, limit: int) -> str:
    """The longest end of `text` that takes at most `limit` bytes of UTF-8; never half a character."""
    if len(text) * 4 <= limit:
        return text
    return text.encode("utf-8", "replace")[-limit:].decode("utf-8", "ignore")
