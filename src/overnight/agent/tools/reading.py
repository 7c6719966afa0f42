"""What tools that only look have in common: opening what a model names, and saying why that cannot be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from overnight.agent.tools.tool import ForModel, ToolContext
from overnight.agent.tools.workspace import NotThere, OutsideWorkspace

LONGEST_SHOWN: Final = 500
"""Characters of a line or a name; the rest is cut off."""


@contextlib.contextmanager
def opened(context: ToolContext, path: str, what: str, *, folder: bool = False) -> Iterator[int]:
    """A descriptor of a regular file (or a folder) for reading; `what` names it in a refusal. Raises ForModel."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(context.workspace.reading(path, folder=folder))
        except OutsideWorkspace as error:
            raise ForModel(f"{what}: {error}") from None
        except NotThere as error:
            raise ForModel(f"{what} cannot be read: {error}") from None
        yield descriptor


def place(context: ToolContext, path: str) -> str:
    """The path as people are shown it: relative to the workspace, where it lies there. Raises ForModel."""
    try:
        return context.workspace.show(context.workspace.names(path))
    except OutsideWorkspace as error:
        if any(path.startswith(f"{other}/") for other in context.workspace.readable):
            return path
        raise ForModel(str(error)) from None


def cut(text: str) -> str:
    """At most `LONGEST_SHOWN` characters."""
    return text[:LONGEST_SHOWN]
