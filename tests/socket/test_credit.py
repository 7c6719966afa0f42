"""Flow control: no reader is sent more than it granted, none loses its terminal, nothing grows without end."""

import pytest
from tests.socket.exchange import Exchange, raw

from overnight.errors import ScopeOver, TooSlow
from overnight.wire.socket.events import Granted, Over
from overnight.wire.socket.limits import Limits

SMALL = Limits(window=4, queue=8)


def fill(two: Exchange, scope: str, count: int) -> list[str | None]:
    return [two.put(two.server, scope, "text", {"text": str(number)}) for number in range(count)]


def test_no_more_is_sent_than_was_granted() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a")
    fill(two, "stream:a", 7)
    two.pump()
    assert two.texts("client", "stream:a") == list("0123")
    assert not two.client.consumed("stream:a", 1, two.now), "grants are made in portions"
    assert two.client.consumed("stream:a", 1, two.now)
    two.pump()
    assert Granted(scope="stream:a") in two.seen["server"]
    assert two.texts("client", "stream:a") == list("012345")


def test_the_opener_chooses_its_window() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a", window=2)
    two.open("stream:b")
    for scope in ("stream:a", "stream:b"):
        fill(two, scope, 8)
    two.pump()
    assert len(two.texts("client", "stream:a")) == 2
    assert len(two.texts("client", "stream:b")) == 4


def test_one_scope_without_credit_does_not_hold_up_another() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a")
    two.open("stream:b")
    fill(two, "stream:a", 8)
    two.pump()
    fill(two, "stream:b", 1)
    two.pump()
    assert two.texts("client", "stream:b") == ["0"]


def test_a_producer_waits_at_the_bound_of_the_queue() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a", policy="pause")
    accepted = fill(two, "stream:a", 100)
    assert [one is not None for one in accepted] == [True] * 8 + [False] * 92
    assert not two.server.room("stream:a")
    two.pump()
    assert two.server.room("stream:a")
    assert len(two.texts("client", "stream:a")) == 4
    assert two.server.waiting == 4


def test_the_queue_is_bounded_in_bytes_too() -> None:
    two = Exchange(Limits(window=4, queue=1000, queue_bytes=1000)).greet()
    two.open("stream:a")
    found = [two.put(two.server, "stream:a", "text", {"text": "x" * 200}) for _ in range(20)]
    assert sum(one is not None for one in found) == 5


def test_a_scope_that_is_to_fail_does_and_its_terminal_gets_through() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a", policy="fail")
    fill(two, "stream:a", 4)
    two.pump()
    with pytest.raises(TooSlow):
        fill(two, "stream:a", 100)
    with pytest.raises(ScopeOver):
        fill(two, "stream:a", 1)
    two.pump()
    assert two.types("client", "stream:a") == ["ack", *["text"] * 4, "failed"]
    assert two.received("client")[-1].envelope.payload["code"] == "too_slow"
    assert two.server.waiting == 0


@pytest.mark.parametrize("waiting", [0, 1, 8])
def test_a_terminal_needs_no_credit_and_loses_nothing_before_it(waiting: int) -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a")
    fill(two, "stream:a", 4)
    two.pump()
    fill(two, "stream:a", waiting)
    two.pump()
    two.put(two.server, "stream:a", "done")
    two.pump()
    assert two.types("client", "stream:a") == ["ack", *["text"] * (4 + waiting), "done"]
    assert two.server.scopes.counts()["open"] == 0


def test_replies_and_requests_need_no_credit() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a")
    fill(two, "stream:a", 4)
    two.pump()
    id_ = two.put(two.client, "stream:a", "ask")
    two.pump()
    two.put(two.server, "stream:a", "ack", reply_to=id_)
    two.pump()
    assert two.types("client", "stream:a")[-1] == "ack"


def test_a_reply_does_not_wait_behind_events_that_have_no_credit() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a")
    fill(two, "stream:a", 8)
    two.pump()
    id_ = two.put(two.client, "stream:a", "ask")
    two.pump()
    two.deliver(two.server, raw("stream:a", 3, "nonsense"))
    two.pump()
    fill(two, "stream:a", 3)
    two.put(two.server, "stream:a", "ack", reply_to=id_)
    two.pump()
    assert two.types("client", "stream:a") == ["ack", *["text"] * 4, "nack", "ack"]
    two.client.consumed("stream:a", 4, two.now)
    two.pump()
    assert two.texts("client", "stream:a") == list("01234567")


def test_what_is_transient_is_dropped_without_credit() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a")
    sent = [two.put(two.server, "stream:a", "hint", {"text": str(number)}) for number in range(3)]
    assert [one is not None for one in sent] == [True, False, False]
    two.pump()
    fill(two, "stream:a", 4)
    assert two.put(two.server, "stream:a", "hint", {"text": "x"}) is None
    two.pump()
    assert two.texts("client", "stream:a") == ["0", "0", "1", "2"]


def test_control_goes_before_everything_that_waits() -> None:
    two = Exchange().greet()
    two.open("stream:a")
    fill(two, "stream:a", 200)
    two.client.tick(two.now + 20_000)
    for data in two.client.data_to_send():
        two.deliver(two.server, data)
    first = two.server.data_to_send(1)[0]
    assert b'"type":"pong"' in first.split(b"}", 1)[0]


def test_scopes_take_turns() -> None:
    two = Exchange().greet()
    for scope in ("stream:a", "stream:b"):
        two.open(scope)
    fill(two, "stream:a", 200)
    fill(two, "stream:b", 1)
    two.pump()
    scopes = [one.envelope.scope for one in two.received("client") if one.envelope.type == "text"]
    assert scopes.index("stream:b") <= 16


def test_a_peer_that_sends_more_than_it_may_fails_its_scope_only() -> None:
    two = Exchange(SMALL).greet()
    two.open("stream:a")
    two.open("stream:b")
    box = two.server.scopes.get("stream:a")
    assert box is not None
    for number in range(40):
        box.outbox.credit = 4
        two.put(two.server, "stream:a", "text", {"text": str(number)})
        for data in two.server.data_to_send():
            two.deliver(two.client, data)
    over = [one for one in two.seen["client"] if isinstance(one, Over)]
    assert [one.scope for one in over] == ["stream:a"]
    assert over[0].error is not None
    assert over[0].error.code == "credit_exceeded"
    assert two.client.scopes.get("stream:b") is not None


def test_messages_are_packed_within_their_limits() -> None:
    two = Exchange(Limits(max_message_bytes=2000, max_batch=5, window=100)).greet()
    two.open("stream:a")
    for _ in range(60):
        two.put(two.server, "stream:a", "text", {"text": "x" * 100})
    messages = two.server.data_to_send()
    assert all(len(one) <= 2000 for one in messages)
    assert max(one.count(b'"type"') for one in messages) == 5
    assert sum(one.count(b'"type"') for one in messages) == 60


def test_a_reader_of_large_events_grants_before_its_window_is_half_used() -> None:
    two = Exchange().greet()
    two.open("stream:a")
    two.put(two.server, "stream:a", "text", {"text": "x" * 200_000})
    two.pump()
    assert two.client.consumed("stream:a", 1, two.now)
