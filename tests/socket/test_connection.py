"""The core: sequences, nacks, the greeting, terminals. Named after what went wrong elsewhere."""

import orjson
import pytest
from tests.socket.exchange import SMALL, Exchange, raw

from overnight.errors import BodyTooLarge, Disconnected, ProtocolError, ScopeExists, ScopeOver, UnexpectedType
from overnight.wire.socket.connection import Connection
from overnight.wire.socket.events import Closing, Over, Received, Refused
from overnight.wire.socket.limits import Limits


@pytest.fixture
def two() -> Exchange:
    return Exchange().greet()


# --- the greeting


def test_hello_is_answered_with_the_limits(two: Exchange) -> None:
    (welcome,) = two.received("client")
    assert welcome.envelope.body.limits["window"] == 256
    assert (two.client.state, two.server.state) == ("open", "open")


@pytest.mark.parametrize(
    "first, code",
    [
        (raw("conn", 1, "ping"), "unexpected_type"),
        (raw("conn", 2, "hello", payload={"versions": [1]}), "unexpected_type"),
        (raw("conn", 1, "hello"), "invalid_payload"),
        (raw("conn", 1, "hello", payload={"versions": [2, 3]}), "version_mismatch"),
        (b"nonsense", "protocol_error"),
        (b"[" + raw("conn", 1, "hello", payload={"versions": [1]}) + b"," + raw("conn", 2, "ping") + b"]",
         "unexpected_type"),
    ],
)  # fmt: skip
def test_what_does_not_begin_with_hello_is_turned_away(first: bytes, code: str) -> None:
    server = Connection("server", catalog=SMALL)
    events = server.receive(first, 1)
    assert isinstance(events[-1], Closing)
    assert events[-1].code == 1008
    (nack,) = (orjson.loads(one) for one in server.data_to_send())
    assert nack["payload"]["code"] == code
    assert server.receive(raw("conn", 1, "hello", payload={"versions": [1]}), 2) == []


def test_nothing_is_taken_between_hello_and_welcome() -> None:
    server = Connection("server", catalog=SMALL)
    server.receive(raw("conn", 1, "hello", payload={"versions": [1]}), 1)
    (refused, closing) = server.receive(raw("conn", 2, "ping"), 1)
    assert isinstance(refused, Refused)
    assert isinstance(closing, Closing)


def test_nothing_but_hello_is_sent_before_the_welcome() -> None:
    client = Connection("client", catalog=SMALL)
    client.queue("stream:a", "start", {}, now_ms=1)
    client.queue("conn", "ask", {}, now_ms=1)
    client.hello({}, 1)
    (hello,) = client.data_to_send()
    assert orjson.loads(hello)["type"] == "hello"
    assert client.data_to_send() == []


def test_what_was_queued_before_the_welcome_is_sent_after_it() -> None:
    two = Exchange()
    two.put(two.client, "stream:a", "start")
    two.put(two.client, "conn", "ask")
    two.greet()
    assert [one.envelope.type for one in two.received("server")] == ["hello", "ask", "start"]


def test_a_second_hello_is_not_taken(two: Exchange) -> None:
    two.deliver(two.server, raw("conn", 2, "hello", payload={"versions": [1]}))
    two.pump()
    assert two.nacks("client") == ["unexpected_type"]


# --- nacks (A2, A6)


