"""Our messages as pydantic-ai's and back, so that nothing that a provider wants to see again gets lost on the way.

A part of theirs becomes a block of ours: what we have names for moves into its members, the rest stays together as
`extra` and is put back under the same names. Conversations come from other processes, so they are checked and cleaned
here before any provider sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

import orjson
from pydantic import ValidationError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, sanitize_messages

from overnight.errors import InvalidInput
from overnight.ports.model import (
    AssistantMessage,
    Context,
    ImageBlock,
    InputBlock,
    Message,
    OpaqueBlock,
    OutputBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolMessage,
    UserMessage,
)

Json = dict[str, Any]

_OPAQUE: Final = frozenset({"builtin-tool-call", "builtin-tool-return", "compaction", "file"})
"""Parts of theirs that may come back although we have no name for them."""
_KEPT: Final[tuple[str, ...]] = (
    "provider_name",
    "canonical_system",
    "provider_response_id",
    "provider_details",
    "finish_reason",
)
"""What we keep of an answer as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a conversation goes to: an answer from elsewhere does not get this provider's address beside it."""

    endpoint: str
    url: str | None


def to_provider(context: Context, origin: Origin) -> list[ModelMessage]:
    """The conversation for `pydantic_ai.direct`. Raises InvalidInput for one that makes no sense."""
    if not context.messages or context.messages[-1].role == "assistant":
        raise InvalidInput("a conversation ends with a message of the user or with the result of a tool call")
    history = _history(context.messages, origin)
    for entry in history:
        if context.system and entry["kind"] == "request":
            entry["instructions"] = context.system
    try:
        messages = ModelMessagesTypeAdapter.validate_json(orjson.dumps(history))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise InvalidInput(f"the conversation is not valid: {first['msg']}") from None
    return sanitize_messages(
        messages,
        strip_instructions=False,
        # Nothing in a conversation makes this server, or the provider in its name, fetch anything.
        allowed_file_url_schemes=(),
    )


def from_provider(response: ModelResponse, endpoint: str) -> AssistantMessage:
    """A whole answer of theirs as ours."""
    found: Json = ModelMessagesTypeAdapter.dump_python([response], mode="json", exclude_none=True)[0]
    kept = {key: found[key] for key in _KEPT if key in found}
    return AssistantMessage(
        content=tuple(_block(part) for part in found["parts"]),
        model=found.get("model_name", ""),
        extra={"endpoint": endpoint, **kept},
    )


def _history(messages: Iterable[Message], origin: Origin) -> list[Json]:
    history: list[Json] = []
    for message in messages:
        if message.role == "assistant":
            history.append(_response(message, origin))
            continue
        if not history or history[-1]["kind"] != "request":
            history.append({"kind": "request", "parts": []})
        history[-1]["parts"].append(_request_part(message))
    return history


def _request_part(message: UserMessage | ToolMessage) -> Json:
    content = [_input(block) for block in message.content]
    if message.role == "user":
        return {"part_kind": "user-prompt", "content": content}
    return {
        "part_kind": "tool-return",
        "tool_name": message.name,
        "tool_call_id": message.call,
        "content": content[0] if len(content) == 1 else content or "",
        "outcome": "failed" if message.is_error else "success",
    }


def _input(block: InputBlock) -> str | Json:
    if block.type == "text":
        return block.text
    return {"kind": "binary", "data": _web_safe(block.data), "media_type": block.media_type}


def _response(message: AssistantMessage, origin: Origin) -> Json:
    extra = message.extra
    ours = extra.get("endpoint") == origin.endpoint
    return {
        **{key: extra[key] for key in _KEPT if key in extra},
        "kind": "response",
        "model_name": message.model or None,
        # What another service keeps for us is not to be looked up at this one.
        "provider_url": origin.url if ours else f"elsewhere:{extra.get('endpoint', '')}",
        "parts": [_part(block) for block in message.content],
    }


def _part(block: OutputBlock) -> Json:
    match block:
        case TextBlock():
            return {**block.extra, "part_kind": "text", "content": block.text}
        case ThinkingBlock():
            return {
                **block.extra,
                "part_kind": "thinking",
                "content": block.text,
                "signature": block.signature,
            }
        case ToolCallBlock():
            own = {"tool_call_id": block.id, "tool_name": block.name, "args": block.arguments}
            return {**block.extra, "part_kind": "tool-call", **own}
        case ImageBlock():
            picture = {"kind": "binary", "data": _web_safe(block.data), "media_type": block.media_type}
            return {**block.extra, "part_kind": "file", "content": picture}
        case OpaqueBlock():
            if block.kind not in _OPAQUE:
                raise InvalidInput(f"a block of kind {block.kind!r} cannot be given back to a provider")
            return {**block.extra, "part_kind": block.kind}
        case _ as never:
            assert_never(never)


def _block(part: Json) -> OutputBlock:
    kind = part["part_kind"]
    match kind:
        case "text":
            return TextBlock(text=part["content"], extra=_rest(part, "content"))
        case "thinking":
            return ThinkingBlock(
                text=part["content"],
                signature=part.get("signature"),
                extra=_rest(part, "content", "signature"),
            )
        case "tool-call":
            extra = _rest(part, "tool_call_id", "tool_name", "args")
            arguments = arguments_text(part.get("args"))
            return ToolCallBlock(
                id=part["tool_call_id"], name=part["tool_name"], arguments=arguments, extra=extra
            )
        case "file" if part["content"]["media_type"].startswith("image/"):
            picture = part["content"]
            return ImageBlock(
                data=picture["data"].translate(_PLAIN),
                media_type=picture["media_type"],
                extra=_rest(part, "content"),
            )
        case _:
            return OpaqueBlock(kind=kind, extra=_rest(part))


def arguments_text(arguments: str | Mapping[str, Any] | None) -> str:
    """A call's arguments as text; none at all are the empty object."""
    if isinstance(arguments, str):
        return arguments or "{}"
    return orjson.dumps(arguments or {}).decode()


def _rest(part: Json, *known: str) -> Json:
    return {key: value for key, value in part.items() if key != "part_kind" and key not in known}


# pydantic writes and reads the other alphabet of base64; on the wire it is the one that everybody knows.
_PLAIN: Final = str.maketrans("-_", "+/")
_WEB: Final = str.maketrans("+/", "-_")


def _web_safe(data: str) -> str:
    return data.translate(_WEB)
