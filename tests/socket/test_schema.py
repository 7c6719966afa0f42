"""The JSON Schema and the AsyncAPI document say what really travels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import InvalidPayload
from overnight.wire.socket.catalog import CATALOG, catalog, failure_of
from overnight.wire.socket.catalog.message import Empty, message
from overnight.wire.socket.connection import Connection
from overnight.wire.socket.envelope import KINDS
from overnight.wire.socket.events import Received
from overnight.wire.socket.schema import asyncapi, json_schema

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(found := value.get("$ref"), str):
            yield found
        for one in value.values():
            yield from refs(one)
    elif isinstance(value, list):
        for one in value:
            yield from refs(one)


def resolved(document: Any, pointer: str) -> Any:
    for part in pointer.removeprefix("#/").split("/"):
        document = document[part]
    return document


def test_what_our_core_sends_is_valid() -> None:
    client, server = Connection("client"), Connection("server")
    client.hello({"token": "t"}, 1)
    sent: list[bytes] = client.data_to_send()
    (hello,) = server.receive(sent[0], 1)
    assert isinstance(hello, Received)
    server.welcome({"connection": "c", "resume_key": "k"}, 1, hello=hello.envelope)
    sent += server.data_to_send()
    client.receive(sent[-1], 1)
    client.queue("run:a", "run.subscribe", {"run": "a", "flow": {"window": 3}}, now_ms=2)
    client.queue("conn", "models.list", {}, now_ms=2)
    sent += client.data_to_send()
    server.receive(sent[-1], 2)
    server.receive(b"nonsense", 2)
    server.queue("run:a", "run.events", {"cursor": 1, "events": [{"seq": 1}]}, now_ms=2)
    server.queue("run:a", "run.end", {}, now_ms=2)
    sent += server.data_to_send()
    for one in sent:
        VALIDATOR.validate(json.loads(one))
    assert len(sent) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"type": "nonsense"},
        {"scope": "chat:1"},
        {"seq": 0},
        {"id": ""},
        {"payload": []},
        {"ts": "now"},
    ],
)
def test_what_our_core_refuses_is_invalid(changes: dict[str, Any]) -> None:
    sound = {"v": 1, "type": "ping", "scope": "conn", "id": "a", "seq": 1, "ts": 1, "payload": {}}
    assert VALIDATOR.is_valid(sound)
    assert VALIDATOR.is_valid([sound, sound])
    assert not VALIDATOR.is_valid({**sound, **changes})
    assert not VALIDATOR.is_valid([sound, {**sound, **changes}])
    assert not VALIDATOR.is_valid([])


PAYLOADS = st.dictionaries(
    st.sampled_from(["scope", "messages", "cursor", "after", "run", "events", "reason", "versions", "token"]),
    st.one_of(
        st.integers(-3, 9), st.text(max_size=3), st.none(), st.booleans(), st.just("run:a"), st.just([1])
    ),
    max_size=4,
)


@given(
    st.sampled_from(["credit", "run.subscribe", "run.events", "run.end", "goodbye", "hello", "resume"]),
    PAYLOADS,
)
def test_schema_and_core_agree_on_payloads(name: str, payload: dict[str, Any]) -> None:
    one = CATALOG[name]
    scope = "conn" if "conn" in one.kinds else "run:a"
    told = {"v": 1, "type": name, "scope": scope, "id": "a", "seq": 1, "ts": 1, "payload": payload}
    try:
        one.check(orjson.loads(orjson.dumps(payload)))
    except InvalidPayload:
        taken = False
    else:
        taken = True
    assert VALIDATOR.is_valid(told) is taken


def test_every_reference_leads_somewhere() -> None:
    for document in (SCHEMA, asyncapi()):
        for one in set(refs(document)):
            assert resolved(document, one) is not None


def test_the_asyncapi_document_names_every_message_and_who_sends_it() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert set(document["components"]["messages"]) == set(CATALOG)
    sent = {one["$ref"].rsplit("/", 1)[1] for one in document["operations"]["send"]["messages"]}
    assert sent == {name for name, one in CATALOG.items() if one.sender != "client"}


def test_the_documents_are_those_of_the_reference() -> None:
    assert json.loads((REFERENCE / "socket.schema.json").read_text(encoding="utf-8")) == SCHEMA
    assert json.loads((REFERENCE / "socket.asyncapi.json").read_text(encoding="utf-8")) == asyncapi()


def test_every_kind_of_scope_has_one_way_to_fail_and_replies_that_exist() -> None:
    for kind in KINDS:
        assert sum(one.fails and kind in one.kinds for one in CATALOG.values()) == 1, kind
        name = failure_of(kind)
        assert name is not None
        CATALOG[name].check({"code": "too_slow", "message": "x", "retryable": True})
    for one in CATALOG.values():
        assert one.role == "request" or not (one.replies or one.opens or one.settles), one.name
        for reply in one.replies:
            assert CATALOG[reply].role in ("reply", "terminal")


def test_no_two_types_have_one_name() -> None:
    one = message("x", "conn", "both", "control", Empty, "")
    with pytest.raises(ValueError, match="two message types"):
        catalog([one, one])
