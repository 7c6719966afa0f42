"""Numbers count per scope and direction, and both sides check them."""

import pytest
from tests.socket.exchange import Exchange, raw

from overnight.wire.socket.events import Closing, Over, Refused


@pytest.fixture
def two() -> Exchange:
    return Exchange().greet()


def test_numbers_count_per_scope_and_direction(two: Exchange) -> None:
    two.open("stream:a")
    two.open("stream:b")
    for scope in ("stream:a", "stream:b", "stream:a"):
        two.put(two.server, scope, "text", {"text": "x"})
    two.pump()
    found = [(one.envelope.scope, one.envelope.seq) for one in two.received("client")][1:]
    assert sorted(found) == [
        ("stream:a", 1), ("stream:a", 2), ("stream:a", 3), ("stream:b", 1), ("stream:b", 2)
    ]  # fmt: skip
    assert [one.envelope.seq for one in two.received("server") if one.envelope.type == "start"] == [1, 1]


@pytest.mark.parametrize("seq", [0, -4, "2", None, 2.5])
def test_a_number_below_1_or_that_is_none_is_refused(two: Exchange, seq: object) -> None:
    two.open("stream:a")
    two.deliver(two.server, raw("stream:a", seq))
    two.pump()
    assert two.nacks("client") == ["invalid_sequence"]


def test_a_duplicate_is_refused_and_does_not_advance(two: Exchange) -> None:
    two.open("stream:a")
    two.deliver(two.server, raw("stream:a", 1))
    two.deliver(two.server, raw("stream:a", 2))
    two.pump()
    assert two.nacks("client") == ["duplicate_sequence"]
    assert two.types("server", "stream:a") == ["start", "ask"]


def test_a_gap_is_refused_and_does_not_advance(two: Exchange) -> None:
    two.open("stream:a")
    (refused,) = two.deliver(two.server, raw("stream:a", 4))
    assert isinstance(refused, Refused)
    assert refused.error.extra == {"expected": 2, "received": 4}
    two.deliver(two.server, raw("stream:a", 2))
    two.pump()
    assert two.nacks("client") == ["sequence_gap"]
    assert two.types("server", "stream:a") == ["start", "ask"]


def test_an_opening_message_has_the_number_1(two: Exchange) -> None:
    two.deliver(two.server, raw("stream:a", 2, "start"))
    two.deliver(two.server, raw("stream:b", 1, "start"))
    two.pump()
    assert two.nacks("client") == ["sequence_gap"]
    assert two.server.scopes.get("stream:a") is None
    assert two.server.scopes.get("stream:b") is not None


def test_the_number_of_a_refused_payload_may_be_used_again_or_left_behind(two: Exchange) -> None:
    two.open("stream:a")
    two.deliver(two.server, raw("stream:a", 2, "nonsense"))
    two.deliver(two.server, raw("stream:a", 2))
    two.deliver(two.server, raw("stream:a", 3, "nonsense", id="y"))
    two.deliver(two.server, raw("stream:a", 4, id="z"))
    two.pump()
    assert two.nacks("client") == ["unknown_type", "unknown_type"]
    assert two.types("server", "stream:a") == ["start", "ask", "ask"]


def test_a_client_checks_numbers_as_well(two: Exchange) -> None:
    two.open("stream:a")
    events = two.deliver(two.client, raw("stream:a", 9, "text", payload={"text": "x"}))
    assert isinstance(events[-1], Over)
    assert events[-1].error is not None
    assert events[-1].error.code == "sequence_gap"
    assert two.client.scopes.get("stream:a") is None


def test_status_and_stop_are_numbered_like_everything_else(two: Exchange) -> None:
    two.open("session:a")
    for type_ in ("ask", "abort", "ask"):
        two.put(two.client, "session:a", type_)
    two.pump()
    assert two.nacks("client") == []
    assert [one.envelope.seq for one in two.received("server") if one.envelope.scope == "session:a"] == [
        1,
        2,
        3,
        4,
    ]


def test_a_gap_in_the_servers_control_lane_ends_the_connection(two: Exchange) -> None:
    (closing,) = two.deliver(two.client, raw("conn", 9, "ping"))
    assert closing == Closing(code=1002, reason="number 2 is next, not 9")