@pytest.mark.parametrize(
    "message, code",
    [
        (raw("stream:a", 2, "nonsense"), "unknown_type"),
        (raw("stream:a", 2, "hello", payload={"versions": [1]}), "unknown_type"),
        (raw("stream:a", 2, "only.server"), "unexpected_type"),
        (raw("stream:a", 2, "text"), "invalid_payload"),
        (raw("stream:a", 2, "text", payload={"text": 5}), "invalid_payload"),
        (raw("stream:a", 1, "start"), "scope_exists"),
        (raw("stream:a", 2, "start"), "scope_exists"),
        (raw("stream:b", 1, "ask"), "unknown_scope"),
        (raw("stream:b", 1, "text", payload={"text": "x"}), "unknown_scope"),
        (raw("conn", 2, "text", payload={"text": "x"}), "unknown_type"),
        (raw("stream:a", 2, v=9), "version_mismatch"),
    ],
)
def test_every_message_that_cannot_be_taken_is_answered(two: Exchange, message: bytes, code: str) -> None:
    two.open("stream:a")
    two.deliver(two.server, message)
    two.pump()
    assert two.nacks("client") == [code]
    nack = next(one.envelope for one in two.received("client") if one.envelope.type == "nack")
    assert nack.reply_to == orjson.loads(message)["id"]
    assert two.client.scopes.get("stream:a") is not None


def test_a_wrong_field_is_named_by_its_pointer(two: Exchange) -> None:
    two.open("stream:a")
    two.deliver(two.server, raw("stream:a", 2, "text", payload={"text": 5}))
    two.pump()
    nack = next(one.envelope for one in two.received("client") if one.envelope.type == "nack")
    assert nack.payload["extra"] == {"pointer": "/payload/text"}
    assert nack.payload["rejected"] == "text"


def test_unknown_fields_of_a_payload_are_ignored(two: Exchange) -> None:
    two.open("stream:a")
    two.put(two.client, "stream:a", "text", {"text": "x", "x_more": [1]})
    two.pump()
    assert two.texts("server", "stream:a") == ["x"]


def test_nobody_nacks_a_nack(two: Exchange) -> None:
    before = two.pump()
    for broken in (
        raw("conn", 2, "nack", payload={}),
        raw("conn", 2, "nack", ts="x"),
        raw("stream:z", 1, "nack", payload={"code": "x", "message": "y"}),
        raw("conn", 2, "ack", payload=5),
    ):
        two.deliver(two.server, broken)
    assert two.pump() == before == 0


def test_a_request_gets_one_reply_only(two: Exchange) -> None:
    id_ = two.put(two.client, "conn", "ask")
    two.pump()
    two.put(two.server, "conn", "ack", reply_to=id_)
    with pytest.raises(ProtocolError):
        two.put(two.server, "conn", "ack", reply_to=id_)
    with pytest.raises(ProtocolError):
        two.put(two.server, "conn", "nack", {"code": "x", "message": ""}, reply_to="never asked")


def test_unanswered_requests_are_bounded() -> None:
    two = Exchange(Limits(requests=3)).greet()
    for _ in range(5):
        two.put(two.client, "conn", "ask")
    two.pump()
    assert two.nacks("client") == ["too_many_requests"] * 2


def test_scopes_are_bounded() -> None:
    two = Exchange(Limits(scopes=2)).greet()
    for scope in ("stream:a", "stream:b"):
        two.open(scope)
    two.deliver(two.server, raw("stream:c", 1, "start"))
    two.pump()
    assert two.nacks("client") == ["too_many_requests"]


def test_a_message_longer_than_the_other_side_takes_is_not_queued(two: Exchange) -> None:
    two.open("stream:a")
    with pytest.raises(BodyTooLarge):
        two.put(two.client, "stream:a", "text", {"text": "x" * two.limits.max_message_bytes})
    (closing,) = two.server.receive(b"x" * (two.limits.max_message_bytes + 1), 1)
    assert isinstance(closing, Closing)
    assert closing.code == 1009


# --- scopes and their ends


def test_an_opening_message_that_is_nacked_leaves_nothing_behind(two: Exchange) -> None:
    id_ = two.put(two.client, "stream:a", "start")
    two.pump()
    two.put(two.server, "stream:a", "nack", {"code": "rate_limited", "message": ""}, reply_to=id_)
    two.pump()
    assert (
        two.client.scopes.counts()
        == two.server.scopes.counts()
        == {"open": 0, "settling": 0, "tombstones": 0}
    )
    two.open("stream:a")
    assert two.types("client", "stream:a")[-1] == "ack"


