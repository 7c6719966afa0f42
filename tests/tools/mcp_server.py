"""A small MCP server for the tests: `mcp_server.py [stdio | PORT] FOLDER`. What it is told lands in FOLDER."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ImageContent, TextContent, ToolAnnotations

WAY, FOLDER = (sys.argv[1], Path(sys.argv[2])) if __name__ == "__main__" else ("", Path())
PICTURE = base64.b64encode(b"\x89PNG tiny").decode()
server = MCPServer("night-shop", log_level="ERROR")


@server.tool(description="Adds.", annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int = 1) -> int:
    return a + b


@server.tool(description="Removes everything.")
def wipe(path: str) -> str:
    return f"gone: {path}"


@server.tool(annotations=ToolAnnotations(destructive_hint=False))
async def count(to: int, context: Context) -> str:
    for n in range(to):
        await context.report_progress(n + 1, to, f"step {n + 1}")
    return f"counted to {to}"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def picture() -> CallToolResult:
    return CallToolResult(
        content=[
            TextContent(text="a picture:"),
            ImageContent(data=PICTURE, mime_type="image/png"),
        ]
    )


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def fail() -> str:
    raise ToolError("no luck today")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def hold() -> str:
    (FOLDER / "held").touch()
    try:
        await asyncio.Event().wait()
    except BaseException:
        (FOLDER / "released").touch()
        raise
    return "never"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def who() -> str:
    return f"{os.getpid()} {os.environ.get('OVERNIGHT_TOKEN', 'no token')} {os.environ.get('GIVEN', '')} {Path.cwd()}"


if __name__ == "__main__":
    if WAY == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(WAY))
