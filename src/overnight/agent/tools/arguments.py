"""Checks what a model gives as arguments, in one place, and says what to mend in words that a model can act on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from overnight.agent.tools.tool import ForModel, ToolSpec

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_MOST_FAULTS: Final = 5
_SHOWN: Final = 120
"""Characters of a value in a message."""


def read(name: str, text: str) -> dict[str, object]:
    """The arguments in the JSON `text`. Raises ForModel."""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        raise _refused(name, [f"the arguments are no JSON: {error}"]) from None
    if not isinstance(found, dict):
        raise _refused(name, ["the arguments must be a JSON object"])
    return found


def checked(spec: ToolSpec, arguments: Mapping[str, object]) -> None:
    """Return if `arguments` fit the schema of `spec`. Raises ForModel, naming each place and what belongs there."""
    validator = _validator(orjson.dumps(spec.parameters))
    faults = sorted(
        validator.iter_errors(dict(arguments)), key=lambda fault: list(map(str, fault.absolute_path))
    )
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise _refused(spec.name, [*map(_said, faults[:_MOST_FAULTS]), *more])


def _refused(name: str, faults: Iterable[str]) -> ForModel:
    return ForModel(
        f'Tool "{name}" execution failed: invalid_arguments: {"; ".join(faults)}. Mend that and call it again.',
        code="invalid_arguments",
    )


def _said(fault: ValidationError) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.absolute_path)
    return f"${place}: {_must(fault)}"


def _must(fault: Any) -> str:
    wanted = fault.validator_value
    given = _short(fault.instance)
    match fault.validator:
        case "required":
            missing = [name for name in wanted if name not in fault.instance]
            return f"{', '.join(map(repr, missing))} must be given"
        case "additionalProperties":
            known = fault.schema.get("properties", {})
            strange = [name for name in fault.instance if name not in known]
            return (
                f"{', '.join(map(repr, strange))} is not known here; known: {', '.join(known) or 'nothing'}"
            )
        case "type":
            kinds = wanted if isinstance(wanted, str) else " or ".join(wanted)
            return f"must be of type {kinds}, not {given}"
        case "enum":
            return f"must be one of {', '.join(map(_short, wanted))}, not {given}"
        case "minimum" | "exclusiveMinimum":
            return f"must be at least {wanted}, not {given}"
        case "maximum" | "exclusiveMaximum":
            return f"must be at most {wanted}, not {given}"
        case "minLength" | "minItems":
            return f"must have at least {wanted}, not {len(fault.instance)}"
        case "maxLength" | "maxItems":
            return f"must have at most {wanted}, not {len(fault.instance)}"
        case _:
            return str(fault.message)[:_SHOWN]


def _short(value: object) -> str:
    try:
        text = orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, TypeError):
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@functools.lru_cache(maxsize=256)
def _validator(schema: bytes) -> Draft202012Validator:
    """Made once for each schema; the library is loaded at the first call, not when the agent starts."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    return Draft202012Validator(orjson.loads(schema))