def test_after_its_terminal_a_scope_is_over_for_both(two: Exchange) -> None:
    two.open("stream:a")
    two.put(two.server, "stream:a", "done")
    with pytest.raises(ScopeOver):
        two.put(two.server, "stream:a", "text", {"text": "late"})
    two.pump()
    with pytest.raises(ScopeOver):
        two.put(two.client, "stream:a", "text", {"text": "late"})
    assert (
        two.client.scopes.counts()
        == two.server.scopes.counts()
        == {"open": 0, "settling": 0, "tombstones": 1}
    )


def test_late_messages_are_dropped_and_counted_and_revive_nothing(two: Exchange) -> None:
    two.open("stream:a")
    two.put(two.client, "stream:a", "text", {"text": "crossing"})
    two.put(two.server, "stream:a", "done")
    two.pump()
    assert two.types("client", "stream:a") == ["ack", "done"]
    two.deliver(two.client, raw("stream:a", 3, "text", payload={"text": "late"}))
    two.deliver(two.client, raw("stream:a", 4, "failed"))
    assert two.types("client", "stream:a") == ["ack", "done"]
    assert two.client.dropped == 2
    assert two.client.scopes.counts()["open"] == 0


def test_a_scope_that_was_forgotten_is_not_revived(two: Exchange) -> None:
    two.open("stream:a")
    two.client.forget("stream:a")
    two.put(two.server, "stream:a", "text", {"text": "late"})
    two.put(two.server, "stream:a", "done")
    two.pump()
    assert two.types("client", "stream:a") == ["ack"]
    assert (two.client.scopes.counts()["open"], two.client.dropped) == (0, 2)


def test_ending_what_is_over_or_was_never_there_is_acked(two: Exchange) -> None:
    two.open("stream:a")
    two.put(two.client, "stream:a", "abort")
    two.put(two.server, "stream:a", "done")
    two.server.data_to_send()
    two.pump()
    two.deliver(two.server, raw("stream:never", 1, "abort"))
    two.pump()
    acks = [one.envelope for one in two.received("client") if one.envelope.type == "ack"]
    assert [(one.scope, one.reply_to) for one in acks[1:]] == [("conn", "c3"), ("conn", "x1")]


def test_another_request_to_a_scope_that_is_over_is_answered_too(two: Exchange) -> None:
    two.open("stream:a")
    two.put(two.server, "stream:a", "done")
    two.pump()
    two.deliver(two.server, raw("stream:a", 2))
    two.pump()
    assert two.nacks("client") == ["scope_over"]


def test_a_reply_to_a_scope_that_is_over_goes_to_the_connection(two: Exchange) -> None:
    two.open("stream:a")
    id_ = two.put(two.client, "stream:a", "ask")
    two.pump()
    two.put(two.server, "stream:a", "done")
    two.put(two.server, "stream:a", "ack", reply_to=id_)
    two.pump()
    last = two.received("client")[-2:]
    assert [(one.envelope.type, one.envelope.scope) for one in last] == [
        ("ack", "conn"),
        ("done", "stream:a"),
    ]


def test_a_stream_is_never_opened_again_but_a_log_is(two: Exchange) -> None:
    for scope in ("stream:a", "run:a"):
        two.open(scope)
        two.put(two.server, scope, "done")
        two.pump()
    with pytest.raises(ScopeOver):
        two.put(two.client, "stream:a", "start")
    two.deliver(two.server, raw("stream:a", 1, "start"))
    two.pump()
    assert two.nacks("client") == ["scope_over"]
    two.open("run:a")
    assert two.types("server", "run:a") == ["start", "start"]
    two.put(two.client, "stream:b", "start")
    with pytest.raises(ScopeExists):
        two.put(two.client, "stream:b", "start")


