"""The `[backends.NAME]` tables: which agent programs may run, and how. Only the operator says so, never a request."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast, get_args

from overnight.config.sources import Sources

BackendKind = Literal[
    "agent",
    "command",
    "acp",
    "codex",
    "claude",
    "gemini",
    "opencode",
    "qwen",
    "copilot",
    "codex-acp",
    "claude-acp",
    "echo",
    "remote",
]
KINDS: Final[tuple[str, ...]] = get_args(BackendKind)
BUILT_IN: Final[tuple[BackendKind, ...]] = (
    "codex", "claude", "gemini", "opencode", "qwen", "copilot", "codex-acp", "claude-acp", "agent", "echo",
    "remote",
)  # fmt: skip
"""Offered even when the file does not mention them."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """One backend as the operator configured it. What a kind does not use is refused when it is set."""

    name: str
    kind: BackendKind
    program: Path | None = None
    """The executable of a known kind; None: found on PATH."""
    command: tuple[str, ...] = ()
    """The whole argv of kinds `command` and `acp`."""
    args: tuple[str, ...] = ()
    """Added to the arguments that the adapter makes."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    login: Literal["none", "user"] = "none"
    """`user` lends the credential file of the user's own home to the agent's."""
    model: str | None = None
    """For runs that name none."""

    def shown(self) -> dict[str, object]:
        """For `config show`: what was set, with the values of variables masked."""
        found = {key: value for key in self.__slots__ if (value := getattr(self, key))}
        if self.environment:
            found["environment"] = dict.fromkeys(self.environment, "***")
        return found


def backends(sources: Sources) -> tuple[BackendSettings, ...]:
    """Every backend of this installation, the configured ones first. Raises ConfigInvalid."""
    tables = cast("dict[str, object]", sources["backends"])
    named = tuple(_one(sources, name, table) for name, table in tables.items())
    rest = (BackendSettings(name=kind, kind=kind) for kind in BUILT_IN if kind not in tables)
    return (*named, *rest)


def default_backend(sources: Sources, known: tuple[BackendSettings, ...]) -> tuple[str, str]:
    """The backend of runs that name none, and why: configured, else found on PATH, else the first of the file."""
    chosen = cast("str | None", sources["runs.default_backend"])
    if chosen is not None:
        if chosen not in {backend.name for backend in known}:
            names = ", ".join(sorted(backend.name for backend in known))
            raise sources.refuse(
                "runs.default_backend", f"names {chosen!r}, which is no backend", mend=f"one of {names}"
            )
        return chosen, sources.found["runs.default_backend"].origin
    for backend in known:
        if backend.kind in {"codex", "claude"} and _installed(sources, backend):
            return backend.name, "default (its program is there)"
    tables = cast("dict[str, object]", sources["backends"])
    if tables:
        return next(iter(tables)), "default (the first that is configured)"
    return "echo", "default (no agent program was found)"


def _installed(sources: Sources, backend: BackendSettings) -> bool:
    program = str(backend.program or backend.kind)
    return shutil.which(program, path=sources.environment.get("PATH")) is not None


def _one(sources: Sources, name: str, table: object) -> BackendSettings:
    entry = _Entry(sources, name, table)
    if not _NAME.fullmatch(name):
        raise entry.unfit("", "has a name of other than letters, digits, dots, dashes and underscores")
    kind = entry.kind()
    entry.only(_KEYS[kind])
    command = entry.texts("command")
    if kind in {"command", "acp"} and not command:
        raise entry.unfit("", f"is of kind {kind} and needs command = [program, argument, …]")
    if command and "/" in command[0] and not Path(command[0]).is_absolute():
        raise entry.unfit(
            "command", "must begin with an absolute path, or with a bare name that is found on PATH"
        )
    return BackendSettings(
        name=name,
        kind=kind,
        program=entry.path("program"),
        command=command,
        args=entry.texts("args"),
        environment=entry.variables("environment"),
        login=cast('Literal["none", "user"]', entry.choice("login", ("none", "user"), "none")),
        model=entry.text("model"),
    )


_AGENT: Final = frozenset({"kind", "program", "args", "environment", "login", "model"})
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "agent": frozenset({"kind", "args", "environment", "model"}),
    "command": frozenset({"kind", "command", "args", "environment", "model"}),
    "acp": frozenset({"kind", "command", "args", "environment", "model"}),
    "codex": _AGENT,
    "claude": _AGENT,
    "gemini": _AGENT,
    "opencode": _AGENT,
    "qwen": _AGENT,
    "copilot": _AGENT,
    "codex-acp": _AGENT,
    "claude-acp": _AGENT,
    "echo": frozenset({"kind"}),
    "remote": frozenset({"kind"}),
}


class _Entry:
    """Reads one backend's table; each method refuses what does not fit, by name and line."""

    def __init__(self, sources: Sources, name: str, table: object) -> None:
        self._sources = sources
        self._name = name
        if not isinstance(table, dict):
            raise self.unfit("", "must be a table")
        self._table: dict[str, object] = table

    def unfit(self, key: str, wanted: str) -> Exception:
        path = (self._name, key) if key else (self._name,)
        return self._sources.in_table("backends", path, wanted)

    def only(self, keys: frozenset[str]) -> None:
        for key in self._table:
            if key not in keys:
                raise self.unfit(
                    key, f"is not used by this kind of backend; known here: {', '.join(sorted(keys))}"
                )

    def kind(self) -> BackendKind:
        kind = self.choice("kind", KINDS, self._name if self._name in BUILT_IN else None)
        if self._name in BUILT_IN and kind != self._name:
            raise self.unfit(
                "kind", f"cannot be {kind}: a built-in backend keeps its kind; choose another name"
            )
        return cast("BackendKind", kind)

    def choice(self, key: str, choices: tuple[str, ...], default: str | None) -> str:
        value = self._table.get(key, default)
        if value not in choices:
            raise self.unfit(key, f"must be one of {', '.join(choices)}")
        return str(value)

    def text(self, key: str) -> str | None:
        value = self._table.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.unfit(key, "must be text")
        return value

    def path(self, key: str) -> Path | None:
        value = self.text(key)
        if value is None:
            return None
        path = Path(value).expanduser()
        if not path.is_absolute():
            raise self.unfit(key, "must be an absolute path")
        return path

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._table.get(key, [])
        if not isinstance(value, list) or not all(
            isinstance(item, str) and "\x00" not in item for item in value
        ):
            raise self.unfit(key, 'must be a list of texts such as ["python3", "/srv/agent.py"]')
        return tuple(str(item) for item in value)

    def variables(self, key: str) -> Mapping[str, str]:
        value = self._table.get(key, {})
        if not isinstance(value, dict) or not all(
            _VARIABLE.fullmatch(name) and isinstance(text, str) and "\x00" not in text
            for name, text in value.items()
        ):
            raise self.unfit(key, 'must be a table of texts such as { CODEX_HOME = "/srv/codex-home" }')
        return {str(name): str(text) for name, text in value.items()}
