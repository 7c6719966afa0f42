"""Shell calls that are really patches: models write them, and they are carried out as patches. Pure.

Taken for one is `apply_patch TEXT`, and a script that is exactly `[cd DIR &&] apply_patch <<'WORD'`, the patch and
`WORD`. Anything more (`;`, `||`, `|`, further arguments, a second `cd`, commands behind it) is left to the shell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

NAMES: Final = ("apply_patch", "applypatch")
_SHELLS: Final = frozenset({"bash", "sh", "zsh"})
_RUN: Final = frozenset({"-lc", "-c"})
_FOLDER: Final = (
    r"""'(?P<single>[^'\n]+)'|"(?P<double>[^"$`\\\n]+)"|(?P<bare>[^\s'"$`\\&;|<>()*?\[\]{}~#!]+)"""
)
_CALL: Final = re.compile(
    rf"(?:cd[ \t]+(?:{_FOLDER})[ \t]*&&\s*)?(?:{'|'.join(NAMES)})[ \t]*"
    r"<<-?[ \t]*(?:'(?P<one>[A-Za-z_]\w*)'|\"(?P<two>[A-Za-z_]\w*)\"|(?P<word>[A-Za-z_]\w*))[ \t]*\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchCall:
    """A patch, and the folder that it is to be applied in, where one was named."""

    patch: str
    folder: str | None = None


class BarePatch(Exception):
    """A patch stands where a command was expected."""


def read_call(argv: Sequence[str]) -> PatchCall | None:
    """The patch that a command applies; None when it is another command. Raises BarePatch."""
    match list(argv):
        case [name, patch] if name in NAMES:
            return PatchCall(patch=patch)
        case [shell, run, script] if shell.rpartition("/")[2] in _SHELLS and run in _RUN:
            return read_script(script)
        case [text] if _is_patch(text):
            raise BarePatch
        case _:
            return None


def read_script(script: str) -> PatchCall | None:
    """As `read_call`, of a shell script."""
    text = script.strip()
    if _is_patch(text):
        raise BarePatch
    call = _CALL.match(text)
    if call is None:
        return None
    word = call["one"] or call["two"] or call["word"]
    lines = text[call.end() :].split("\n")
    # The heredoc ends at the first line that is its word alone: whatever follows is another command.
    if len(lines) < 2 or word in lines[:-1] or lines[-1] != word:
        return None
    return PatchCall(patch="\n".join(lines[:-1]), folder=call["single"] or call["double"] or call["bare"])


def _is_patch(text: str) -> bool:
    return text.lstrip().startswith("*** Begin Patch")
