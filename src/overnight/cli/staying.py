"""How a command begins that stays: it loads the whole program, once, and then carries it about for days."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def staying() -> Iterator[None]:
    """The life of a command that stays. Its program is loaded within, without a search for garbage.

    Hardly anything of what is loaded is garbage. The program collects again once it is up.
    """
    gc.disable()
    try:
        _load_structlog()
        yield
    finally:
        gc.enable()


def _load_structlog() -> None:
    """Without rich, for 3 MiB and 50 ms less: it would take that along for tracebacks in colour, and ours are plain."""
    if sys.modules.keys() & {"rich", "structlog"}:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
