"""Work on the data in a process of its own: whatever goes wrong in it, down to a crash, comes back as words."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

from overnight.errors import OvernightError, StartRefused

_WORDS: Final = 2000


def apart(work: Callable[[], str | None]) -> str:
    """Fork, do it there, and wait; what it answered. Raises StartRefused with what went wrong.

    Call it from one thread, with no database open. It ends with a kill of that process too, and a transaction that
    was under way has then never been.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_done(work, writing))
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as said:
        words = said.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise StartRefused(words or f"the process that did it ended with {code}")
    return words


def _done(work: Callable[[], str | None], writing: int) -> int:
    try:
        words, status = work() or "", 0
    except OvernightError as error:
        words, status = f"{error.detail}{f' ({error.mend})' if error.mend else ''}", 1
    except BaseException as error:  # noqa: BLE001 -- a migration may raise anything, and this is the edge of a process
        words, status = f"{type(error).__name__}: {error}", 1
    os.write(writing, words.encode("utf-8", "replace")[:_WORDS])
    return status
