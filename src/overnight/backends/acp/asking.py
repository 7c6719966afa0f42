"""What the agent asks of us, as questions and deeds: permissions, files, terminals. Pure."""

from __future__ import annotations

import hashlib
import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from overnight.backends.acp.forms import Form
from overnight.backends.acp.rpc import INVALID_PARAMS, Id
from overnight.backends.acp.shapes import as_object, objects, texts, whole
from overnight.backends.acp.tools import ToolCall
from overnight.backends.process.talk import Deed, OpenTerminal, ReadText, TerminalVerb, UseTerminal, WriteText
from overnight.domain.action import Action, Edit
from overnight.domain.update import Answer, Asked

MOST_SHOWN: Final = 256 * 1024
"""Characters of one text in a question; a longer one is cut, and its hash says the rest."""
MOST_OUTPUT: Final = 256 * 1024
"""Bytes of a command's output that one answer may have: every answer is stored before it is sent."""
_VERBS: Final[Mapping[str, TerminalVerb]] = {
    "terminal/output": "output",
    "terminal/wait_for_exit": "wait",
    "terminal/kill": "kill",
    "terminal/release": "release",
}
_KINDS: Final = frozenset({"allow_once", "allow_always", "reject_once", "reject_always"})
_SHELLS: Final = frozenset({"sh", "bash", "zsh", "dash"})
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_STEERING: Final = re.compile(
    r"LD_.*|DYLD_.*|GIT_CONFIG.*|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|PROMPT_COMMAND|PYTHONSTARTUP|NODE_OPTIONS"
)


