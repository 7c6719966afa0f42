"""A program that speaks the protocol on its standard streams."""

import asyncio

from tests.socket.serving import Counting

from overnight.client.socket.lines import standard_streams


async def main() -> None:
    server = Counting()
    await server.run(await standard_streams())
    await server.close()


if __name__ == "__main__":
    asyncio.run(main())
