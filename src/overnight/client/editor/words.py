"""What a person writes in an editor, as the text of a message. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from acp.schema import (
    AudioContentBlock,
    EmbeddedResourceContentBlock,
    ImageContentBlock,
    ResourceContentBlock,
    TextContentBlock,
    TextResourceContents,
)

from overnight.errors import InvalidInput

Block = (
    TextContentBlock
    | ImageContentBlock
    | AudioContentBlock
    | ResourceContentBlock
    | EmbeddedResourceContentBlock
)
_FENCES: Final = re.compile(r"^`{3,}", re.MULTILINE)


def message_of(blocks: Sequence[Block], cwd: str) -> str:
    """The blocks as one text: files are named in the sentence, and what came with them stands behind it.

    Raises InvalidInput for what no agent here is given (images, sound, binary content), and when nothing is said.
    """
    inline: list[str] = []
    enclosed: list[str] = []
    for block in blocks:
        match block:
            case TextContentBlock(text=text):
                inline.append(text)
            case ResourceContentBlock(name=name, uri=uri):
                inline.append(_named(name, uri, cwd))
            case EmbeddedResourceContentBlock(resource=resource):
                if not isinstance(resource, TextResourceContents):
                    raise InvalidInput(
                        f"{resource.uri}: binary content is not taken", mend="name the file instead"
                    )
                inline.append(_named(resource.uri, resource.uri, cwd))
                enclosed.append(_enclosed(resource, cwd))
            case ImageContentBlock() | AudioContentBlock():
                raise InvalidInput(f"{block.type} content is not taken", mend="describe it, or name a file")
    text = "".join(inline)
    if not text.strip():
        raise InvalidInput("the prompt says nothing", mend="send at least one text block")
    return "\n\n".join([text, *enclosed])


def _named(name: str, uri: str, cwd: str) -> str:
    path = _path(uri)
    if path is None:
        return f"[{name}]({uri})"
    return f"`{_relative(path, cwd)}`"


def _enclosed(resource: TextResourceContents, cwd: str) -> str:
    path = _path(resource.uri)
    name = resource.uri if path is None else _relative(path, cwd)
    longest = max((len(found) for found in _FENCES.findall(resource.text)), default=2)
    fence = "`" * (longest + 1)
    return f"`{name}`:\n{fence}\n{resource.text.rstrip()}\n{fence}"


def _path(uri: str) -> PurePosixPath | None:
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.path:
        return PurePosixPath(unquote(parts.path))
    return PurePosixPath(uri) if not parts.scheme and uri.startswith("/") else None


def _relative(path: PurePosixPath, cwd: str) -> str:
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
