"""When a continuous run is done: the caller's pattern, matched line by line in linear time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import re2

from overnight.domain.values import Completion
from overnight.errors import InvalidPattern

MAX_LINE: Final = 10_000
"""Characters of a line that are looked at."""
_MEMORY: Final = 8 << 20


class Pattern:
    """A completion pattern in RE2 syntax: no backtracking, so no line can make it slow.

    Raises InvalidPattern that says what is wrong, also for a pattern that would match every line.
    """

    def __init__(self, pattern: str) -> None:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MEMORY
        try:
            self._compiled = re2.compile(pattern, options)
        except re2.error as error:
            raise InvalidPattern(f"{_reason(error)} in {pattern[:200]!r}", mend=_MEND) from None
        if self._compiled.search("") is not None:
            raise InvalidPattern(
                f"{pattern[:200]!r} matches an empty line, so it would complete any run",
                mend="let the pattern demand at least one character, for example ^ALL DONE$",
            )

    def find(self, lines: Iterable[str]) -> str | None:
        """The first line that matches, without surrounding blanks and cut to 500 characters; None if none does."""
        for line in lines:
            if self._compiled.search(line[:MAX_LINE]) is not None:
                return line.strip()[:500]
        return None


def find_completion(
    pattern: Pattern | None, *, added: Iterable[str], scan_lines: int, message: str
) -> Completion | None:
    """Whether the pattern is met by the lines added to the work log since the run began, or by this turn's message.

    Of the added lines the last `scan_lines` are looked at; 0 means all.
    """
    if pattern is None:
        return None
    lines = list(added)
    line = pattern.find(lines[-scan_lines:] if scan_lines else lines)
    if line is None:
        line = pattern.find(message.splitlines())
    return None if line is None else Completion(by="pattern", line=line)


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


_MEND: Final = "use RE2 syntax: no look-around and no back-references"
