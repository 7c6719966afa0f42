"""Judge a server somewhere: `python -m overnight.testing.conformance.socket ws://HOST/api/v1/socket`.

The token is taken from OVERNIGHT_TOKEN. With --model the server is asked for a stream of that model, and what the
protocol says of streams is judged as well; it must give the same answer every time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from overnight.client.socket.target import Target
from overnight.client.socket.transport import SocketTransport
from overnight.errors import OvernightError
from overnight.testing.conformance.socket import greeting, streaming
from overnight.testing.conformance.socket.offer import NotOffered, Offer, Said, Wire
from overnight.testing.conformance.socket.probe import Broken

QUESTION = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Count to twenty."}]}]}


def offered(url: str, token: str | None, model: str | None) -> Offer:
    """A server that is reached by this URL."""

    async def connect() -> Wire:
        transport = SocketTransport()
        await transport.connect(Target(url=url, token=token))
        return transport

    stream = (
        None if model is None else Said(type="stream.start", payload={"model": model, "context": QUESTION})
    )
    return Offer(
        connect=connect, asked=Said(type="models.list"), stream=stream, abort=Said(type="stream.abort"),
        wrong=Said(type="stream.abort", payload={"reason": 7}),
    )  # fmt: skip


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def judge(offer: Offer) -> int:
    """Run every check, say what came of it, and give how many failed."""
    failed = 0
    for check in (*greeting.CHECKS, *streaming.CHECKS):
        name = check.__name__.replace("_", " ")
        try:
            async with asyncio.timeout(offer.patience_s * 10):
                await check(offer)
        except NotOffered as missing:
            _say(f"  --  {name}: not judged, nothing offered: {missing}")
        except (Broken, OvernightError, TimeoutError) as error:
            failed += 1
            _say(f"FAIL  {name}: {str(error) or 'took too long'}")
        else:
            _say(f"  ok  {name}")
    return failed


def main() -> int:
    """Exit status 1 when the server breaks the protocol anywhere."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("url", help="ws://HOST/api/v1/socket")
    parser.add_argument("--model", help="a model that the server has, for the checks of streams")
    asked = parser.parse_args()
    return 1 if asyncio.run(judge(offered(asked.url, os.environ.get("OVERNIGHT_TOKEN"), asked.model))) else 0


if __name__ == "__main__":
    sys.exit(main())
