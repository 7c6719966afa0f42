"""Events are canonical JSON: one encoding for one fact, whatever is put into them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from overnight.clock import from_rfc3339, rfc3339
from overnight.domain.event import FINAL_TYPES, SCHEMA_VERSION, TYPES, Draft, canonical, encode, upcast

TEXT = st.text(st.characters(codec=None))  # lone surrogates too
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
DATA = st.dictionaries(TEXT, JSON, max_size=6)


def turned_round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: turned_round(item) for key, item in reversed(value.items())}
    return [turned_round(item) for item in value] if isinstance(value, list) else value


@given(DATA)
def test_whatever_is_in_it_an_event_is_json_and_the_same_json_for_the_same_data(data: dict[str, Any]) -> None:
    body = encode(Draft(type="agent.custom", data=data), seq=7, run_id="run_x", session_id=None, at=1_000)
    document = json.loads(body)
    assert list(document) == ["seq", "type", "run_id", "session_id", "at", "turn", "attempt", "data"]
    assert (document["seq"], document["at"], document["turn"]) == (7, "1970-01-01T00:00:01.000Z", None)
    assert b"\n" not in body
    if not any(re.search("[\ud800-\udfff]", key) for key in keys(data)):  # mended keys may fall together
        assert canonical(turned_round(data)) == canonical(data)


def keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for item in value.values() for key in keys(item))]
    return [key for item in value for key in keys(item)] if isinstance(value, list) else []


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1) | st.text() | st.booleans()))
def test_what_json_can_hold_comes_back_as_it_was(data: dict[str, Any]) -> None:
    assert json.loads(canonical(data)) == data


def test_what_json_cannot_hold_is_mended_and_not_refused() -> None:
    data = {"half \ud83d": "tail \udc00", "big": 2**64, "small": -(2**63) - 1, "list": (1, {"deep": 2**70})}
    assert json.loads(canonical(data)) == {
        "half \ufffd": "tail \ufffd",
        "big": str(2**64),
        "small": str(-(2**63) - 1),
        "list": [1, {"deep": str(2**70)}],
    }
    assert json.loads(canonical([math.nan, math.inf])) == [None, None]


def test_bytes_of_todays_shape_are_not_touched() -> None:
    body = b'{"not even": json'
    assert upcast(body, SCHEMA_VERSION) is body


def test_types_are_dotted_and_past_tense_lower_case() -> None:
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) and meaning for name, meaning in TYPES.items())
    assert set(TYPES) >= FINAL_TYPES


@given(st.integers(0, 253_402_300_799_999))
def test_times_survive_their_text(ms: int) -> None:
    assert from_rfc3339(rfc3339(ms)) == ms
    assert len(rfc3339(ms)) == 24
