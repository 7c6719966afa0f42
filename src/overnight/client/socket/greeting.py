"""What a server says first, and how it lets scopes with a log go on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from overnight.client.socket.terms import Admission, Ended, Transport
from overnight.errors import NotAvailable, OvernightError, StreamTrimmed, Unauthorized
from overnight.wire.socket.catalog.control import Hello
from overnight.wire.socket.envelope import CONN, Envelope, kind_of
from overnight.wire.socket.events import Closing, Received

if TYPE_CHECKING:
    from overnight.client.socket.link import Link


async def welcomed(link: Link, transport: Transport) -> Ended:
    """Wait for hello, ask whether to let the peer in, and serve it: on this link, or on one that was cut."""
    try:
        async with asyncio.timeout(link.connection.limits.hello_s):
            data = await transport.receive()
    except TimeoutError:
        return await _turned_away(link, transport, Closing(code=1008, reason="hello did not come in time"))
    except (OvernightError, OSError):
        data = None
    if data is None:
        return Ended(code=1006)
    events = link.connection.receive(data, link.clock())
    first = events[0]
    if isinstance(first, Received) and isinstance(first.envelope.body, Hello):
        try:
            admission = await _asked(link, first.envelope.body)
        except OvernightError as error:
            events = link.connection.turn_away(error, first.envelope, link.clock())
        else:
            return await _let_in(link, transport, admission, first.envelope)
    closing = next((one for one in events if isinstance(one, Closing)), Closing(code=1008, reason=""))
    return await _turned_away(link, transport, closing)


async def _asked(link: Link, hello: Hello) -> Admission:
    if link.on_hello is None:
        raise Unauthorized("nobody is let in here")
    return await link.on_hello(link, hello)


async def _let_in(link: Link, transport: Transport, admission: Admission, hello: Envelope) -> Ended:
    going_on = admission.link or link
    if going_on is not link:
        await going_on.supplant()
    told = {
        "connection": admission.connection, "resume_key": admission.resume_key,
        "capabilities": dict(admission.capabilities), "resumed": going_on is not link,
    }  # fmt: skip
    events = going_on.connection.welcome(told, going_on.clock(), hello=hello)
    return await going_on.serve(transport, events)


async def _turned_away(link: Link, transport: Transport, closing: Closing) -> Ended:
    with contextlib.suppress(OvernightError, OSError):
        for message in link.connection.data_to_send():
            await transport.send(message)
        await transport.close(closing.code, closing.reason)
    return Ended(code=closing.code, reason=closing.reason)


async def unserved(link: Link, envelope: Envelope) -> None:
    """Nobody is there for it."""
    if link.connection.catalog[envelope.type].role == "request":
        raise NotAvailable(f"{envelope.type} is not served here")


async def resume(link: Link, envelope: Envelope) -> None:
    """Open the scopes, and let whoever has their logs go on."""
    for point in envelope.body.scopes:
        try:
            resumer = link.resumers.get(kind_of(point.scope))
            if resumer is None:
                raise NotAvailable(f"{kind_of(point.scope)} cannot be resumed here")
            link.open(point.scope)
            await resumer(link, point.scope, point.cursor)
        except OvernightError as error:
            told = error.extra if isinstance(error, StreamTrimmed) else {}
            link.forget(point.scope)
            gap = {"scope": point.scope, "earliest": told.get("earliest"), "latest": told.get("latest")}
            link.post(CONN, "gap", gap)