def test_tombstones_are_bounded() -> None:
    two = Exchange(Limits(tombstones=5)).greet()
    for number in range(50):
        two.open(f"stream:{number}")
        two.put(two.server, f"stream:{number}", "done")
        two.pump()
    assert (
        two.client.scopes.counts()
        == two.server.scopes.counts()
        == {"open": 0, "settling": 0, "tombstones": 5}
    )


def test_only_the_sides_that_may_send_a_type_do(two: Exchange) -> None:
    two.open("stream:a")
    with pytest.raises(UnexpectedType):
        two.put(two.client, "stream:a", "only.server")


# --- liveness (A5)


def test_a_quiet_peer_is_pinged_and_given_up_exactly_when_its_time_is_over() -> None:
    two = Exchange(Limits(ping_s=20)).greet()
    start = two.now
    assert two.client.tick(start + 19_999) == []
    assert two.client.data_to_send() == []
    assert two.client.tick(start + 20_000) == []
    assert [orjson.loads(one)["type"] for one in two.client.data_to_send()] == ["ping"]
    assert two.client.tick(start + 39_999) == []
    assert two.client.tick(start + 40_000) == [Closing(code=1011, reason="ping_timeout")]


def test_a_pong_shows_that_the_peer_lives() -> None:
    two = Exchange(Limits(ping_s=20)).greet()
    two.now += 20_000
    two.client.tick(two.now)
    assert two.pump() == 2
    assert two.client.tick(two.now + 19_999) == []
    assert two.client.data_to_send() == []


def test_a_clock_that_runs_backwards_gives_nobody_up() -> None:
    two = Exchange(Limits(ping_s=20)).greet()
    two.client.tick(two.now + 20_000)
    assert two.client.tick(two.now - 90_000) == []


def test_a_closed_connection_takes_and_sends_nothing(two: Exchange) -> None:
    two.open("stream:a")
    events = two.client.close()
    assert [one.scope for one in events if isinstance(one, Over)] == ["stream:a"]
    assert two.client.receive(raw("conn", 2, "ping"), 1) == []
    with pytest.raises(Disconnected):
        two.put(two.client, "stream:b", "start")


def test_what_is_received_has_its_payload_checked(two: Exchange) -> None:
    two.open("stream:a", window=5)
    start = two.received("server")[-1]
    assert isinstance(start, Received)
    assert start.opened
    assert start.envelope.body.flow.window == 5


def test_a_payload_is_what_it_was_when_it_was_sent(two: Exchange) -> None:
    two.open("stream:a")
    said = {"text": "before"}
    two.put(two.server, "stream:a", "text", said)
    said["text"] = "after"
    two.pump()
    assert two.texts("client", "stream:a") == ["before"]


def test_the_first_terminal_counts(two: Exchange) -> None:
    two.open("stream:a")
    two.put(two.server, "stream:a", "done")
    with pytest.raises(ScopeOver):
        two.put(two.server, "stream:a", "failed", {"code": "late"})
    two.server.fail("stream:a", ProtocolError(), two.now)
    two.pump()
    assert two.types("client", "stream:a") == ["ack", "done"]


def test_ending_what_was_never_there_leaves_nothing_behind(two: Exchange) -> None:
    for number in range(20):
        two.deliver(two.server, raw(f"stream:{number}", 1, "abort", id=f"x{number}"))
    two.pump()
    assert two.server.scopes.counts() == {"open": 0, "settling": 0, "tombstones": 0}
    assert two.server.unanswered == 0


def test_both_sides_may_end_a_scope_at_once(two: Exchange) -> None:
    two.open("tool:a")
    two.put(two.client, "tool:a", "done")
    two.put(two.server, "tool:a", "failed", {"code": "x"})
    two.pump()
    for side in (two.client, two.server):
        assert side.scopes.counts() == {"open": 0, "settling": 0, "tombstones": 1}
        assert side.dropped == 1
