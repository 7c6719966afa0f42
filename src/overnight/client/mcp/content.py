"""What MCP servers say, in the words of the tool protocol: descriptions of tools, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from overnight.client.socket.tools import Answer

if TYPE_CHECKING:
    from mcp_types import CallToolResult, ContentBlock, Tool, ToolAnnotations


def meta_of(tool: Tool, name: str) -> dict[str, Any]:
    """The tool as `tool.register` takes it, under that name. Its schema is passed through as it is."""
    return {
        "name": name,
        "description": (tool.description or tool.title or "")[:10_000],
        "parameters": {"type": "object", **tool.input_schema},
        "streaming": True,
        "destructive": destroys(tool.annotations),
    }


def destroys(hints: ToolAnnotations | None) -> bool:
    """Whether people are to be asked. A tool that says nothing of itself may do anything: that is MCP's own default."""
    if hints is None:
        return True
    return not hints.read_only_hint and hints.destructive_hint is not False


def answer_of(result: CallToolResult) -> Answer:
    """The answer; what is neither text nor a picture is told in words."""
    return Answer(
        content=[_part(part) for part in result.content],
        is_error=bool(result.is_error),
        details=result.structured_content,
    )


def _part(part: ContentBlock) -> Mapping[str, Any]:
    match part.type:
        case "text":
            return _words(part.text)
        case "image":
            return {"type": "image", "data": part.data, "media_type": part.mime_type}
        case "resource" if (text := getattr(part.resource, "text", None)) is not None:
            return _words(text)
        case "resource":
            return _words(f"[{part.resource.uri}: {part.resource.mime_type or 'bytes'}, not shown]")
        case "resource_link":
            return _words(f"[{part.title or part.name}: {part.uri}]")
        case "audio":
            return _words(f"[sound, {part.mime_type}, not shown]")


def _words(text: str) -> Mapping[str, Any]:
    return {"type": "text", "text": text}
