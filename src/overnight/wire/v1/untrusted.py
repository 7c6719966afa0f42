"""JSON of any shape from outside: what of it can be kept at all. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Any, Final

from pydantic import AfterValidator, StringConstraints

DEEPEST: Final = 200
"""How deep it may be nested; what encodes it later gives up a little further down."""
_WHOLE: Final = range(-(1 << 63), 1 << 63)


def kept(document: dict[str, Any]) -> dict[str, Any]:
    """`document` itself. Raises ValueError for what no database, log or reader could give back as it came: half
    characters, whole numbers beyond 64 bits, numbers that are none, and what is nested too deep.
    """
    layer: list[Any] = [document]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in layer:
            if isinstance(value, dict):
                _check_names(value)
                below += value.values()
            elif isinstance(value, list):
                below += value
            else:
                _check(value)
        if not below:
            return document
        layer = below
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def _check_names(names: Iterable[Any]) -> None:
    for name in names:
        _check(name)


def _check(value: Any) -> None:
    if isinstance(value, str):
        # An ASCII text is known as one without being read.
        if not value.isascii() and not _is_whole_text(value):
            raise ValueError("a text holds half a character (a surrogate without its other half)")
    elif isinstance(value, int):
        if value not in _WHOLE:
            raise ValueError("a whole number has more than 64 bits")
    elif isinstance(value, float) and not isfinite(value):
        raise ValueError("a number is not finite")


def _is_whole_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Untrusted = Annotated[dict[str, Any], AfterValidator(kept)]
"""A JSON object from outside."""
Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")]
"""The name of a failure, as a program gives it."""
