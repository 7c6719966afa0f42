"""What a shell line may run, as far as its words tell. For rules that forbid: it rather reads too much. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MOST_WORDS: Final = 256
"""Of a command that runs another one; a longer one may run anything."""
MOST_READ: Final = 32_768
"""Characters of a line; a longer one may run anything."""
MOST_DEPTH: Final = 3
"""Of lines within lines."""
_PUNCTUATION: Final = ";&|()<>\n"
_RUNNERS: Final = frozenset({
    "env", "sudo", "doas", "su", "nohup", "time", "nice", "ionice", "command", "exec", "builtin", "stdbuf", "setsid",
    "timeout", "xargs", "parallel", "find", "watch", "ssh", "busybox", "eval", "source", ".", "coproc", "function",
    "sh", "bash", "zsh", "dash", "ksh", "ash", "fish",
    "if", "then", "else", "elif", "while", "until", "do", "case", "in", "{", "!",
})  # fmt: skip
"""Words behind which another command may follow."""
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_NESTED: Final = re.compile(r"\$\(|`|[<>]\(")
_QUOTES: Final = str.maketrans("", "", "\"'\\")
_PLAIN: Final = frozenset({"[", "[[", "{", "}", "{}"})
_COMPUTED: Final = re.compile(r"[$`{}*?\[\]]")

Fits = Callable[[str, str], bool]
"""Whether a word is what a pattern asks for."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One command, as its words. `anywhere`: it may run what begins at any of its words."""

    words: tuple[str, ...]
    anywhere: bool = False

    def lines(self) -> Iterator[str]:
        """What it says, and what it may run, each as one line with single spaces."""
        for start in range(len(self.words) if self.anywhere else 1):
            yield " ".join(self.words[start:])
            yield " ".join((_base(self.words[start]), *self.words[start + 1 :]))

    def says(self, wanted: Sequence[str], fits: Fits, *, more: bool) -> bool:
        """Whether it is `wanted`, with options in between, and any further words if `more`."""
        at = {i + 1 for i in self._starts if self._is_named(self.words[i], wanted, fits)}
        for pattern in wanted[1:]:
            at = {i + 1 for i in self._passed(at) if fits(self.words[i], pattern)}
        return bool(at) if more else len(self.words) in at

    def could_say(self, wanted: Sequence[str], fits: Fits) -> bool:
        """Whether it may turn out to begin like `wanted` once the shell has made words of it."""
        if self.is_computed:
            return True
        at = {i + 1 for i in self._starts if self._is_named(self.words[i], wanted, fits)}
        for pattern in wanted[1:]:
            reached = list(self._passed(at))
            if any(_COMPUTED.search(self.words[i]) for i in reached):
                return True
            at = {i + 1 for i in reached if fits(self.words[i], pattern)}
        return False

    @property
    def is_computed(self) -> bool:
        """Whether the shell makes up which program it runs."""
        if self is ANYTHING:
            return True
        name = self.words[0]
        if not self.anywhere:
            return name not in _PLAIN and _COMPUTED.search(_base(name)) is not None
        pairs = pairwise(self.words)
        return any("$" in _base(word) and (before in _RUNNERS or before[0] == "-") for before, word in pairs)

    @property
    def _starts(self) -> range:
        return range(len(self.words) if self.anywhere else 1)

    def _is_named(self, word: str, wanted: Sequence[str], fits: Fits) -> bool:
        return not wanted or fits(word, wanted[0]) or fits(_base(word), wanted[0])

    def _passed(self, at: set[int]) -> Iterator[int]:
        """Where the next word may stand: an option may come first, with a value or without."""
        reached = set(at)
        for i in range(min(at, default=0), len(self.words)):
            if i in reached:
                yield i
                if self.words[i].startswith("-"):
                    reached |= {i + 1, i + 2}


ANYTHING: Final = Reading(("$",), anywhere=True)


def readings(line: str, depth: int = 0) -> Iterator[Reading]:
    """Every command that `line` may run."""
    if depth > MOST_DEPTH or len(line) > MOST_READ:
        yield ANYTHING
        return
    line = line.replace("\\\n", "")
    for words in _commands(_tokens(line)):
        yield from _reading(words, depth)
    if depth == 0 and _NESTED.search(line):
        for words in _commands(_tokens(_NESTED.sub("\n", _unquoted(line)))):
            yield from _reading(words, depth)


def _reading(words: list[str], depth: int) -> Iterator[Reading]:
    while len(words) > 1 and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    runs = _base(words[0]) in _RUNNERS
    yield ANYTHING if runs and len(words) > MOST_WORDS else Reading(tuple(words), anywhere=runs)
    for word in words[1:] if runs else ():
        if set(word) & set(" \t" + _PUNCTUATION):
            yield from readings(word, depth + 1)


def _commands(tokens: Sequence[str]) -> Iterator[list[str]]:
    """The words between what parts commands; redirections are left out."""
    words: list[str] = []
    target = False
    for token in tokens:
        signs = set(token)
        if not signs <= set(_PUNCTUATION):
            words += [] if target else [token]
            target = False
        elif signs & set("<>") and signs <= set("<>&|"):
            target = True
            words = words[:-1] if words and words[-1].isdigit() else words
        else:
            target = False
            if words:
                yield words
            words = []
    if words:
        yield words


def _tokens(line: str) -> list[str]:
    """As a shell would part it; where its quotes do not fit together, without them."""
    for text in (line, _unquoted(line)):
        parts = shlex.shlex(text, posix=True, punctuation_chars=_PUNCTUATION)
        parts.whitespace, parts.whitespace_split, parts.commenters = " \t\r", True, ""
        try:
            return list(filter(None, parts))
        except ValueError:
            continue
    return []


def _unquoted(line: str) -> str:
    return line.translate(_QUOTES)


def _base(word: str) -> str:
    return word.rsplit("/", 1)[-1] or word
