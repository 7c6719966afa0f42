"""From text or TOML to a checked value, one small function for each kind of setting. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

from overnight.config.setting import Kind, Setting

Raw = object
Value = (
    str | int | float | bool | Path | tuple[str, ...] | tuple[Path, ...] | tuple[str, int] | dict[str, object] | None
)  # fmt: skip

_BYTES: Final = re.compile(r"(\d{1,18})\s*(|B|K|M|G|T|KB|MB|GB|TB|KIB|MIB|GIB|TIB)", re.IGNORECASE | re.ASCII)
_POWER: Final = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_YES: Final = frozenset({"true", "1", "yes", "on"})
_NO: Final = frozenset({"false", "0", "no", "off"})
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(\d{1,5})", re.ASCII)


class Unfit(ValueError):
    """A value that the setting cannot take; the text says what it takes."""


def parsed(setting: Setting, raw: Raw) -> Value:
    """`raw` (text of the environment, or a TOML value) as the setting's kind.

    Raises `Unfit` saying what is taken.
    """
    return _PARSERS[setting.kind](setting, raw)


def size_in_bytes(text: str) -> int:
    """A size such as `256MiB`, `10GB` or `4096` (K, M, G alone count in 1024s). Raises `Unfit`."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        _refuse("a size such as 256MiB or 10GB")
    unit = match[2].upper()
    base = 1000 if len(unit) == 2 else 1024
    return int(match[1]) * int(base ** _POWER[unit[:1]])


def _refuse(wanted: str) -> NoReturn:
    raise Unfit(f"must be {wanted}")


def _text(_: Setting, raw: Raw) -> str:
    if not isinstance(raw, str) or not raw.strip() or not raw.strip().isprintable():
        _refuse("text on one line")
    return raw.strip()


def _choice(setting: Setting, raw: Raw) -> str:
    text = raw.strip().lower() if isinstance(raw, str) else None
    if text not in setting.choices:
        _refuse("one of " + ", ".join(setting.choices))
    return text


def _count(setting: Setting, raw: Raw) -> int:
    number = raw
    if isinstance(raw, str) and re.fullmatch(r"\d{1,15}", raw.strip(), re.ASCII):
        number = int(raw)
    if not isinstance(number, int) or isinstance(number, bool) or not _within(setting, number):
        _refuse("a whole number" + _range(setting))
    return number


def _number(setting: Setting, raw: Raw) -> float:
    number: object = raw
    if isinstance(raw, str):
        try:
            number = float(raw)
        except ValueError:
            number = None
    if not isinstance(number, int | float) or isinstance(number, bool):
        _refuse(f"a number of {setting.kind}" + _range(setting))
    if not math.isfinite(number) or not _within(setting, number):
        _refuse(f"a number of {setting.kind}" + _range(setting))
    return float(number)


def _size(setting: Setting, raw: Raw) -> int:
    size = size_in_bytes(raw) if isinstance(raw, str) else raw
    if not isinstance(size, int) or isinstance(size, bool) or not _within(setting, size):
        _refuse("a size such as 256MiB or 10GB" + _range(setting))
    return size


def _switch(_: Setting, raw: Raw) -> bool:
    text = str(raw).strip().lower()
    if not isinstance(raw, str | bool) or text not in _YES | _NO:
        _refuse("true or false")
    return text in _YES


def _path(_: Setting, raw: Raw) -> Path:
    if not isinstance(raw, str) or not raw.strip() or "\x00" in raw:
        _refuse("an absolute path")
    try:
        path = Path(raw.strip()).expanduser()
    except RuntimeError:
        _refuse("an absolute path (whose ~user is known here)")
    if not path.is_absolute():
        _refuse("an absolute path")
    return path


def _paths(setting: Setting, raw: Raw) -> tuple[Path, ...]:
    found = tuple(_path(setting, item) for item in _items(raw, ":"))
    return found or _refuse("at least one absolute path")


def _names(_: Setting, raw: Raw) -> tuple[str, ...]:
    return _items(raw, ",")


def _items(raw: Raw, separator: str) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(item.strip() for item in raw.split(separator) if item.strip())
    if isinstance(raw, list) and all(isinstance(item, str) and item.strip() for item in raw):
        return tuple(str(item).strip() for item in raw)
    _refuse("a list of texts")


def _address(_: Setting, raw: Raw) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is None or int(match[2]) > 65_535:
        _refuse("an address and port such as 127.0.0.1:4010 or [::1]:4010")
    return match[1].strip("[]"), int(match[2])


def _table(_: Setting, raw: Raw) -> dict[str, object]:
    if not isinstance(raw, dict):
        _refuse("a table")
    return raw


def _within(setting: Setting, number: float) -> bool:
    return (setting.least is None or number >= setting.least) and (
        setting.most is None or number <= setting.most
    )


def _range(setting: Setting) -> str:
    least = None if setting.least is None else f"{setting.least:g}"
    if setting.most is not None:
        return f" from {least or 0} to {setting.most:g}"
    return f" from {least}" if least else ""


_PARSERS: Final[Mapping[Kind, Callable[[Setting, Raw], Value]]] = {
    "text": _text,
    "secret": _text,
    "choice": _choice,
    "count": _count,
    "seconds": _number,
    "hours": _number,
    "days": _number,
    "bytes": _size,
    "switch": _switch,
    "path": _path,
    "paths": _paths,
    "names": _names,
    "address": _address,
    "url": _text,
    "table": _table,
}
