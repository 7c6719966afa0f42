"""Reads the environment and `overnight.toml`, and remembers where each value came from."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.config.parse import Raw, Unfit, Value, parsed
from overnight.config.paths import config_file, data_home, home
from overnight.config.setting import Setting
from overnight.config.table import CONFIG_VARIABLE, SETTINGS, VAR_PREFIX
from overnight.errors import ConfigInvalid

MAX_FILE: Final = 1 << 20
"""Bytes of a configuration file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A setting's value and its origin: `default`, `environment NAME`, `FILE line N` or `command line`."""

    setting: Setting
    value: Value
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Everything that was read, by dotted key. `file` is None when there is no configuration file."""

    found: Mapping[str, Found]
    file: ConfigFile | None
    environment: Mapping[str, str]
    cwd: Path

    def __getitem__(self, key: str) -> Value:
        return self.found[key].value

    def strangers(self) -> list[str]:
        """Variables that look like settings and are none: spelling mistakes, most likely."""
        known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
        names = (name for name in self.environment if name.startswith("OVERNIGHT_"))
        return sorted(name for name in names if name not in known and not name.startswith(VAR_PREFIX))

    def refuse(self, key: str, wanted: str, *, mend: str = "") -> ConfigInvalid:
        """The error for a value that only proves wrong beside others; says where it came from."""
        found = self.found[key]
        return ConfigInvalid(f"{key} ({found.origin}) {wanted}", mend=mend)

    def in_table(self, key: str, path: tuple[str, ...], wanted: str) -> ConfigInvalid:
        """The error for an entry inside a table such as `backends`."""
        where = self.file.where(".".join((key, *path))) if self.file else self.found[key].origin
        return ConfigInvalid(f"{'.'.join((key, *path))} ({where}) {wanted}", mend=_SEE_REFERENCE)


def read(
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Sources:
    """Every setting's value: the command line's `overrides` first, then the environment, the file, the default.

    Nothing is looked for in `cwd`; it only stands in the default of `workspace_roots`. Raises ConfigInvalid that
    names the setting, where its value came from, and what it takes.
    """
    variables = os.environ if environment is None else environment
    file = _open(variables)
    entries = dict(file.entries()) if file else {}
    here = cwd or _here(variables)
    given = overrides or {}
    return Sources(
        found={
            setting.key: _checked(setting, given[setting.key], "command line")
            if setting.key in given
            else _look_up(setting, variables, file, entries, here)
            for setting in SETTINGS
        },
        file=file,
        environment=variables,
        cwd=here,
    )


class ConfigFile:
    """One `overnight.toml`, parsed, with its text kept so that errors can name a line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._lines = text.split("\n")
        try:
            self._tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigInvalid(f"{path} is not valid TOML: {error}", mend="mend that line") from None

    def entries(self) -> Iterator[tuple[str, Raw]]:
        """The settings in it. Raises ConfigInvalid for the first key that is none."""
        known = {setting.key: setting for setting in SETTINGS}
        groups = {key.partition(".")[0] for key in known if "." in key}
        for name, value in self._tree.items():
            if name in known:
                yield name, value
            elif name in groups and isinstance(value, dict):
                for inner, raw in value.items():
                    if f"{name}.{inner}" not in known:
                        raise self._unknown(f"{name}.{inner}")
                    yield f"{name}.{inner}", raw
            else:
                raise self._unknown(name)

    def where(self, dotted: str) -> str:
        """`FILE line N` of a key, as near as a scan of the text can tell."""
        number = self._line(dotted.split("."))
        return f"{self.path} line {number}" if number else str(self.path)

    def _unknown(self, dotted: str) -> ConfigInvalid:
        return ConfigInvalid(f"{self.where(dotted)}: there is no setting {dotted}", mend=_SEE_REFERENCE)

    def _line(self, parts: list[str]) -> int | None:
        """The line that sets the longest known beginning of `parts`."""
        table: list[str] = []
        best, best_depth = None, 0
        for number, line in enumerate(self._lines, 1):
            header = _HEADER.match(line)
            assignment = None if header else _ASSIGNMENT.match(line)
            if header:
                table = path = _names(header[1])
            elif assignment:
                path = table + _names(assignment[1])
            else:
                continue
            if path == parts[: len(path)] and len(path) > best_depth:
                best, best_depth = number, len(path)
        return best


_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_ASSIGNMENT: Final = re.compile(r"""\s*((?:[A-Za-z0-9_.\-\s]|"[^"]*"|'[^']*')+?)\s*=""")
_NAME: Final = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_\-]+)""")
_SEE_REFERENCE: Final = "the settings are listed by `overnight config show` and in docs/reference/settings.md"


def _names(dotted: str) -> list[str]:
    return [next(part for part in match if part) if any(match) else "" for match in _NAME.findall(dotted)]


def _here(variables: Mapping[str, str]) -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        # The directory was removed under us; there is nothing in it to work on.
        return home(variables)


def _open(variables: Mapping[str, str]) -> ConfigFile | None:
    named = variables.get(CONFIG_VARIABLE, "")
    path = Path(named) if named else config_file(variables)
    if named and not path.is_absolute():
        raise ConfigInvalid(f"environment {CONFIG_VARIABLE} must be an absolute path, not {named!r}")
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if named:
            raise ConfigInvalid(
                f"there is no file {path}", mend=f"mend {CONFIG_VARIABLE}, or unset it"
            ) from None
        return None
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}", mend="mend its permissions") from None
    if len(content) > MAX_FILE:
        raise ConfigInvalid(f"{path} is larger than {MAX_FILE} bytes")
    try:
        return ConfigFile(path, content.decode())
    except UnicodeDecodeError:
        raise ConfigInvalid(f"{path} is not UTF-8 text") from None


def _check_owner(path: Path, facts: os.stat_result) -> None:
    """The file says which programs run: nobody but its user (or root) may have written it. Raises ConfigInvalid."""
    if facts.st_uid not in {0, os.getuid()}:
        raise ConfigInvalid(f"{path} belongs to another user", mend="take a file of your own")
    if facts.st_mode & 0o002:
        raise ConfigInvalid(f"{path} can be written by everybody", mend=f"chmod o-w {path}")


def _look_up(
    setting: Setting,
    variables: Mapping[str, str],
    file: ConfigFile | None,
    entries: Mapping[str, Raw],
    cwd: Path,
) -> Found:
    raw = variables.get(setting.variable, "") if setting.variable else ""
    if raw:
        return _checked(setting, raw, f"environment {setting.variable}")
    if file is not None and setting.key in entries:
        return _checked(setting, entries[setting.key], file.where(setting.key))
    return Found(setting=setting, value=_default(setting, variables, cwd), origin="default")


def _checked(setting: Setting, raw: Raw, origin: str) -> Found:
    try:
        return Found(setting=setting, value=parsed(setting, raw), origin=origin)
    except Unfit as error:
        shown = "that value" if setting.kind in {"secret", "url"} else repr(raw)[:80]
        raise ConfigInvalid(
            f"{setting.key} ({origin}) {error}, not {shown}", mend=setting.description
        ) from None


def _default(setting: Setting, variables: Mapping[str, str], cwd: Path) -> Value:
    if setting.key == "data_dir":
        return data_home(variables)
    if setting.key == "workspace_roots":
        return (home(variables), cwd)
    if setting.kind == "table":
        return {}
    if setting.default is None or "{" in setting.default:
        return None
    return parsed(setting, setting.default)
