"""What a run is given that its request does not say: by its session's configuration, and by the profile of its mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overnight.domain.documents import checked
from overnight.domain.json_values import Unfit
from overnight.domain.mode import ModeEntry
from overnight.domain.session import Session
from overnight.domain.spec import RunSpec
from overnight.engine.policy import RunPolicy
from overnight.errors import InvalidInput

NOT_INHERITED: Final = frozenset(
    {"goal", "mode", "profile", "session_id", "not_before", "environment", "agent"}
)
"""What belongs to one run alone. Values of the environment are never shown again, a configuration always is."""


def inherited(spec: RunSpec, session: Session | None, policy: RunPolicy) -> RunSpec:
    """`spec` with the fields that it leaves open: the session's first, then the profile's, then the mode's own.

    Tables such as `limits` are filled up entry by entry. Raises ModeUnavailable, InvalidInput.
    """
    given = spec.given()
    if "profile" in given:
        raise InvalidInput("`profile` cannot be set", mend="name the profile as `mode`")
    entry = policy.modes.get(mode_of(spec, session))
    layers = (_defaults(entry, policy), dict(session.config) if session else {}, given)
    merged: dict[str, object] = {}
    for layer in layers:
        merged = _over(merged, layer)
    merged |= {"mode": entry.base, "profile": None if entry.id == entry.base else entry.id}
    return spec_of(merged)


def mode_of(spec: RunSpec, session: Session | None) -> str:
    """The mode that the request names, else that of a session which somebody has made on purpose."""
    if "mode" in spec.given() or session is None or session.made_for_run:
        return spec.mode
    return session.mode


def spec_of(document: Mapping[str, object]) -> RunSpec:
    """A spec from its parts. Raises InvalidInput naming the first field that does not fit."""
    try:
        return checked(RunSpec, document)
    except Unfit as unfit:
        raise InvalidInput(str(unfit)) from None


def configuration(document: Mapping[str, object]) -> dict[str, object]:
    """A session's configuration as it is stored: fields of a run, checked. Raises InvalidInput."""
    for name in document:
        if name in NOT_INHERITED:
            raise InvalidInput(f"config.{name}: belongs to a single run", mend="give it with the run")
    try:
        spec = spec_of({"goal": "-", **document})
    except InvalidInput as error:
        raise InvalidInput(f"config.{error.detail}", mend=error.mend) from None
    found = spec.given()
    del found["goal"]
    return found


def _defaults(entry: ModeEntry, policy: RunPolicy) -> dict[str, object]:
    """A conversation has no end of its own: no number of turns, no condition, no idleness ends it."""
    if entry.base != "chat":
        return dict(entry.defaults)
    most = policy.max_limits.turns if policy.max_limits else None
    own = {"limits": {"turns": most}, "completion": {"stop_file": None, "idle_turns": 0}}
    return _over(own, entry.defaults)


def _over(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        fills_up = name in _TABLES and isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[name] = {**under, **value} if fills_up else value  # type: ignore[dict-item]
    return merged


_TABLES: Final = frozenset({"completion", "limits", "prompt", "watch", "approvals", "labels"})
