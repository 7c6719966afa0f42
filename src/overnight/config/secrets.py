"""The operator's secrets: values that runs may name without ever seeing the configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from overnight.config.sources import Sources

MAX_SECRET: Final = 65_536
"""Bytes of a secret's file."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def secrets(sources: Sources) -> Mapping[str, str]:
    """Name to value, read now. Raises ConfigInvalid; no message holds a value."""
    table = cast("dict[str, object]", sources["secrets"])
    return {name: _value(sources, name, entry) for name, entry in table.items()}


def _value(sources: Sources, name: str, entry: object) -> str:
    if not _NAME.fullmatch(name):
        raise sources.in_table("secrets", (name,), "has a name that no environment variable can have")
    match entry:
        case {"env": str(variable), **rest} if not rest:
            value = sources.environment.get(variable, "")
            if not value:
                raise sources.in_table("secrets", (name,), f"names the variable {variable}, which is not set")
        case {"file": str(path), **rest} if not rest:
            value = from_file(sources, "secrets", (name,), Path(path).expanduser())
        case _:
            raise sources.in_table(
                "secrets", (name,), 'must be { env = "VARIABLE" } or { file = "/absolute/path" }'
            )
    if "\x00" in value:
        raise sources.in_table("secrets", (name,), "holds a NUL character")
    return value


def from_file(sources: Sources, table: str, entry: tuple[str, ...], path: Path) -> str:
    """The value in a file of its owner alone. Raises ConfigInvalid, which names `entry` of `table`."""
    if not path.is_absolute():
        raise sources.in_table(table, entry, "needs an absolute path")
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise sources.in_table(table, entry, f"names {path}, which others can read: chmod 600 it")
            content = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise sources.in_table(table, entry, f"names {path}: {error.strerror}") from None
    if not content.strip() or len(content) > MAX_SECRET:
        raise sources.in_table(table, entry, f"names {path}, which is empty or over {MAX_SECRET} bytes")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise sources.in_table(table, entry, f"names {path}, which is not UTF-8 text") from None
