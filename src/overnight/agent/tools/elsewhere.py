"""Tools that others offer through the server, as tools of the agent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from overnight.agent.tools.tool import (
    ErrorCode,
    ForModel,
    Image,
    Permission,
    Preview,
    ToolContext,
    ToolOutcome,
    ToolSpec,
)
from overnight.client.socket.link import Nacked
from overnight.client.socket.tools import Answer, Hear, Progress, ToolCalls
from overnight.errors import Disconnected, NoReply, ToolFailure

_CODES: Final[Mapping[str, ErrorCode]] = {
    "tool_not_found": "tool_not_found",
    "invalid_arguments": "invalid_arguments",
    "tool_timeout": "tool_timeout",
    "tool_unavailable": "tool_unavailable",
}


class ToolElsewhere:
    """One of them. The server checks its arguments, holds its clock, and asks whether it may be called."""

    def __init__(self, meta: Mapping[str, Any], calls: ToolCalls) -> None:
        asks = bool(meta.get("destructive") or meta.get("permissions"))
        self._calls = calls
        self._spec = ToolSpec(
            name=str(meta["name"]),
            description=str(meta.get("description", "")),
            parameters=dict(meta["parameters"]),
            parallel_safe=not asks,
            is_destructive=bool(meta.get("destructive")),
            required_permissions=asked_of(asks=asks),
        )

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return self._spec

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:  # noqa: ARG002
        """See `Tool`: what it does elsewhere cannot be told beforehand."""
        return Preview(title=self._spec.name)

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        try:
            answer = await self._calls.execute(
                self._spec.name, dict(arguments), call=context.call_id, hear=heard_by(context)
            )
        except (ToolFailure, Nacked) as error:
            raise ForModel(
                f"{error.code}: {error.detail}", code=_CODES.get(error.code, "tool_execution_error")
            ) from None
        except (Disconnected, NoReply) as error:
            raise ForModel(f"tool_unavailable: {error.detail}", code="tool_unavailable") from None
        return outcome_of(answer)


async def tools_elsewhere(calls: ToolCalls, besides: Sequence[str]) -> dict[str, ToolElsewhere]:
    """Those that are there now, without names that the agent has itself."""
    found = await calls.list()
    return {
        str(meta["name"]): ToolElsewhere(meta, calls)
        for meta in found
        if meta.get("available", True) and meta["name"] not in besides
    }


def asked_of(*, asks: bool) -> frozenset[Permission]:
    """What a tool wants whose doings only others know."""
    return frozenset({"execute"} if asks else {"read"})


def heard_by(context: ToolContext) -> Hear:
    """Tells the context what a tool says before it is done."""

    async def hear(progress: Progress) -> None:
        said = progress.partial or (f"{progress.status}\n" if progress.status else "")
        if said:
            context.progress(said)

    return hear


def outcome_of(answer: Answer) -> ToolOutcome:
    """The answer, as the model reads it."""
    return ToolOutcome(
        text=answer.text or "(no words)",
        ok=not answer.is_error,
        code="tool_execution_error" if answer.is_error else None,
        structured={"details": answer.details} if answer.details is not None else {},
        images=tuple(_images(answer)),
    )


def _images(answer: Answer) -> Iterator[Image]:
    for part in answer.content:
        if part.get("type") == "image":
            try:
                yield Image(
                    media_type=str(part["media_type"]), data=base64.b64decode(part["data"], validate=True)
                )
            except (KeyError, binascii.Error):
                continue
