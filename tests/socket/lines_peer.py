"""A program that speaks the protocol on its standard streams: whoever opens a scope is counted to."""

import asyncio

from tests.socket.exchange import SMALL

from overnight.client.socket.lines import standard_streams
from overnight.client.socket.link import Admission, Link
from overnight.wire.socket.catalog.control import Hello
from overnight.wire.socket.envelope import Envelope


async def count(link: Link, envelope: Envelope) -> None:
    await link.send(envelope.scope, "ack", {}, reply_to=envelope.id)
    for number in range(1000):
        await link.send(envelope.scope, "text", {"text": f"{number}\n\r\u2028"})
    await link.end(envelope.scope, "done", {})


async def greet(_link: Link, hello: Hello) -> Admission:
    return Admission(connection="c", resume_key="k")


async def main() -> None:
    link = Link("server", await standard_streams(), handlers={"start": count}, on_hello=greet, catalog=SMALL)
    await link.run()
    await link.close()


if __name__ == "__main__":
    asyncio.run(main())
