"""One tool call as it becomes known piece by piece, and what it means in Overnight's words. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from posixpath import join, normpath
from typing import Any, Final
from urllib.parse import urlsplit

from overnight.backends.acp.shapes import as_object, objects, texts
from overnight.domain.action import ActionKind
from overnight.domain.update import FileTouched, ToolCompleted, ToolStarted, Update

_KINDS: Final[Mapping[str, ActionKind]] = {
    "read": "read", "edit": "edit", "delete": "delete", "move": "move", "search": "search",
    "execute": "execute", "think": "think", "fetch": "fetch",
}  # fmt: skip
_PATH_KEYS: Final = (
    "file_path", "filePath", "filepath", "path", "abs_path", "absolute_path", "notebook_path", "dir_path",
)  # fmt: skip
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,60}")
_PREFIX: Final = re.compile(r"([a-z][a-z_]{0,60}?)__")
"""How some programs make the id of a call."""
_EXIT: Final = re.compile(
    r"^Exit [Cc]ode:? (-?\d+)\s*$|<.{0,80}completed with exit code (-?\d+)>", re.MULTILINE
)
_SHELL_TOOLS: Final = frozenset({"bash", "shell", "terminal", "run_shell_command"})
_SHELLS: Final = ("-c", "-lc")
_PASSING: Final = frozenset({
    "call_id", "turn_id", "process_id", "started_at_ms", "completed_at_ms", "source", "parsed_cmd",
    "available_decisions", "proposed_execpolicy_amendment",
})  # fmt: skip
"""Members of an input that say when and how it was asked, not what: the same action shall look the same again."""


@dataclass(slots=True)
class ToolCall:
    """A call by its id. Fields are as last reported; diffs and live output gather."""

    id: str
    workspace: str
    name: str = ""
    title: str = ""
    kind: ActionKind = "other"
    status: str = "pending"
    given: dict[str, Any] = field(default_factory=dict)
    output: object = None
    content: list[Mapping[str, Any]] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    diffs: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    terminal: str | None = None
    """Where its output is shown: a terminal of ours, perhaps."""
    live: str = ""
    exit: int | None = None
    started: bool = False
    ended: bool = False

    def merge(self, told: Mapping[str, Any]) -> None:
        """Take in what an update, or a request for permission, tells about the call."""
        meta = as_object(told.get("_meta"))
        self.title = str(told.get("title") or self.title)
        self.kind = _KINDS.get(str(told.get("kind")), self.kind)
        self._take_name(told, meta)
        self.status = str(told.get("status") or self.status)
        given = as_object(told.get("rawInput"))
        self.given |= {name: value for name, value in given.items() if name not in _PASSING}
        self.output = told.get("rawOutput") if told.get("rawOutput") not in (None, "") else self.output
        if isinstance(told.get("content"), list):
            self.content = objects(told["content"])
        for entry in objects(told.get("content")):
            if entry.get("type") == "terminal":
                self.terminal = str(entry.get("terminalId"))
            if entry.get("type") == "diff" and isinstance(entry.get("newText"), str):
                old = entry.get("oldText")
                self.diffs[self.place(str(entry.get("path")))] = (
                    None if old is None else str(old),
                    entry["newText"],
                )
        self.locations = [
            str(at["path"]) for at in objects(told.get("locations")) if "path" in at
        ] or self.locations
        self.live += str(as_object(meta.get("terminal_output_delta")).get("data") or "")
        code = as_object(meta.get("terminal_exit")).get("exit_code")
        self.exit = code if isinstance(code, int) else self.exit

    def shown(self, told: Mapping[str, Any]) -> ToolCall:
        """The call as `told` shows it by itself; what that leaves out is as known."""
        alone = ToolCall(
            id=self.id, workspace=self.workspace, name=self.name, title=self.title, kind=self.kind
        )
        alone.merge(told)
        alone.given = alone.given or dict(self.given)
        alone.diffs = alone.diffs or dict(self.diffs)
        alone.locations = alone.locations or list(self.locations)
        return alone

    def place(self, path: str) -> str:
        """Absolute and plain; links are not looked at."""
        return normpath(join(self.workspace, path))

    @property
    def ripe(self) -> bool:
        """Whether enough is known to tell that it began."""
        if self.status != "pending":
            return True
        return bool(self.given) and (self.kind != "execute" or self.command is not None)

    @property
    def command(self) -> str | None:
        """The shell line of a call that executes one."""
        if self.kind != "execute":
            return None
        given = self.given.get("command")
        if isinstance(given, list):
            words = [str(word) for word in given]
            return words[2] if len(words) == 3 and words[1] in _SHELLS else shlex.join(words)
        if isinstance(given, str):
            return given
        # Some give no input at all, and the line as the title.
        return self.title.strip("`") if self.title and not self.given else None

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads or changes, as far as it says so."""
        found = [] if self.kind == "execute" else [*self.locations]
        found += [str(self.given[key]) for key in _PATH_KEYS if isinstance(self.given.get(key), str)]
        return tuple(dict.fromkeys(map(self.place, (*found, *self.diffs))))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where it goes, as far as it says so."""
        urls = [value for key in ("url", "uri", "urls") for value in texts(self.given.get(key))]
        return tuple(dict.fromkeys(host for url in urls if (host := _host(url))))

    def begin(self) -> list[Update]:
        """That it began; once."""
        if self.started:
            return []
        self.started = True
        name = self.name or self.kind
        return [ToolStarted(item_id=self.id, name=name, arguments=dict(self.given), command=self.command)]

    def end(self) -> list[Update]:
        """That it ended, with the files it touched; once, as soon as that is so."""
        if self.ended or self.status not in {"completed", "failed"}:
            return []
        self.ended = True
        code = self._exit_code() if self.kind == "execute" else None
        ok = self.status == "completed" and code in {None, 0}
        done = ToolCompleted(
            item_id=self.id,
            name=self.name or self.kind,
            ok=ok,
            output=self._text(),
            command=self.command,
            exit_code=code,
        )
        return [*(self._files() if ok else ()), done]

    def _take_name(self, told: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        named = told.get("name") or meta.get("toolName") or as_object(meta.get("claudeCode")).get("toolName")
        if not named and not self.name:
            prefix = _PREFIX.match(self.id)
            title = str(told.get("title") or "")
            named = prefix[1] if prefix else title if self._is_name(title) else None
        self.name = str(named) if named and not self.started else self.name

    def _is_name(self, title: str) -> bool:
        """Some give the tool's name as the first title; but a command may be one word too."""
        if self.kind == "execute":
            return title in _SHELL_TOOLS
        return bool(_WORD.fullmatch(title)) and title.islower()

    def _files(self) -> Iterator[Update]:
        if self.kind == "read":
            for path in self.paths:
                yield FileTouched(path=path, kind="read")
        elif self.kind == "delete":
            for path in self.paths:
                yield FileTouched(path=path, kind="deleted")
        elif self.kind in {"edit", "move"}:
            for path in self.paths:
                new = path in self.diffs and not self.diffs[path][0]
                yield FileTouched(path=path, kind="created" if new else "modified")

    def _exit_code(self) -> int | None:
        found = as_object(self.output)
        for code in (
            self.exit,
            found.get("exit_code"),
            found.get("exitCode"),
            as_object(found.get("metadata")).get("exit"),
        ):
            if isinstance(code, int):
                return code
        for entry in objects(found.get("contents")):
            if isinstance(entry.get("exitCode"), int):
                return int(entry["exitCode"])
        said = _EXIT.search(f"{self.output if isinstance(self.output, str) else ''}\n{self._words()}")
        if said is not None:
            return int(said[1] or said[2])
        return 0 if self.name == "Bash" and self.status == "completed" else None

    def _text(self) -> str:
        if self.live:
            return self.live
        if isinstance(self.output, str):
            return self.output
        found = as_object(self.output)
        for key in ("aggregated_output", "formatted_output", "output", "content", "stdout"):
            if isinstance(found.get(key), str) and found[key]:
                return str(found[key])
        return self._words()

    def _words(self) -> str:
        inner = (as_object(entry.get("content")) for entry in self.content if entry.get("type") == "content")
        return "\n".join(str(part["text"]) for part in inner if isinstance(part.get("text"), str))


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
