"""What commands may know of the agent's environment: everything but what looks like a secret."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import Final

from overnight.domain.redaction import Redactor

_ENDINGS: Final = (
    "KEY", "KEYS", "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "PASSCODE",
    "CREDENTIAL", "CREDENTIALS", "COOKIE", "COOKIES",
)  # fmt: skip
_WHOLE: Final = frozenset({"AUTH", "AUTHORIZATION", "PASS", "PAT", "PWD", "JWT"})
_HARMLESS: Final = re.compile(r"PWD|OLDPWD|GIT_CONFIG_KEY_\d+|.*_(?:MONKEY|TURKEY|HOTKEYS?)")
"""Names that look like secrets and are none."""


def cleaned(environment: Mapping[str, str], kept: Collection[str] = ()) -> dict[str, str]:
    """`environment` without the variables whose name or value looks like a secret, unless they are in `kept`."""
    return {name: value for name, value in environment.items() if name in kept or not _is_secret(name, value)}


def _is_secret(name: str, value: str) -> bool:
    if _HARMLESS.fullmatch(name):
        return False
    parts = [part for part in re.split(r"[^A-Z0-9]+", name.upper()) if part]
    if any(part.endswith(_ENDINGS) or part in _WHOLE for part in parts):
        return True
    return _redactor().text(value) != value


@functools.cache
def _redactor() -> Redactor:
    """Knows the shapes that only secrets have."""
    return Redactor()
