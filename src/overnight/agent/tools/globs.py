"""Patterns of paths as git has them, made into linear-time regular expressions: they come from strangers. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import re2

MOST_PATTERNS: Final = 2000
"""Of one file that says what to ignore."""
_LONGEST: Final = 1000


Pattern = tuple[Any, bool, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """What one `.gitignore` says: the last pattern that fits a path decides."""

    patterns: tuple[Pattern, ...]
    """Expression, whether it ignores (or brings back), whether it means folders alone."""

    def says(self, path: str, *, folder: bool) -> bool | None:
        """Whether `path`, relative to the folder of that file, is ignored; None when nothing is said of it."""
        for expression, ignores, folders in reversed(self.patterns):
            if (folder or not folders) and expression.fullmatch(path) is not None:
                return ignores
        return None


def read_ignored(lines: Iterable[str]) -> Ignored:
    """The patterns in a `.gitignore`; what cannot be understood is left out."""
    found: list[Pattern] = []
    for line in lines:
        text = line.rstrip("\r\n")
        text = text if text.endswith("\\ ") else text.rstrip(" ")
        if not text or text.startswith("#") or len(text) > _LONGEST:
            continue
        ignores = not text.startswith("!")
        text = text if ignores else text[1:]
        folders = text.endswith("/")
        text = text.rstrip("/")
        if not text:
            continue
        anchored = "/" in text
        body = _expression(text.removeprefix("/"))
        if body is not None:
            found.append((_compiled(body, anywhere=not anchored), ignores, folders))
        if len(found) == MOST_PATTERNS:
            break
    return Ignored(patterns=tuple(found))


@functools.lru_cache(maxsize=64)
def glob(pattern: str) -> tuple[Any, ...]:
    """The expressions for a glob, which braces may make several; a path fits if one does. Raises ValueError.

    A pattern without a slash is about names, wherever they lie.
    """
    found = []
    for each in _alternatives(pattern):
        body = _expression(each.removeprefix("/"))
        if body is None or not each.strip("/"):
            raise ValueError(f"{pattern[:200]!r} is no pattern of paths")
        found.append(_compiled(body, anywhere="/" not in each.rstrip("/")))
    return tuple(found)


def _alternatives(pattern: str) -> list[str]:
    found = [pattern]
    for _ in range(8):
        braces = [re.search(r"\{([^{}]*)\}", each) for each in found]
        if not any(braces) or len(found) > 64:
            break
        found = [
            text
            for each, brace in zip(found, braces, strict=True)
            for text in (
                [each]
                if brace is None
                else [each[: brace.start()] + choice + each[brace.end() :] for choice in brace[1].split(",")]
            )
        ]
    return found


def _expression(pattern: str) -> str | None:
    """None for one that is no pattern."""
    if len(pattern) > _LONGEST:
        return None
    parts = pattern.split("/")
    out: list[str] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            out.append(".+" if last else "(?:.*/)?")
            continue
        body = _name(part)
        if body is None:
            return None
        out.append(body + ("" if last else "/"))
    return "".join(out)


def _name(part: str) -> str | None:
    out: list[str] = []
    at = 0
    while at < len(part):
        sign = part[at]
        at += 1
        if sign == "*":
            out.append("[^/]*")
        elif sign == "?":
            out.append("[^/]")
        elif sign == "\\" and at < len(part):
            out.append(re2.escape(part[at]))
            at += 1
        elif sign == "[":
            end = part.find("]", at + 2 if part[at : at + 1] in {"!", "^"} else at + 1)
            if end < 0:
                return None
            out.append(_class(part[at:end]))
            at = end + 1
        else:
            out.append(re2.escape(sign))
    body = "".join(out)
    return body if _compiled(body, anywhere=False) is not None else None


def _class(inside: str) -> str:
    negated = inside[:1] in {"!", "^"}
    signs = "".join(
        f"\\{sign}" if sign in "\\[]^&~" else sign for sign in (inside[1:] if negated else inside)
    )
    return f"[{'^/' if negated else ''}{signs}]"


def _compiled(body: str, *, anywhere: bool) -> Any:
    """None where it is no expression."""
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.never_capture = True
    try:
        return re2.compile(f"(?:.*/)?{body}" if anywhere else body, options)
    except re2.error:
        return None
