"""Tools out of Python files and modules that a person names. Whatever is wrong with them is told with its place."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from overnight.client.socket.tools import Answer, Hear, Tool
from overnight.client.tools import collect
from overnight.errors import InvalidInput, OvernightError
from overnight.wire.socket.catalog.tools import ToolMeta


class Renamed:
    """A tool under another name; see `client.socket.tools.Tool`."""

    def __init__(self, tool: Tool, name: str) -> None:
        self._tool = tool
        self._meta = {**tool.meta, "name": name}

    @property
    def meta(self) -> Mapping[str, Any]:
        """See `Tool`."""
        return self._meta

    async def run(self, arguments: Mapping[str, Any], hear: Hear) -> Answer:
        """See `Tool`."""
        return await self._tool.run(arguments, hear)


def tools_of(sources: Iterable[str], prefix: str) -> dict[str, Tool]:
    """The tools of all files and modules, by name. Raises InvalidInput."""
    found: dict[str, Tool] = {}
    for source in sources:
        tools = _of_one(source)
        if not tools:
            raise InvalidInput(
                f"{source} has no tools", mend="mark functions: from overnight.client.tools import tool"
            )
        for own, tool in tools.items():
            name = f"{prefix}{own}"
            if name in found:
                raise InvalidInput(f"{source}: another file has a tool {name} too")
            found[name] = _checked(Renamed(tool, name) if prefix else tool, source)
    return found


def _of_one(source: str) -> Mapping[str, Tool]:
    try:
        return collect(vars(_file(Path(source)) if source.endswith(".py") else _module(source)))
    except InvalidInput as error:
        raise InvalidInput(f"{source}: {error.detail}", mend=error.mend) from None


def _checked(tool: Tool, source: str) -> Tool:
    try:
        ToolMeta.model_validate(dict(tool.meta))
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, first["loc"]))
        raise InvalidInput(f"{source}: {tool.meta['name']!r}: {where}: {first['msg']}") from None
    return tool


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidInput("there is no such file")
    # Beside it may lie what it imports, as for a script that is run.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = f"overnight_tools_of_{path.stem}_{len(sys.modules)}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InvalidInput("it is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - anything may be in the file
        del sys.modules[name]
        raise _trouble(error) from None
    return module


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - anything may be in the module
        raise _trouble(error) from None


def _trouble(error: BaseException) -> InvalidInput:
    """What a person needs to mend it: what it is, and the last line of theirs that it came from."""
    if isinstance(error, OvernightError):
        return InvalidInput(error.detail, mend=error.mend)
    said = str(error).partition("\n")[0]
    if isinstance(error, SyntaxError):
        return InvalidInput(f"line {error.lineno}: {error.msg}")
    lines = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    at = f" ({lines[-1].filename}, line {lines[-1].lineno})" if len(lines) > 1 else ""
    return InvalidInput(f"it cannot be imported: {type(error).__name__}: {said}{at}")
