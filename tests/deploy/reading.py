"""What the files for shipping say: command lines, variables, units."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from overnight.cli.app import root
from overnight.config.table import CONFIG_VARIABLE, SETTINGS, VAR_PREFIX

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
VARIABLES = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
_NAME = re.compile(r"\bOVERNIGHT_[A-Z_]+\b(?!\*)")
_PROGRAM = re.compile(r"(?:\S*/)?overnight")
_INLINE = re.compile(r"`(overnight [a-z][^`\n]*)`")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def misread(words: list[str]) -> str:
    """What our command line has against these words (without the program's name); empty when it takes them."""
    command, rest = root(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    if rest in ([], ["--help"], ["--version"]) or "--help" in rest:
        return ""  # a command that is only named in a sentence needs no arguments
    try:
        command.make_context("overnight", ["1" if word == "N" else word for word in rest])
    except Exception as error:  # noqa: BLE001 -- click's errors come from typer's own copy of it
        kind = type(error).__name__
        # In a sentence an option may stand without what it takes.
        return "" if kind in {"MissingParameter", "BadOptionUsage"} else f"{kind}: {error}"
    return ""


def in_text(text: str) -> Iterator[list[str]]:
    """Every command line of ours in a page: in its blocks, and in backticks within its sentences."""
    blocks = [
        block for block in _FENCE.findall(text) if not block.startswith(("```ini", "```toml", "```json"))
    ]
    indented = re.findall(r"^ {4}\S.*$", _FENCE.sub("", text), re.MULTILINE)
    for line in [*indented, *(line for block in blocks for line in block.splitlines()[1:-1])]:
        yield from in_shell(line)
    for found in _INLINE.findall(_FENCE.sub("", text)):
        yield from in_shell(found)


def in_shell(line: str) -> Iterator[list[str]]:
    """Our commands among those that a line of shell runs, without their program."""
    if "──" in line or re.search(r"\bovernight =", line):
        return  # a drawing, and another language
    try:
        words = shlex.split(re.sub(r"[\[\]]", "", line), comments=True)  # [--what may be left out]
    except ValueError:
        return
    for part in _parts(words):
        rest = list(part)
        while rest and (rest[0] in {"sudo", "env", "exec", "$", "-u"} or "=" in rest[0]):
            del rest[: 2 if rest[0] == "-u" else 1]
        if rest and _PROGRAM.fullmatch(rest[0]):
            yield rest[1:]


def _parts(words: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in words:
        if word in {"&&", "||", "|", ";"}:
            yield part
            part = []
        elif word.startswith((">", "<", "2>")):
            break
        else:
            part.append(word.removeprefix("$("))
    yield part


@cache
def _told_to_agents() -> frozenset[str]:
    """Names that stand somewhere in our code: what agents and benchmarks are given is no setting."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    return frozenset(name for file in files for name in _NAME.findall(file.read_text()))


def strangers(text: str) -> set[str]:
    """Variables that look like ours and that nobody reads or sets."""
    named = {name for name in _NAME.findall(text) if not name.startswith(VAR_PREFIX)}
    return named - VARIABLES - _told_to_agents()


def unit(file: Path) -> dict[str, list[str]]:
    """Every setting of a unit, `Section.Name`, with all its values."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in file.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found[f"{section}.{name}"].append(value)
    return found
