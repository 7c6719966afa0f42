"""Checks: who speaks first, envelopes, numbers, refusals."""

from __future__ import annotations

from typing import Any

import orjson

from overnight.testing.conformance.socket.offer import NotOffered, Offer, Said
from overnight.testing.conformance.socket.probe import expect, probing


async def hello_is_answered_by_welcome(offer: Offer) -> None:
    """`hello` is answered by `welcome`, with limits and a key to come back with."""
    async with probing(offer, greeted=False) as probe:
        found = await probe.hello()
        expect((found["scope"], found["seq"]) == ("conn", 1), "welcome is the first message of conn")
        for name in ("version", "capabilities", "limits", "connection", "resume_key"):
            expect(name in found["payload"], f"welcome says nothing of {name}")
        expect(found["payload"]["version"] == 1, "the version is 1")


async def another_first_message_is_turned_away(offer: Offer) -> None:
    """Nothing is served before `hello`."""
    async with probing(offer, greeted=False) as probe:
        await probe.say("conn", "ping")
        await probe.ended()
        expect(all(one["type"] != "pong" for one in probe.heard), "a ping was answered before hello")


async def another_version_is_told_which_are_spoken(offer: Offer) -> None:
    """A `hello` of another version is refused with `version_mismatch`."""
    async with probing(offer, greeted=False) as probe:
        nack = await probe.nacked(await probe.say("conn", "hello", {"versions": [77]}), "version_mismatch")
        expect(nack["payload"].get("extra", {}).get("supported_versions") == [1], "version 1 is not named")


async def a_ping_is_answered(offer: Offer) -> None:
    """`ping` is answered by `pong`, which names it."""
    async with probing(offer) as probe:
        found = await probe.reply(await probe.say("conn", "ping"))
        expect(found["type"] == "pong", f"ping was answered by {found['type']}")


async def unknown_fields_are_ignored(offer: Offer) -> None:
    """Members that nobody knows change nothing."""
    async with probing(offer) as probe:
        await probe.reply(await probe.say("conn", "ping", {"x_more": 1}, x_trace="abc"))


async def what_is_no_json_is_nacked(offer: Offer) -> None:
    """A message that is no JSON gets a nack, and the connection goes on."""
    async with probing(offer) as probe:
        for broken in (b"{", b"7", b"[]", b'"text"'):
            await probe.raw(broken)
            await probe.until(f"the nack to {broken!r}", lambda one: one["type"] == "nack")
        await probe.alive()


async def a_missing_or_mistyped_member_is_named(offer: Offer) -> None:
    """An envelope that lacks something gets a nack with the pointer of what it is."""
    wrong: list[tuple[str, Any]] = [
        ("ts", None),
        ("ts", "now"),
        ("payload", None),
        ("payload", []),
        ("scope", "chat:1"),
    ]
    async with probing(offer) as probe:
        for name, value in wrong:
            one = {**probe.envelope("conn", Said(type="ping"), seq=99), name: value}
            if value is None:
                del one[name]
            await probe.raw(orjson.dumps(one))
            nack = await probe.nacked(one["id"], "invalid_payload")
            pointer = nack["payload"].get("extra", {}).get("pointer")
            expect(pointer == f"/{name}", f"the pointer is {pointer}, not /{name}")
        await probe.alive()


async def a_malformed_member_spoils_only_itself(offer: Offer) -> None:
    """In an array the others are carried out."""
    async with probing(offer) as probe:
        first = probe.envelope("conn", Said(type="ping"))
        last = probe.envelope("conn", Said(type="ping"))
        await probe.raw(orjson.dumps([first, {"id": "bad"}, last]))
        answers = {}
        for _ in range(3):
            one = await probe.until(
                "an answer", lambda one: one.get("reply_to") in (first["id"], "bad", last["id"])
            )
            answers[one["reply_to"]] = one["type"]
        expect(
            answers == {first["id"]: "pong", "bad": "nack", last["id"]: "pong"}, f"the answers were {answers}"
        )


async def an_unknown_type_is_nacked(offer: Offer) -> None:
    """A type that the protocol does not have gets `unknown_type`."""
    async with probing(offer) as probe:
        await probe.nacked(await probe.say("conn", "no.such.type"), "unknown_type")
        await probe.alive()


async def a_type_of_the_other_side_is_nacked(offer: Offer) -> None:
    """A client that sends what only servers send gets `unexpected_type`."""
    async with probing(offer) as probe:
        payload = {"version": 1, "capabilities": {}, "limits": {}, "connection": "c", "resume_key": "k"}
        await probe.nacked(await probe.say("conn", "welcome", payload), "unexpected_type")


async def numbers_are_checked_and_a_refused_one_changes_nothing(offer: Offer) -> None:
    """0, a number that was used and one that is too high are refused; the right one is taken then."""
    async with probing(offer) as probe:
        for seq, code in ((0, "invalid_sequence"), (1, "duplicate_sequence"), (9, "sequence_gap")):
            await probe.nacked(await probe.say("conn", "ping", seq=seq), code)
        await probe.alive()


async def a_scope_that_is_not_open_is_told_so(offer: Offer) -> None:
    """A request into a scope that nobody opened gets `unknown_scope`, or is acked where it only ends the scope."""
    async with probing(offer) as probe:
        await probe.nacked(await probe.say("stream:never.1", "no.such.type"), "unknown_scope")
        if offer.abort is None:
            raise NotOffered("a way to end a stream")
        found = await probe.reply(await probe.say("stream:never.2", offer.abort.type, offer.abort.payload))
        expect(
            found["type"] == "ack",
            f"{offer.abort.type} of what was never there is answered by {found['type']}",
        )


async def every_request_gets_one_reply(offer: Offer) -> None:
    """Requests that are sent together are each answered once."""
    if offer.asked is None:
        raise NotOffered("a request of the connection")
    async with probing(offer) as probe:
        asked = [await probe.say("conn", offer.asked.type, offer.asked.payload) for _ in range(20)]
        for one in asked:
            if not any(heard.get("reply_to") == one for heard in probe.heard):
                await probe.reply(one)
        await probe.alive()
        replies = [one.get("reply_to") for one in probe.heard]
        expect(all(replies.count(one) == 1 for one in asked), "a request was answered more than once")


async def too_large_a_batch_is_refused(offer: Offer) -> None:
    """An array with more envelopes than the limit gets a nack."""
    async with probing(offer) as probe:
        most = int(probe.welcome["limits"]["max_batch"])
        await probe.raw(orjson.dumps([{}] * (most + 1)))
        await probe.until("a nack", lambda one: one["type"] == "nack")
        await probe.alive()


async def too_large_a_message_ends_the_connection(offer: Offer) -> None:
    """More bytes than the limit close the connection."""
    async with probing(offer) as probe:
        most = int(probe.welcome["limits"]["max_message_bytes"])
        await probe.raw(b'{"v":1,"x":"' + b"x" * most + b'"}')
        await probe.ended()


CHECKS = (
    hello_is_answered_by_welcome, another_first_message_is_turned_away, another_version_is_told_which_are_spoken,
    a_ping_is_answered, unknown_fields_are_ignored, what_is_no_json_is_nacked, a_missing_or_mistyped_member_is_named,
    a_malformed_member_spoils_only_itself, an_unknown_type_is_nacked, a_type_of_the_other_side_is_nacked,
    numbers_are_checked_and_a_refused_one_changes_nothing, a_scope_that_is_not_open_is_told_so,
    every_request_gets_one_reply, too_large_a_batch_is_refused, too_large_a_message_ends_the_connection,
)  # fmt: skip
