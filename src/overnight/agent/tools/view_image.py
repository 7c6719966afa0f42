"""The tool `view_image`: shows the model a picture that lies in the workspace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from overnight.agent.tools.reading import opened, place
from overnight.agent.tools.threads import in_thread
from overnight.agent.tools.tool import ForModel, Image, Preview, ToolContext, ToolOutcome, ToolSpec

MOST_BYTES: Final = 10 << 20

_DESCRIPTION: Final = "Look at a picture of the workspace: PNG, JPEG, GIF or WebP, up to 10 MiB."
_PARAMETERS: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {"path": {"type": "string", "minLength": 1, "description": "Of the picture."}},
    "required": ["path"],
    "additionalProperties": False,
}


class ViewImage:
    """Implements `Tool`."""

    @property
    def spec(self) -> ToolSpec:
        """See `Tool`."""
        return ToolSpec(
            name="view_image", description=_DESCRIPTION, parameters=_PARAMETERS,
            parallel_safe=True, is_destructive=False, required_permissions=frozenset({"read"}),
        )  # fmt: skip

    async def preview(self, arguments: Mapping[str, object], context: ToolContext) -> Preview:
        """See `Tool`."""
        path = place(context, str(arguments["path"]))
        return Preview(title=f"View {path}", paths=(path,))

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """See `Tool`."""
        path = str(arguments["path"])
        image = await in_thread(lambda _: _loaded(context, path))
        return ToolOutcome(text="attached local image path", images=(image,))


def media_type(data: bytes) -> str | None:
    """By the first bytes, whatever the name says; None for what is no picture that models take."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def _loaded(context: ToolContext, path: str) -> Image:
    with opened(context, path, f"image path {path[:200]!r}") as descriptor:
        size = os.fstat(descriptor).st_size
        if size > MOST_BYTES:
            raise ForModel(f"image path {path[:200]!r} has {size} bytes; at most {MOST_BYTES} can be shown")
        data = os.pread(descriptor, MOST_BYTES + 1, 0)
    found = media_type(data)
    if found is None:
        raise ForModel(f"image path {path[:200]!r} is no PNG, JPEG, GIF or WebP picture")
    return Image(media_type=found, data=data)
