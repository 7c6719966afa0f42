"""What all calls to a server have in common: JSON on its way there and back, and answers that were lost."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import orjson

from overnight.client.endpoint import Endpoint, Locate
from overnight.client.follow import Follow, Plan
from overnight.client.shapes import Delta, Event
from overnight.client.transport import Headers, Query, Transport
from overnight.clock import Clock, SystemClock
from overnight.errors import InvalidId, OutcomeUnknown, OvernightError, Unreachable

API: Final = "/api/v1"
SUBMIT_TRIES: Final = 4


class Calls:
    """One server, and the way to ask it."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        certificate: Path | None = None,
        locate: Locate | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._transport = Transport(Endpoint(url, token, certificate), locate)
        self._clock = clock or SystemClock()

    @property
    def url(self) -> str:
        """The server's base URL at this moment."""
        return self._transport.endpoint.url

    async def _json(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        query: Query | None = None,
        headers: Headers | None = None,
    ) -> dict[str, Any]:
        response = await self._transport.request(method, API + path, json=json, query=query, headers=headers)
        try:
            return cast("dict[str, Any]", orjson.loads(response.content))
        except orjson.JSONDecodeError:
            raise OvernightError(
                f"{self.url} answered with something that is no JSON", mend="check the URL"
            ) from None

    async def _once(self, path: str, body: Mapping[str, object], key: str | None) -> dict[str, Any]:
        """POST under an Idempotency-Key (`key`, or a fresh one): a lost answer is asked for again, with no harm."""
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        for attempt in range(SUBMIT_TRIES):
            try:
                return await self._json("POST", path, json=body, headers=headers)
            except (Unreachable, OutcomeUnknown):
                if attempt == SUBMIT_TRIES - 1:
                    raise
                await self._clock.sleep(0.1 * 2**attempt)
                await self._transport.relocate()
        raise AssertionError("the last try either returned or raised")

    async def _followed(self, plan: Plan) -> AsyncGenerator[Event | Delta]:
        async with aclosing(Follow(self._transport, self._clock, plan).items()) as items:
            async for item in items:
                yield item


def part(text: str) -> str:
    """`text` as one segment of a path, whatever is in it. Raises InvalidId for what no segment can be."""
    if text in {"", ".", ".."}:
        raise InvalidId(f"{text!r} is no id and no name")
    return quote(text, safe="")
