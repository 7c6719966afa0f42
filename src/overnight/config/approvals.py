"""How approvals behave on this server: how long they stay open, and the operator's standing answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast, get_args

from overnight.config.sources import Sources
from overnight.domain.documents import checked
from overnight.domain.json_values import Unfit, dump
from overnight.domain.rule import Effect, Rule
from overnight.domain.spec import ApprovalKind

_KINDS: Final = get_args(ApprovalKind)
_LONGEST_S: Final = 31_536_000


@dataclass(frozen=True, kw_only=True)
class _RuleTable:
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    effect: Effect
    tool: str | None = None
    argv: list[str] | None = None
    command: str | None = None
    path: str | None = None
    host: str | None = None


def expiries(sources: Sources) -> Mapping[ApprovalKind, float]:
    """Seconds by kind. Raises ConfigInvalid."""
    found: dict[ApprovalKind, float] = {}
    for kind, seconds in cast("dict[str, object]", sources["approvals.expires"]).items():
        if kind not in _KINDS:
            raise sources.in_table(
                "approvals.expires", (kind,), f"is no kind of approval: use {', '.join(_KINDS)}"
            )
        if (
            not isinstance(seconds, int | float)
            or isinstance(seconds, bool)
            or not 1 <= seconds <= _LONGEST_S
        ):
            raise sources.in_table("approvals.expires", (kind,), f"must be seconds from 1 to {_LONGEST_S}")
        found[cast("ApprovalKind", kind)] = float(seconds)
    return found


def rules(sources: Sources) -> tuple[Rule, ...]:
    """The operator's rules, in the order of the file. Raises ConfigInvalid that names rule and field."""
    table = cast("dict[str, object]", sources["approvals.rules"])
    return tuple(_rule(sources, name, entry) for name, entry in table.items())


def _rule(sources: Sources, name: str, entry: object) -> Rule:
    try:
        found = checked(_RuleTable, entry)
    except Unfit as unfit:
        within = unfit.within(name)
        raise sources.in_table("approvals.rules", within.path, f"does not fit: {unfit.message}") from None
    fields = {field: value for field, value in dump(found).items() if field not in {"effect", "argv"}}
    if found.argv is None and not any(fields.values()):
        raise sources.in_table("approvals.rules", (name,), "names nothing that it could match")
    return Rule(effect=found.effect, argv=tuple(found.argv) if found.argv else None, **fields)
