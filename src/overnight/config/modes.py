"""The `[modes.NAME]` tables: profiles, each a mode under a name of its own with defaults for its runs."""

from __future__ import annotations

import re
from typing import Final, cast, get_args

from overnight.config.sources import Sources
from overnight.domain.mode import BUILT_IN, ModeEntry, Modes
from overnight.domain.spec import Mode
from overnight.engine.inheritance import configuration
from overnight.errors import InvalidInput

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,49}")
_OWN: Final = frozenset({"base", "label", "description"})


def modes(sources: Sources) -> Modes:
    """The registry with every profile of the file. Raises ConfigInvalid naming table and line."""
    tables = cast("dict[str, object]", sources["modes"])
    return Modes(_profile(sources, name, table) for name, table in tables.items())


def _profile(sources: Sources, name: str, table: object) -> ModeEntry:
    if not isinstance(table, dict):
        raise sources.in_table("modes", (name,), "must be a table")
    if not _NAME.fullmatch(name) or name in {entry.id for entry in BUILT_IN}:
        raise sources.in_table(
            "modes", (name,), "needs a name of its own: small letters, digits, dashes and underscores"
        )
    base = table.get("base", "continuous")
    if base not in get_args(Mode):
        raise sources.in_table("modes", (name, "base"), f"must be one of {', '.join(get_args(Mode))}")
    given = {key: value for key, value in table.items() if key not in _OWN}
    try:
        defaults = configuration(given)
    except InvalidInput as error:
        raise sources.in_table("modes", (name,), f"does not fit: {error.detail}") from None
    below = next(entry for entry in BUILT_IN if entry.id == base)
    return ModeEntry(
        id=name,
        base=base,
        label=_words(sources, name, table, "label") or name,
        description=_words(sources, name, table, "description") or below.description,
        supports_resume=below.supports_resume,
        supports_approvals=below.supports_approvals,
        available=below.available,
        defaults=defaults,
    )


def _words(sources: Sources, name: str, table: dict[str, object], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or not (value.isprintable() and len(value) <= 500):
        raise sources.in_table("modes", (name, key), "must be text on one line")
    return value