class Unfit(Exception):
    """A request that cannot be what the agent means; `code` is the protocol's."""

    def __init__(self, message: str, code: int = INVALID_PARAMS) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """The agent wants leave for a tool call of its own, or an answer."""

    options: tuple[tuple[str, str], ...]
    """Id and kind of each."""
    action: Action
    item: str

    @property
    def is_question(self) -> bool:
        """Whether its options are others than allowing and rejecting."""
        return any(kind not in _KINDS for _, kind in self.options)

    def option(self, *, allow: bool) -> str | None:
        """The agent's option for a verdict. Ours is the memory of what is always allowed, so `once` goes first."""
        wanted = ("allow_once", "allow_always") if allow else ("reject_once", "reject_always")
        found = (id for kind in wanted for id, offered in self.options if offered == kind)
        return next(found, None)

    def allows(self, option: object) -> bool:
        """Whether that option of the agent allows what it asked for."""
        return any(id == option and kind.startswith("allow") for id, kind in self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A request of the agent that has not been answered."""

    id: Id
    key: str
    copy: int
    asked: Asked | None
    """What people, or the policy, are asked first; None where nobody needs to be."""
    wanted: Permission | Form | Deed


def permission(params: Mapping[str, Any], key: str, call: ToolCall) -> tuple[Asked, Permission]:
    """What a `session/request_permission` about `call` asks. Raises Unfit."""
    options = tuple(
        (str(option["optionId"]), str(option.get("kind")))
        for option in objects(params.get("options"))
        if "optionId" in option
    )
    if not options:
        raise Unfit("a request for permission without options cannot be answered")
    wanted = Permission(options=options, action=_action(call), item=call.id)
    labels = {
        str(o.get("optionId")): str(o.get("name") or o.get("optionId"))
        for o in objects(params.get("options"))
    }
    answers = tuple(Answer(id=id, label=labels[id]) for id, _ in options) if wanted.is_question else ()
    return Asked(key=key, action=wanted.action, item_id=call.id, answers=answers), wanted


def reading(params: Mapping[str, Any], key: str) -> tuple[Asked, ReadText]:
    """What an `fs/read_text_file` asks. Raises Unfit."""
    path = _path(params)
    deed = ReadText(key=key, path=path, line=whole(params.get("line")), limit=whole(params.get("limit")))
    given = {
        name: value
        for name, value in (("path", path), ("line", deed.line), ("limit", deed.limit))
        if value is not None
    }
    action = Action(
        kind="read", tool="fs/read_text_file", title=f"Read {path}", arguments=given, paths=(path,)
    )
    return Asked(key=key, action=action), deed


def writing(params: Mapping[str, Any], key: str) -> tuple[Asked, WriteText]:
    """What an `fs/write_text_file` asks. Raises Unfit."""
    path, text = _path(params), params.get("content")
    if not isinstance(text, str):
        raise Unfit("content must be text")
    edit = Edit(path=path, before=None, after=shown(text))
    action = Action(
        kind="edit", tool="fs/write_text_file", title=f"Write {path}", arguments={"path": path}, paths=(path,),
        edits=(edit,),
    )  # fmt: skip
    return Asked(key=key, action=action), WriteText(key=key, path=path, text=text)


def terminal(params: Mapping[str, Any], key: str, name: str) -> tuple[Asked, OpenTerminal]:
    """What a `terminal/create` asks; `name` becomes the terminal's id. Raises Unfit."""
    command = params.get("command")
    if not isinstance(command, str) or not command or "\0" in command:
        raise Unfit("command must be text")
    args, cwd = tuple(texts(params.get("args"))), params.get("cwd")
    variables = {str(entry.get("name")): str(entry.get("value", "")) for entry in objects(params.get("env"))}
    for variable, value in variables.items():
        if not _VARIABLE.fullmatch(variable) or _STEERING.fullmatch(variable) or "\0" in value:
            raise Unfit(f"the variable {variable[:100]!r} may not be set")
    limit = whole(params.get("outputByteLimit"))
    deed = OpenTerminal(
        key=key, terminal=name, command=command, args=args, cwd=cwd if isinstance(cwd, str) else None,
        environment=variables, output_bytes=min(MOST_OUTPUT if limit is None else limit, MOST_OUTPUT),
    )  # fmt: skip
    line = shlex.join((command, *args)) if args else command
    given: dict[str, object] = {"command": command, "args": list(args), "env": variables}
    action = Action(
        kind="execute", tool="terminal/create", title=line[:500], arguments=given, command=line, cwd=deed.cwd,
        paths=(deed.cwd,) if deed.cwd else (),
    )  # fmt: skip
    return Asked(key=key, action=action), deed


def use_of_terminal(
    method: str, params: Mapping[str, Any], key: str, limits: Mapping[str, int]
) -> UseTerminal | None:
    """What one of the other terminal requests wants; None for other methods. Raises Unfit.

    `limits`: how much may be told of the output of each terminal.
    """
    verb = _VERBS.get(method)
    if verb is None:
        return None
    name = params.get("terminalId")
    if not isinstance(name, str):
        raise Unfit("terminalId must be text")
    return UseTerminal(key=key, terminal=name, verb=verb, output_bytes=limits.get(name, 0))


def covers(granted: Permission, wanted: Deed, workspace: str) -> bool:
    """Whether leave that was given for a tool call is leave for this deed too.

    The same path and text; or the same command, in the folder and with the variables that were shown with it.
    """
    action = granted.action
    match wanted:
        case ReadText():
            return action.kind in {"read", "edit"} and wanted.path in action.paths
        case WriteText():
            after = [edit.after for edit in action.edits if edit.path == wanted.path]
            return action.kind == "edit" and wanted.path in action.paths and shown(wanted.text) in after
        case OpenTerminal():
            line = shlex.join((wanted.command, *wanted.args)) if wanted.args else wanted.command
            plain = _unwrapped(wanted)
            if action.kind != "execute" or action.command is None or action.command not in {line, plain}:
                return False
            in_same_folder = _folder(wanted.cwd, workspace) == _folder(action.cwd, workspace)
            return in_same_folder and dict(wanted.environment) == as_object(action.arguments.get("env"))
        case UseTerminal():
            return True


def _folder(cwd: str | None, workspace: str) -> str:
    return posixpath.normpath(posixpath.join(workspace, cwd or ""))


def shown(text: str) -> str:
    """A text as questions show it: whole, or its head with the hash of the whole."""
    if len(text) <= MOST_SHOWN:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:MOST_SHOWN]}\n… {len(text)} characters in all, sha256 {digest}"


def _unwrapped(wanted: OpenTerminal) -> str | None:
    """The shell line within `sh -c LINE`; any other program may make of it what it likes."""
    shell = wanted.command.removeprefix("/usr").removeprefix("/bin/") in _SHELLS
    return wanted.args[1] if shell and len(wanted.args) == 2 and wanted.args[0] in {"-c", "-lc"} else None


def _action(call: ToolCall) -> Action:
    edits = tuple(
        Edit(path=path, before=None if old is None else shown(old), after=shown(new))
        for path, (old, new) in call.diffs.items()
    )
    cwd = call.given.get("cwd", call.given.get("workdir"))
    return Action(
        kind=call.kind, tool=call.name or call.kind, title=(call.title or call.name or call.kind)[:500],
        arguments=_shortened(call.given), command=call.command, cwd=cwd if isinstance(cwd, str) else None,
        paths=call.paths, hosts=call.hosts, edits=edits,
    )  # fmt: skip


def _shortened(given: Mapping[str, Any]) -> dict[str, object]:
    return {key: shown(value) if isinstance(value, str) else value for key, value in given.items()}


def _path(params: Mapping[str, Any]) -> str:
    path = params.get("path")
    if not isinstance(path, str) or not path or "\0" in path:
        raise Unfit("path must be text")
    return path
