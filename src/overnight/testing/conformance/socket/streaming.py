"""Checks: scopes from their opening to their one end, credit, and going on after a cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

from overnight.testing.conformance.socket.offer import NotOffered, Offer, Said
from overnight.testing.conformance.socket.probe import Heard, Probe, expect, probing

_numbers = itertools.count(1)
SPENDS = frozenset({"event", "transient"})


def _stream(offer: Offer) -> Said:
    if offer.stream is None:
        raise NotOffered("a stream")
    return offer.stream


def _fresh() -> str:
    return f"stream:conformance.{next(_numbers)}"


async def _open(probe: Probe, scope: str, flow: Mapping[str, Any] | None = None) -> None:
    stream = _stream(probe.offer)
    payload = {**stream.payload, **({"flow": dict(flow)} if flow else {})}
    found = await probe.reply(await probe.say(scope, stream.type, payload))
    expect(found["type"] == "ack", f"opening was answered by {found['type']}: {found['payload']}")
    expect(found["scope"] == scope, "the reply is in the scope that was opened")


async def _standing(probe: Probe) -> str:
    """A stream that waits for its reader to grant more."""
    scope = _fresh()
    await _open(probe, scope, {"window": 1, "policy": "pause"})
    await probe.alive()
    if any(probe.role(one) == "terminal" for one in probe.of(scope)):
        raise NotOffered("a stream that is longer than the server's queue")
    return scope


async def _finish(probe: Probe, scopes: set[str]) -> None:
    """Read, granting every event, until each of the scopes has had its terminal."""
    over = {one["scope"] for one in probe.heard if probe.role(one) == "terminal"}
    for scope in scopes - over:
        await probe.grant_heard(scope)
    while scopes - over:
        one = await probe.until("a terminal", lambda one: one["scope"] in scopes)
        if probe.role(one) == "terminal":
            over.add(one["scope"])
        else:
            await probe.grant_heard(one["scope"])


def _judge(probe: Probe, scope: str) -> None:
    found = probe.of(scope)
    expect([one["seq"] for one in found] == list(range(1, len(found) + 1)), f"numbers of {scope} have a gap")
    terminals = [one for one in found if probe.role(one) == "terminal"]
    expect(len(terminals) == 1, f"{scope} had {len(terminals)} terminals")
    expect(found[-1] is terminals[0], f"{scope} went on after its terminal")


def _content(found: list[Heard]) -> list[Any]:
    """What was said, without what differs from time to time: neither times nor numbers nor ids."""
    return [(one["type"], one["payload"]) for one in found]


async def a_stream_has_one_terminal_and_no_gap(offer: Offer) -> None:
    """Its messages are numbered 1, 2, 3 …, its terminal is the last one, and comes once."""
    async with probing(offer) as probe:
        scope = _fresh()
        await _open(probe, scope)
        await _finish(probe, {scope})
        await probe.alive()
        _judge(probe, scope)
        expect(len(probe.of(scope)) > 10, "the stream that is offered has too few events to judge it")


async def streams_do_not_disturb_each_other(offer: Offer) -> None:
    """Ten streams at once: each is in order, each has one terminal, and all say the same."""
    async with probing(offer) as probe:
        scopes = {_fresh() for _ in range(10)}
        for scope in scopes:
            await _open(probe, scope)
        await _finish(probe, scopes)
        await probe.alive()
        for scope in scopes:
            _judge(probe, scope)


async def no_more_is_sent_than_was_granted(offer: Offer) -> None:
    """With a window of 3, three events come, then none; a grant of 2 brings two more."""
    async with probing(offer) as probe:
        scope = _fresh()
        await _open(probe, scope, {"window": 3, "policy": "pause"})

        def ended() -> bool:
            return any(probe.role(one) == "terminal" for one in probe.of(scope))

        for granted, more in ((3, 0), (5, 2)):
            if more and not ended():
                await probe.grant(scope, more)
            while probe.events[scope] < granted and not ended():
                await probe.until("an event that was granted", lambda one: one["scope"] == scope)
            await probe.alive()
            came = probe.events[scope]
            expect(came <= granted or ended(), f"{came} events came where {granted} were granted")
        await _finish(probe, {scope})
        _judge(probe, scope)


async def a_slow_reader_gets_its_terminal(offer: Offer) -> None:
    """A reader that grants nothing gets the terminal all the same once the stream is ended."""
    if offer.abort is None:
        raise NotOffered("a way to end a stream")
    async with probing(offer) as probe:
        scope = await _standing(probe)
        await probe.say(scope, offer.abort.type, offer.abort.payload)
        await probe.until("the terminal", lambda one: one["scope"] == scope and probe.role(one) == "terminal")
        await probe.alive()
        _judge(probe, scope)


async def ending_twice_is_acked_twice(offer: Offer) -> None:
    """What ends a stream is idempotent."""
    if offer.abort is None:
        raise NotOffered("a way to end a stream")
    async with probing(offer) as probe:
        scope = _fresh()
        await _open(probe, scope)
        for _ in range(2):
            found = await probe.reply(await probe.say(scope, offer.abort.type, offer.abort.payload))
            expect(found["type"] == "ack", f"{offer.abort.type} was answered by {found['type']}")
        await _finish(probe, {scope})
        _judge(probe, scope)


async def a_scope_is_opened_once(offer: Offer) -> None:
    """To open a stream that is open, or that was, is refused."""
    async with probing(offer) as probe:
        scope, stream = await _standing(probe), _stream(offer)
        await probe.nacked(await probe.say(scope, stream.type, stream.payload, seq=1), "scope_exists")
        await _finish(probe, {scope})
        await probe.nacked(await probe.say(scope, stream.type, stream.payload, seq=1), "scope_over")


async def a_wrong_payload_is_named_and_the_stream_goes_on(offer: Offer) -> None:
    """A payload that its type does not allow gets `invalid_payload` with a pointer into it."""
    if offer.wrong is None:
        raise NotOffered("a message with a wrong payload")
    async with probing(offer) as probe:
        scope = await _standing(probe)
        nack = await probe.nacked(
            await probe.say(scope, offer.wrong.type, offer.wrong.payload), "invalid_payload"
        )
        pointer = str(nack["payload"].get("extra", {}).get("pointer"))
        expect(pointer.startswith("/payload"), f"the pointer is {pointer}")
        await _finish(probe, {scope})
        _judge(probe, scope)


async def after_a_cut_the_stream_goes_on(offer: Offer) -> None:
    """Cut after each of its first messages, it says the same as without a cut, and nothing twice."""
    stream = _stream(offer)
    async with probing(offer) as probe:
        scope = _fresh()
        await _open(probe, scope)
        await _finish(probe, {scope})
        whole = _content(probe.of(scope))
    for heard in range(1, min(8, len(whole))):
        scope = _fresh()
        first = Probe(await offer.connect(), offer)
        await first.hello()
        await first.say(scope, stream.type, {**stream.payload, "flow": {"window": 256}})
        while len(first.of(scope)) < heard:
            await first.until("a message of the stream", lambda one: one["scope"] == scope)
        before = first.of(scope)[:heard]
        if offer.cut is not None:
            await offer.cut(first.wire)
        else:
            await first.wire.close(1001, "")
        spent = sum(first.role(one) in SPENDS for one in before)
        second = Probe(await offer.connect(), offer)
        came = {"messages": heard, "credit": 256 - spent}
        key = {"connection": first.welcome["connection"], "key": first.welcome["resume_key"]}
        welcome = await second.hello(resume=key, received={scope: came})
        expect(welcome["payload"].get("resumed"), "the connection was not taken up again")
        known = welcome["payload"]["received"].get(scope, {}).get("messages")
        expect(known == 1, f"the server says that {known} of 1 messages have come")
        await _finish(second, {scope})
        expect(second.of(scope)[0]["seq"] == 1, "after a cut numbers begin at 1")
        told = _content(before) + _content(second.of(scope))
        expect(told == whole, f"cut after {heard} messages, the stream said something else")
        await second.wire.close(1000, "")


async def what_cannot_be_resumed_is_told(offer: Offer) -> None:
    """`resume` of a log that is not there is answered by `gap`, then `ack`."""
    async with probing(offer) as probe:
        scope = "run:run_00000000000000000000000000"
        ack = await probe.reply(
            await probe.say("conn", "resume", {"scopes": [{"scope": scope, "cursor": 5}]})
        )
        expect(ack["type"] == "ack", f"resume was answered by {ack['type']}")
        gaps = [one["payload"]["scope"] for one in probe.heard if one["type"] == "gap"]
        expect(gaps == [scope], f"the gap was told for {gaps}")


async def a_stranger_does_not_get_another_ones_streams(offer: Offer) -> None:
    """With a wrong key nothing is resumed."""
    async with probing(offer) as first:
        scope = await _standing(first)
        async with asyncio.timeout(offer.patience_s), probing(offer, greeted=False) as second:
            key = {"connection": first.welcome["connection"], "key": "guessed"}
            welcome = await second.hello(resume=key, received={})
            expect(not welcome["payload"].get("resumed"), "a guessed key was taken")
        await _finish(first, {scope})


CHECKS = (
    a_stream_has_one_terminal_and_no_gap, streams_do_not_disturb_each_other, no_more_is_sent_than_was_granted,
    a_slow_reader_gets_its_terminal, ending_twice_is_acked_twice, a_scope_is_opened_once,
    a_wrong_payload_is_named_and_the_stream_goes_on, after_a_cut_the_stream_goes_on, what_cannot_be_resumed_is_told,
    a_stranger_does_not_get_another_ones_streams,
)  # fmt: skip
