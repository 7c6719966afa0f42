import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import InvalidInput
from overnight.wire.socket.envelope import Envelope, Malformed, decode, encode

SOUND = {"v": 1, "type": "ping", "scope": "conn", "id": "a1", "seq": 1, "ts": 5, "payload": {}}


def read(**changes: object) -> Envelope | Malformed:
    return decode(orjson.dumps({**SOUND, **changes}), max_batch=10)[0]


def without(name: str) -> Envelope | Malformed:
    return decode(orjson.dumps({k: v for k, v in SOUND.items() if k != name}), max_batch=10)[0]


def test_what_is_encoded_is_read_back_the_same() -> None:
    one = Envelope(
        type="text", scope="stream:a.B-9_", id="~!", seq=7, ts=-3, payload={"é": [1, None]}, reply_to='q"\\'
    )
    assert decode(encode([one]), max_batch=1) == [one]
    assert decode(encode([one, one]), max_batch=2) == [one, one]


def test_a_payload_may_hold_json_that_is_encoded_already() -> None:
    events = orjson.Fragment(b'[{"seq":1}]')
    one = Envelope(type="run.events", scope="run:a", id="1", seq=1, ts=1, payload={"events": events})
    (found,) = decode(encode([one]), max_batch=1)
    assert isinstance(found, Envelope)
    assert found.payload == {"events": [{"seq": 1}]}


def test_what_json_cannot_say_is_refused_before_it_is_sent() -> None:
    one = Envelope(type="text", scope="run:a", id="1", seq=1, ts=1, payload={"x": object()})
    with pytest.raises(InvalidInput):
        encode([one])


def test_unknown_members_are_ignored() -> None:
    assert isinstance(read(x_trace="abc", extra=None), Envelope)


@pytest.mark.parametrize("name", ["v", "type", "scope", "id", "ts", "payload"])
def test_a_missing_member_is_named(name: str) -> None:
    found = without(name)
    assert isinstance(found, Malformed)
    assert found.error.code == "invalid_payload"
    assert found.error.extra == {"pointer": f"/{name}"}


@pytest.mark.parametrize(
    "changes, code, pointer",
    [
        ({"v": "1"}, "invalid_payload", "/v"),
        ({"v": True}, "invalid_payload", "/v"),
        ({"v": 1.0}, "invalid_payload", "/v"),
        ({"type": 7}, "invalid_payload", "/type"),
        ({"type": ""}, "invalid_payload", "/type"),
        ({"type": "x" * 65}, "invalid_payload", "/type"),
        ({"scope": "stream:"}, "invalid_payload", "/scope"),
        ({"scope": "stream:a b"}, "invalid_payload", "/scope"),
        ({"scope": "stream:a\n"}, "invalid_payload", "/scope"),
        ({"scope": "chat:a"}, "invalid_payload", "/scope"),
        ({"scope": "stream:" + "a" * 65}, "invalid_payload", "/scope"),
        ({"scope": None}, "invalid_payload", "/scope"),
        ({"id": ""}, "invalid_payload", "/id"),
        ({"id": "é"}, "invalid_payload", "/id"),
        ({"id": "a b"}, "invalid_payload", "/id"),
        ({"id": 5}, "invalid_payload", "/id"),
        ({"ts": "now"}, "invalid_payload", "/ts"),
        ({"payload": []}, "invalid_payload", "/payload"),
        ({"payload": None}, "invalid_payload", "/payload"),
        ({"reply_to": 5}, "invalid_payload", "/reply_to"),
        ({"reply_to": ""}, "invalid_payload", "/reply_to"),
        ({"seq": 0}, "invalid_sequence", "/seq"),
        ({"seq": -1}, "invalid_sequence", "/seq"),
        ({"seq": "1"}, "invalid_sequence", "/seq"),
        ({"seq": True}, "invalid_sequence", "/seq"),
        ({"seq": 1 << 60}, "invalid_sequence", "/seq"),
    ],
)
def test_a_mistyped_member_is_named(changes: dict[str, object], code: str, pointer: str) -> None:
    found = read(**changes)
    assert isinstance(found, Malformed)
    assert (found.error.code, found.error.extra["pointer"]) == (code, pointer)


def test_another_version_is_told_which_are_spoken() -> None:
    found = read(v=2)
    assert isinstance(found, Malformed)
    assert (found.error.code, found.error.extra) == ("version_mismatch", {"supported_versions": [1]})
    assert found.id == "a1"


@pytest.mark.parametrize(
    "data", [b"", b"{", b'"x"', b"1", b"null", b"\xff\xfe", b"[" * 2000, b"[]", "not json"]
)
def test_what_is_no_envelope_is_told_so(data: bytes | str) -> None:
    (found,) = decode(data, max_batch=10)
    assert isinstance(found, Malformed)
    assert found.error.code == "protocol_error"


def test_a_malformed_member_spoils_only_itself() -> None:
    found = decode(orjson.dumps([SOUND, {"id": "bad"}, 5, SOUND]), max_batch=10)
    assert [type(one) for one in found] == [Envelope, Malformed, Malformed, Envelope]
    assert isinstance(found[1], Malformed)
    assert found[1].id == "bad"


def test_a_message_holds_only_so_many() -> None:
    (found,) = decode(orjson.dumps([SOUND] * 11), max_batch=10)
    assert isinstance(found, Malformed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100)))
def test_reading_never_raises(data: bytes | str) -> None:
    assert decode(data, max_batch=3)


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(SOUND, JSON)), min_size=1, max_size=4))
def test_reading_json_never_raises(found: list[dict[str, object]]) -> None:
    text = (
        orjson.dumps(found, option=orjson.OPT_PASSTHROUGH_SUBCLASS, default=str) if _small(found) else b"[1]"
    )
    assert len(decode(text, max_batch=10)) >= 1


def _small(found: object) -> bool:
    try:
        orjson.dumps(found)
    except TypeError:
        return False
    return True
