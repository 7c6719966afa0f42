"""Documents that people write: what of them is refused, and which of their members were given at all.

Whoever only reads what was checked long ago (a worker) uses `json_values.load`; pydantic, which checks, weighs 10 MiB
and is loaded when something is to be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final, Self, TypeVar, cast

from overnight.domain.json_values import Unfit, dump

T = TypeVar("T")
STRICT: Final = {"extra": "forbid"}
"""Pydantic's settings for a document: unknown members are refused."""


class Fits:
    """Within `Annotated`: bounds of a value, named as in pydantic's core schemas (`ge`, `max_length`, `pattern` …)."""

    def __init__(self, **bounds: object) -> None:
        self._bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """What pydantic asks for."""
        return {**handler(source), **self._bounds}


@dataclass(frozen=True, slots=True)
class Passes:
    """Within `Annotated`: a function that gives the value back, or raises ValueError."""

    test: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """What pydantic asks for."""
        function = {"type": "no-info", "function": self.test}
        return {"type": "function-after", "function": function, "schema": handler(source)}


@dataclass(frozen=True, slots=True)
class TaggedBy:
    """Within `Annotated`: which member says of what kind a value is, among several dataclasses."""

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """What pydantic asks for."""
        from pydantic import Discriminator  # noqa: PLC0415  see above

        return Discriminator(self.name).__get_pydantic_core_schema__(source, handler)


class Given:
    """Base of frozen dataclasses that are made from JSON, or by keywords, and know which members were given."""

    __slots__ = ("_given",)
    __pydantic_config__: ClassVar[Any] = STRICT
    _given: tuple[str, ...]

    def __new__(cls, **given: object) -> Self:
        """Remembers what it was given."""
        made = super().__new__(cls)
        object.__setattr__(made, "_given", tuple(given))
        return made

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        """What pydantic asks for: the dataclass, which then is told what was given."""
        function = {"type": "no-info", "function": _remembering}
        return {"type": "function-wrap", "function": function, "schema": handler(source)}

    def given(self) -> dict[str, Any]:
        """The members that were given, as JSON values; of documents in it the same."""
        found = {name: getattr(self, name) for name in self._given}
        return {
            name: value.given() if isinstance(value, Given) else dump(value) for name, value in found.items()
        }


def _remembering(document: Any, make: Callable[[Any], Given]) -> Given:
    made = make(document)
    if isinstance(document, Mapping):
        object.__setattr__(made, "_given", tuple(document))
    return made


def checked(kind: type[T], document: object) -> T:
    """What a document says, every bound looked at. Raises Unfit for the first member that is wrong or unknown."""
    from pydantic import ValidationError  # noqa: PLC0415  see above

    try:
        found: T = _adapter(cast("Any", kind)).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        raise Unfit(message, tuple(str(part) for part in first["loc"])) from None
    return found


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # noqa: PLC0415  see above

    return TypeAdapter(kind)
